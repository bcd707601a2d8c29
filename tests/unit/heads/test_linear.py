"""The linear heads have scikit-learn's coefficients, whichever way their rows are written."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

from headstart.heads import linear
from headstart.heads.fitting import row_space as row_spaces
from headstart.heads.fitting.linear_solvers import Deviance, SquaredHinge, finish, minimise, solve_path
from headstart.heads.fitting.row_space import row_space
from headstart.heads.linear import LinearSVM, LogisticHead

#: Of the largest coefficient: how far coefficients may be from scikit-learn's, both at tol=1e-10.
TOLERANCE = 2e-5

SHAPES = {"wide": (60, 300), "tall": (200, 30)}


def features(shape: tuple[int, int]) -> np.ndarray:
    """Rows like those of a map after ReLU: most values are zero, rows have unit length."""
    rng = np.random.default_rng(3)
    values = np.maximum(rng.normal(size=shape) - 0.8, 0)
    return normalize(values + np.eye(*shape) * 0.1)


def classes(n_samples: int, n_classes: int) -> np.ndarray:
    return np.random.default_rng(5).permutation(np.arange(n_samples) % n_classes)


@cache
def fitted_by_scikit_learn(
    kind: type[LogisticHead | LinearSVM], shape: str, n_classes: int, C: float, class_weight: str | None
) -> LogisticRegression | LinearSVC:
    X, y = features(SHAPES[shape]), classes(SHAPES[shape][0], n_classes)
    return plain(kind(C, class_weight=class_weight)).fit(X, y)


def plain(head: LogisticHead | LinearSVM) -> LogisticRegression | LinearSVC:
    common = {"C": head.C, "class_weight": head.class_weight, "tol": 1e-10, "max_iter": 200_000}
    return LogisticRegression(**common) if isinstance(head, LogisticHead) else LinearSVC(**common)


@pytest.mark.parametrize("way", ["row space", "given rows"])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix], ids=["dense", "sparse"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("head", [LogisticHead, LinearSVM])
def test_coefficients_are_those_of_scikit_learn(head, n_classes, shape, form, way, monkeypatch) -> None:
    if way == "given rows":
        monkeypatch.setattr(row_spaces, "MAX_RANK", 0)
    X, y = features(SHAPES[shape]), classes(SHAPES[shape][0], n_classes)
    for C, weights in ((0.1, None), (30.0, "balanced")):
        ours = head(C, class_weight=weights, tol=1e-10).fit(form(X), y)
        theirs = fitted_by_scikit_learn(head, shape, n_classes, C, weights)
        scale = np.abs(theirs.coef_).max()
        np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=TOLERANCE * scale)
        np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=10 * TOLERANCE * scale)
        np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), atol=10 * TOLERANCE * scale)


def test_float32_features_give_the_same_coefficients() -> None:
    X, y = features((60, 300)), classes(60, 3)
    double, single = (LogisticHead(10.0).fit(X.astype(dtype), y).coef_ for dtype in (np.float64, np.float32))
    np.testing.assert_allclose(single, double, atol=1e-4)


def test_sparse_rows_are_kept_sparse_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_spaces, "MAX_RANK", 10)
    X = features((60, 300))
    assert sparse.issparse(row_space(X, centred=True).rows)
    assert not sparse.issparse(row_space(X + 1, centred=True).rows)


@pytest.mark.parametrize("shape", SHAPES.values())
@pytest.mark.parametrize("centred", [False, True])
def test_a_row_space_keeps_inner_products(shape: tuple[int, int], centred: bool) -> None:
    X = features(shape)
    space = row_space(X, centred=centred)
    moved = X - X.mean(axis=0) if centred else X
    np.testing.assert_allclose(space.rows @ space.rows.T, moved @ moved.T, atol=1e-10)
    assert space.rows.shape[1] <= min(shape)


@pytest.mark.parametrize("shape", SHAPES.values())
def test_coefficients_come_back_to_the_features(shape: tuple[int, int]) -> None:
    X = features(shape)
    space = row_space(X, centred=True)
    weights = np.random.default_rng(0).normal(size=(space.rows.shape[1], 3))
    there = X @ space.to_features(weights).T - space.mean @ space.to_features(weights).T
    np.testing.assert_allclose(there, space.rows @ weights, atol=1e-9)


def test_a_path_ends_where_single_fits_end() -> None:
    X, y = features((60, 300)), classes(60, 4)
    loss = Deviance(y, 4, np.ones(60))
    for solution in solve_path(X, loss, [0.01, 1.0, 100.0], tol=1e-10, max_iter=5000):
        single = LogisticHead(solution.C, tol=1e-10).fit(X, y)
        np.testing.assert_allclose(solution.weights.T, single.coef_, atol=1e-5 * np.abs(single.coef_).max())


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("kind", ["deviance", "hinge"])
def test_derivatives_are_those_of_the_loss(kind: str, n_classes: int) -> None:
    rng = np.random.default_rng(1)
    codes, weights = classes(12, n_classes), rng.uniform(0.5, 2, 12)
    loss = (
        Deviance(codes, n_classes, weights)
        if kind == "deviance"
        else SquaredHinge.of_classes(codes, n_classes, weights)
    )
    scores, step = rng.normal(size=(12, loss.n_outputs)), 1e-6
    _, slope = loss(scores)
    curvature = loss.curvature(scores)
    for at in np.ndindex(scores.shape):
        there, back = scores.copy(), scores.copy()
        there[at] += step
        back[at] -= step
        assert (loss(there)[0] - loss(back)[0]) / (2 * step) == pytest.approx(slope[at], abs=1e-6)
        assert (loss(there)[1][at] - loss(back)[1][at]) / (2 * step) == pytest.approx(curvature[at], abs=1e-5)


def test_a_fit_that_has_not_converged_says_so() -> None:
    X, y = features((60, 300)), classes(60, 3)
    with pytest.warns(ConvergenceWarning, match=r"C=1000 has not converged in 2 steps.*Raise max_iter"):
        LogisticHead(1000.0, max_iter=2).fit(X, y)


def test_the_minimiser_finds_a_minimum_far_away_and_knows_when_it_did_not() -> None:
    rng = np.random.default_rng(0)
    half = rng.normal(size=(20, 20))
    matrix, wanted = half @ half.T + np.eye(20), rng.normal(size=20) * 100

    def bowl(x: np.ndarray) -> tuple[float, np.ndarray]:
        return float((x - wanted) @ matrix @ (x - wanted)) / 2, matrix @ (x - wanted)

    found = minimise(bowl, np.zeros(20), tol=1e-8, max_iter=500)
    np.testing.assert_allclose(found.x, wanted, atol=1e-6)
    assert found.converged
    assert not minimise(bowl, np.zeros(20), tol=1e-8, max_iter=3).converged


@pytest.mark.parametrize("shape", SHAPES.values())
def test_newton_ends_exactly_where_the_gradient_is_zero(shape: tuple[int, int]) -> None:
    X, y = features(shape) * 20, classes(shape[0], 3)
    weights = np.linspace(0.5, 2, shape[0])
    loss = SquaredHinge.of_classes(y, 3, weights)
    start = next(solve_path(X, loss, [100.0], tol=1e-2, max_iter=20))
    found = finish(X, loss, 100.0, start)
    _, slope = loss(found.scores(X))
    assert found.converged
    np.testing.assert_allclose(found.weights + 100.0 * X.T @ slope, 0, atol=1e-6)
    np.testing.assert_allclose(found.intercept + 100.0 * slope.sum(axis=0), 0, atol=1e-6)


def test_an_svm_that_is_hard_to_walk_to_is_solved_all_the_same() -> None:
    """Few rows of great length, nearly no penalty: steps along the gradient get nowhere."""
    X, y = np.random.default_rng(0).normal(size=(24, 200)), classes(24, 3)
    ours = LinearSVM(1000.0).fit(X, y)
    theirs = LinearSVC(C=1000.0, tol=1e-8, max_iter=200_000).fit(X, y)

    def objective(svm: LinearSVM | LinearSVC) -> np.ndarray:
        missing = np.maximum(0, 1 - np.where(y[:, None] == np.arange(3), 1, -1) * svm.decision_function(X))
        return 0.5 * (svm.coef_**2).sum(axis=1) + 0.5 * svm.intercept_**2 + 1000.0 * (missing**2).sum(axis=0)

    assert (objective(ours) <= objective(theirs) * (1 + 1e-5)).all()
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=5e-3 * np.abs(theirs.coef_).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_the_exact_way_from_any_start_leaves_out_rows_of_no_weight(shape, monkeypatch) -> None:
    """Their equations would be singular; and a walk that ends on a margin's edge must not pass for unfinished."""
    monkeypatch.setattr(linear, "EASY_STEPS", 1)
    X, y = features(SHAPES[shape]), classes(SHAPES[shape][0], 4)
    weights = (np.arange(len(y)) % 7 > 0).astype(float)
    weights[7] = 1e-320  # as good as none: its inverse would be infinite
    for C in (0.1, 30.0, 1e4):
        ours = LinearSVM(C).fit(X, y, sample_weight=weights)
        without = LinearSVM(C).fit(X[weights == 1], y[weights == 1])
        plain_svm = LinearSVC(C=C, tol=1e-10, max_iter=200_000).fit(X[weights == 1], y[weights == 1])
        scale = np.abs(plain_svm.coef_).max()
        np.testing.assert_allclose(ours.coef_, without.coef_, rtol=0, atol=1e-9 * scale)
        np.testing.assert_allclose(ours.coef_, plain_svm.coef_, rtol=0, atol=TOLERANCE * scale)
