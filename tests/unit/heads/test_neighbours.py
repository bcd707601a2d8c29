from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from headstart.heads.neighbours import NeighboursHead


def rows(n_samples: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % 3
    return rng.random((n_samples, 6)) + 2.0 * np.eye(3, 6)[y], y


def test_weights_of_neighbours_by_hand() -> None:
    head = NeighboursHead(3, metric="euclidean", smoothing=0.5).fit([[0.0], [2.0], [3.0], [100.0]], [0, 1, 1, 0])
    # Squared distances of 1: 1, 1 and 4, mean 2; weights 1, 1 and exp(−3 / 2).
    one, two = 1.0 + 0.25, 1.0 + np.exp(-1.5) + 0.25
    np.testing.assert_allclose(head.predict_proba([[1.0]]), [[one / (one + two), two / (one + two)]])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_no_class_has_probability_0(metric: str) -> None:
    X, y = rows()
    probabilities = NeighboursHead(2, metric=metric).fit(X, y).predict_proba(X)
    assert probabilities.min() > 0.01
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_unit_of_the_features_does_not_matter(metric: str) -> None:
    X, y = rows()
    head = NeighboursHead(metric=metric).fit(X[::2], y[::2])
    other = NeighboursHead(metric=metric).fit(1000.0 * X[::2], y[::2])
    np.testing.assert_allclose(other.predict_proba(1000.0 * X), head.predict_proba(X), rtol=1e-6)


def test_the_two_metrics_agree_on_rows_of_length_1() -> None:
    X, y = rows()
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    cosine, euclidean = (NeighboursHead(metric=m).fit(X[::2], y[::2]).predict_proba(X) for m in ("cosine", "euclidean"))
    np.testing.assert_allclose(cosine, euclidean, rtol=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_sparse_rows_are_the_same_rows(metric: str) -> None:
    X, y = rows()
    X[X < 0.5] = 0
    head, other = (NeighboursHead(metric=metric).fit(form(X), y) for form in (np.asarray, sparse.csr_matrix))
    np.testing.assert_allclose(other.predict_proba(sparse.csr_matrix(X)), head.predict_proba(X), rtol=1e-9)


def test_more_neighbours_than_rows_asks_all() -> None:
    X, y = rows(6)
    probabilities = [NeighboursHead(n).fit(X, y).predict_proba(X) for n in (6, 500)]
    np.testing.assert_array_equal(*probabilities)


def test_balanced_weights_help_the_rare_class() -> None:
    X, y = rows()
    y = np.where(np.arange(len(y)) < 50, 0, 1)
    plain, balanced = (
        NeighboursHead(20, class_weight=weight).fit(X, y).predict_proba(X)[:, 1].mean() for weight in (None, "balanced")
    )
    assert balanced > 2 * plain


def test_later_changes_of_the_training_array_do_not_reach_the_head() -> None:
    X, y = rows()
    head = NeighboursHead().fit(X, y)
    before = head.predict_proba(X.copy())
    asked, X[:] = X.copy(), 0
    np.testing.assert_array_equal(head.predict_proba(asked), before)
