from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.metrics import log_loss

from headstart.heads.fitting import row_space
from headstart.heads.ridge import RidgeHead, ridge_path


def problem(n_samples: int, n_features: int, n_classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % n_classes
    X = rng.normal(size=(n_samples, n_features)) + rng.normal(size=(n_classes, n_features))[y] + 3.0
    return X * (rng.random(X.shape) < 0.5), y


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 3.0, 1: 0.5, 2: 1.0}])
@pytest.mark.parametrize("shape", [(60, 11), (30, 90), (40, 40)])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_coefficients_are_those_of_scikit_learn(form, class_weight, shape: tuple[int, int], n_classes: int) -> None:
    X, y = problem(*shape, n_classes)
    y[:5] = 0  # not balanced
    ours = RidgeHead(0.7, class_weight=class_weight).fit(form(X), y)
    theirs = RidgeClassifier(0.7, class_weight=class_weight, solver="cholesky").fit(X, y)
    np.testing.assert_allclose(ours.coef_, np.atleast_2d(theirs.coef_), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(ours.intercept_, np.ravel(theirs.intercept_), rtol=1e-8)
    np.testing.assert_allclose(ours.decision_function(form(X)), theirs.decision_function(X), rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(ours.predict(form(X)), theirs.predict(X))


@settings(max_examples=25)
@given(
    n_samples=st.integers(4, 25),
    n_features=st.integers(1, 30),
    alpha=st.floats(1e-4, 1e4),
    weighted=st.booleans(),
    seed=st.integers(0, 99),
)
def test_left_out_scores_are_those_of_fits_without_the_row(
    n_samples: int, n_features: int, alpha: float, weighted: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    X, targets = rng.normal(size=(n_samples, n_features)) + 2.0, rng.normal(size=(n_samples, 2))
    weights = rng.random(n_samples) + 0.1 if weighted else np.ones(n_samples)
    path = ridge_path(X, targets, [alpha], weights=weights)
    for row in range(n_samples):
        rest = np.arange(n_samples) != row
        fitted = Ridge(alpha).fit(X[rest], targets[rest], weights[rest])
        np.testing.assert_allclose(path.left_out[0, row], fitted.predict(X[[row]])[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", [(60, 11), (30, 90)])
def test_one_decomposition_serves_every_alpha(shape: tuple[int, int]) -> None:
    X, y = problem(*shape)
    targets = np.where(y[:, None] == np.arange(3), 1.0, -1.0)
    alphas = [1e-3, 1.0, 1e3]
    path = ridge_path(X, targets, alphas)
    for i, alpha in enumerate(alphas):
        theirs = Ridge(alpha, solver="svd").fit(X, targets)
        np.testing.assert_allclose(path.coefs[i], theirs.coef_, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(path.intercepts[i], theirs.intercept_, rtol=1e-6)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("shape", [(60, 11), (30, 90)])
def test_blocks_change_nothing(form, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = problem(*shape)
    whole = RidgeHead().fit(form(X), y)
    monkeypatch.setattr(row_space, "BLOCK_SIZE", 200)
    in_parts = RidgeHead().fit(form(X), y)
    np.testing.assert_allclose(in_parts.coef_, whole.coef_, rtol=1e-9, atol=1e-12)


def test_float32_rows_are_solved_in_float64() -> None:
    X, y = problem(50, 20)
    small = X.astype(np.float32)
    exact = RidgeHead(1e-3).fit(small.astype(np.float64), y)
    np.testing.assert_allclose(RidgeHead(1e-3).fit(small, y).coef_, exact.coef_, rtol=1e-10)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_temperature_fits_rows_that_were_not_seen(n_classes: int) -> None:
    X, y = problem(600, 30, n_classes)
    head = RidgeHead().fit(X[:300], y[:300])
    fitted, losses = head.temperature_, {}
    for factor in (0.5, 1.0, 2.0):
        head.temperature_ = fitted * factor
        losses[factor] = log_loss(y[300:], head.predict_proba(X[300:]))
    assert losses[1.0] == min(losses.values())


def test_classes_without_overlap_keep_finite_probabilities() -> None:
    X = np.repeat(np.eye(3), 10, axis=0)
    head = RidgeHead(1e-6).fit(X, np.repeat([0, 1, 2], 10))
    probabilities = head.predict_proba(X)
    assert 0 < probabilities.min() < 0.1


def test_rows_that_are_all_equal_have_the_shares_of_the_classes() -> None:
    head = RidgeHead().fit(np.ones((6, 3)), [0, 0, 0, 0, 1, 1])
    assert head.predict(np.ones((1, 3))) == [0]
    assert np.isfinite(head.predict_proba(np.ones((1, 3)))).all()
