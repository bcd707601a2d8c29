"""A row of weight n in a fit is as n rows, and a row of weight 0 as none, where the loss is a sum over the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from headstart.errors import DataError
from headstart.heads.base import row_weights
from headstart.heads.class_mean import ClassMeanHead
from headstart.heads.dense import DenseHead
from headstart.heads.linear import LinearSVM, LogisticHead
from headstart.heads.ridge import RidgeHead
from headstart.heads.svm import LinearSVMHead, RBFSVMHead

#: Weights that are tried: whole numbers, for comparison with repeated rows.
WEIGHTS = np.tile([1.0, 2.0, 0.0, 3.0, 1.0], 8)


@pytest.fixture(scope="module", params=[2, 3])
def rows(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(40) % request.param
    return rng.normal(size=(40, 12)) + 0.8 * np.eye(12)[y], y


def scores(head: Any, X: np.ndarray) -> np.ndarray:
    """What the data alone decide: of SVMs, without the folds of their calibration."""
    if hasattr(head, "calibrated_"):
        return head.calibrated_.calibrated_classifiers_[0].estimator.decision_function(X)
    return head.svm_.decision_function(X) if hasattr(head, "svm_") else head.predict_proba(X)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize(
    "head",
    [
        LogisticHead(tol=1e-12), LinearSVMHead(random_state=0), RBFSVMHead(random_state=0),
        RBFSVMHead(gamma_factor=2.0, random_state=0), RidgeHead(), ClassMeanHead(),
    ],
    ids=lambda head: type(head).__name__,
)  # fmt: skip
def test_a_row_of_weight_two_is_two_rows(
    head: Any, class_weight: str | None, rows: tuple[np.ndarray, np.ndarray]
) -> None:
    X, y = rows
    if hasattr(head, "class_weight"):
        head.set_params(class_weight=class_weight)
    again = WEIGHTS.astype(int)
    repeated = scores(head.fit(X.repeat(again, axis=0), y.repeat(again)), X)
    weighted = scores(head.fit(X, y, sample_weight=WEIGHTS), X)
    exact = not isinstance(head, LinearSVMHead | RBFSVMHead)  # the others stop at a tolerance
    np.testing.assert_allclose(weighted, repeated, rtol=1e-6 if exact else 2e-3, atol=1e-8 if exact else 2e-3)
    assert np.abs(scores(head.fit(X, y), X) - weighted).max() > 1e-2
    of_csr = scores(head.fit(sparse.csr_matrix(X), y, sample_weight=WEIGHTS), sparse.csr_matrix(X))
    np.testing.assert_allclose(of_csr, weighted, rtol=1e-5, atol=2e-3)


@pytest.mark.parametrize("head", [LogisticHead(tol=1e-12), RidgeHead(), ClassMeanHead(), LinearSVM(tol=1e-12)])
def test_weights_of_one_change_nothing(head: Any, rows: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = rows
    without = head.fit(X, y).predict(X)
    np.testing.assert_array_equal(head.fit(X, y, sample_weight=np.ones(len(y))).predict(X), without)


@pytest.mark.slow
def test_a_dense_head_learns_from_the_rows_with_weight() -> None:
    y = np.arange(40) % 2
    X = np.random.default_rng(0).normal(size=(40, 6)) + np.eye(6)[y]
    both, labels = np.concatenate([X, X]), np.concatenate([y, 1 - y])  # every row again, with the other label
    weights = np.repeat([1.0, 0.0], len(y))
    head = DenseHead(hidden=(), epochs=8, learning_rate=0.05, cv=2, random_state=0)
    alone = head.fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(head.fit(both, labels, sample_weight=weights).predict_proba(X), alone)
    head.set_params(cv=0)
    right, wrong = (head.fit(both, labels, sample_weight=w).score(X, y) for w in (weights + 0.05, weights[::-1] + 0.05))
    assert right > 0.7 > 0.3 > wrong


def test_balanced_classes_weigh_the_same_together() -> None:
    y, weights = np.array(["a", "a", "b", "b"]), np.array([1.0, 2.0, 0.5, 0.5])
    found = row_weights("balanced", y, weights)
    np.testing.assert_allclose(found, weights * np.array([4 / 6, 4 / 6, 2, 2]))
    np.testing.assert_array_equal(row_weights({"a": 3}, y, weights), [3.0, 6.0, 0.5, 0.5])
    np.testing.assert_array_equal(row_weights(None, y), np.ones(4))


@pytest.mark.parametrize(("weights", "words"), [([1.0, -1.0], "Negative"), ([1.0, np.nan], "NaN"), ([1.0], "shape")])
def test_other_weights_are_refused(weights: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RidgeHead().fit(np.eye(2), [0, 1], sample_weight=weights)


def test_rows_without_any_weight_are_refused() -> None:
    with pytest.raises((DataError, ValueError), match=r"only rows of weight 0|at least one non-zero"):
        RidgeHead().fit(np.eye(2), [0, 1], sample_weight=[0, 0])
