from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.special import softmax
from sklearn.metrics import log_loss
from sklearn.neighbors import NearestCentroid

from headstart.heads import class_mean
from headstart.heads.class_mean import ClassMeanHead
from headstart.heads.fitting import row_space


def rows(n_samples: int = 60, n_features: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % 3
    spread = np.linspace(0.5, 3.0, n_features)
    return spread * (rng.normal(size=(n_samples, n_features)) + np.eye(3, n_features)[y] * 2) + 5.0, y


def test_the_plain_distance_is_scikit_learns_nearest_centroid() -> None:
    X, y = rows()
    head = ClassMeanHead(shrinkage=1.0).fit(X, y)
    theirs = NearestCentroid().fit(X, y)
    np.testing.assert_allclose(head.means_, theirs.centroids_)
    np.testing.assert_array_equal(head.predict(X), theirs.predict(X))


def test_variances_are_pooled_within_classes_and_shrunk() -> None:
    X, y = rows()
    pooled = sum(((X[y == label] - X[y == label].mean(axis=0)) ** 2).sum(axis=0) for label in range(3)) / (60 - 3)
    np.testing.assert_allclose(ClassMeanHead(0.25).fit(X, y).variances_, 0.75 * pooled + 0.25 * pooled.mean())


@pytest.mark.parametrize("shrinkage", [0.1, 1.0])
def test_left_out_scores_are_those_of_fits_without_the_row(shrinkage: float, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = rows(24)
    seen = []
    monkeypatch.setattr(class_mean, "fit_temperature", lambda scores, labels, *_: seen.append((scores, labels)) or 1.0)
    ClassMeanHead(shrinkage).fit(X, y)
    scores, labels = seen[0]
    np.testing.assert_array_equal(labels, y)
    for row in range(len(X)):
        rest = np.arange(len(X)) != row
        np.testing.assert_allclose(
            scores[row], ClassMeanHead(shrinkage).fit(X[rest], y[rest]).decision_function(X[[row]])[0], rtol=1e-8
        )


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_blocks_and_sparse_rows_change_nothing(form, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = rows()
    whole = ClassMeanHead().fit(X, y)
    monkeypatch.setattr(row_space, "BLOCK_SIZE", 50)
    head = ClassMeanHead().fit(form(X), y)
    assert head.temperature_ == pytest.approx(whole.temperature_, rel=1e-5)
    np.testing.assert_allclose(head.decision_function(form(X)), whole.decision_function(X), rtol=1e-9)


def test_probabilities_fit_rows_that_were_not_seen() -> None:
    X, y = rows(600, 40)
    head = ClassMeanHead().fit(X[::2], y[::2])
    losses = {}
    for factor in (0.5, 1.0, 2.0):
        again = ClassMeanHead().fit(X[::2], y[::2])
        again.temperature_ = head.temperature_ * factor
        losses[factor] = log_loss(y[1::2], again.predict_proba(X[1::2]))
    assert losses[1.0] == min(losses.values())


def test_the_layer_has_the_same_probabilities() -> None:
    X, y = rows()
    head = ClassMeanHead().fit(X, y)
    (layer,) = head.to_layers()
    np.testing.assert_allclose(
        softmax(X @ layer.kernel + layer.bias, axis=1), head.predict_proba(X), rtol=1e-4, atol=1e-6
    )


def test_one_image_of_each_class_is_enough_but_said() -> None:
    with pytest.warns(UserWarning, match="one image"):
        head = ClassMeanHead().fit(np.eye(3), [0, 1, 2])
    np.testing.assert_array_equal(head.predict(np.eye(3)), [0, 1, 2])
    assert np.isfinite(head.predict_proba(np.eye(3))).all()


def test_a_feature_without_variance_does_not_divide_by_0() -> None:
    X, y = rows()
    X[:, 0] = y
    head = ClassMeanHead(0.01).fit(X, y)
    assert np.isfinite(head.predict_proba(X)).all()
    assert head.score(X, y) > 0.95
