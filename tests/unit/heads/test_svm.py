from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.special import softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import log_loss
from sklearn.svm import SVC

from headstart.heads.svm import LinearSVMHead, RBFSVMHead


def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = 2.0 * rng.random((60, 5)) + np.eye(3, 5)[y]
    return X * (rng.random(X.shape) < 0.8), y


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("gamma", ["scale", "auto", 0.3])
def test_the_factor_multiplies_what_scikit_learn_takes_gamma_for(gamma: str | float, form) -> None:
    X, y = rows()
    head = RBFSVMHead(gamma=gamma, gamma_factor=2.5).fit(form(X), y)
    assert head.gamma_ == pytest.approx(2.5 * SVC(gamma=gamma).fit(form(X), y)._gamma)


def test_without_a_factor_gamma_goes_to_scikit_learn_as_it_is() -> None:
    assert RBFSVMHead().fit(*rows()).gamma_ == "scale"


def many_classes(n_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ten classes that overlap."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_rows) % 10
    return rng.normal(size=(n_rows, 20)) + 2.5 * np.eye(10, 20)[y], y


@pytest.mark.slow
@pytest.mark.parametrize("head", [LinearSVMHead(C=0.1), RBFSVMHead(C=1.0)])
def test_of_many_classes_the_probabilities_are_those_of_a_temperature(head: LinearSVMHead | RBFSVMHead) -> None:
    (X, y), (X_new, y_new) = many_classes(300, 0), many_classes(2000, 1)
    found = head.fit(X, y).predict_proba(X_new)
    decisions = head.svm_.decision_function(X_new)
    np.testing.assert_allclose(found, softmax(decisions / head.temperature_, axis=1))
    assert np.array_equal(head.predict(X_new), decisions.argmax(axis=1))
    sigmoids = CalibratedClassifierCV(head._svm(), ensemble=False, cv=5).fit(X, y).predict_proba(X_new)
    assert log_loss(y_new, found) < 0.95 * log_loss(y_new, sigmoids)
    best = min(log_loss(y_new, softmax(decisions / t, axis=1)) for t in head.temperature_ * np.geomspace(0.2, 5, 200))
    assert log_loss(y_new, found) < best + 0.02


def test_probabilities_of_classes_that_are_told_apart_without_a_mistake_are_no_certainties() -> None:
    X, y = many_classes(100, 0)
    head = LinearSVMHead().fit(X + 50 * np.eye(10, 20)[y], y)
    assert 0.85 < head.predict_proba(X + 50 * np.eye(10, 20)[y]).max(axis=1).max() < 0.99


def test_class_weight_moves_the_probabilities() -> None:
    X, y = many_classes(300, 0)
    few = np.flatnonzero((y > 0) | (np.arange(len(y)) % 50 == 0))  # six of class 0
    plain, balanced = (LinearSVMHead(C=0.1, class_weight=w).fit(X[few], y[few]) for w in (None, "balanced"))
    assert balanced.predict_proba(X)[:, 0].mean() > 1.5 * plain.predict_proba(X)[:, 0].mean()


@pytest.mark.parametrize("head", [LinearSVMHead(), RBFSVMHead()])
def test_a_head_can_be_fitted_again_to_another_number_of_classes(head: LinearSVMHead | RBFSVMHead) -> None:
    X, y = many_classes(100, 0)
    for n_classes in (10, 2, 3):
        head.fit(X[y < n_classes], y[y < n_classes])
        assert head.predict_proba(X).shape == (100, n_classes)
        assert hasattr(head, "temperature_") == (n_classes > 2)
