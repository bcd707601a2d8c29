"""Newton's method for linear SVMs: exact, in a few steps, once most rows lie beyond the margin.

With the squared hinge the objective is quadratic wherever the same rows are within the margin; when a full step leaves that
set as it is, the minimum is exact. Mangasarian, "A finite Newton method for classification", Optimization Methods and
Software 17, 2002; Chapelle, "Training a support vector machine in the primal", Neural Computation 19, 2007.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import linalg

from headstart.heads.path import Solution

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.heads.losses import SquaredHinge

    Vector = NDArray[np.float64]

#: Steps of one class at most; some ten are enough.
MAX_STEPS = 100

#: How near to the margin a row may lie on either side of it: what it adds to the gradient is rounding.
ON_MARGIN = 1e-9

#: Halvings of a step at most.
MAX_HALVINGS = 30


def finish(rows: NDArray[np.float64], loss: SquaredHinge, C: float, start: Solution) -> Solution:
    """Return the exact minimum of ``C · loss + ½ ‖weights‖²``, the intercept penalised, from a solution near to it.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_features), float64
        Features.
    loss : SquaredHinge
        Of the rows.
    C : float
        Weight of the loss.
    start : Solution
        Where to begin.
    """
    X = np.column_stack([rows, np.ones(len(rows))])
    columns, ended, steps = [], [], 0
    for k in range(loss.n_outputs):
        weights = np.append(start.weights[:, k], start.intercept[k])
        found, n_steps, exact = one_class(X, loss.targets[:, k], C * loss.weights, weights)
        columns.append(found)
        ended.append(exact)
        steps = max(steps, n_steps)
    stacked = np.stack(columns, axis=1)
    return Solution(C, stacked[:-1], stacked[-1], start.n_iter + steps, all(ended))


def one_class(X: NDArray[np.float64], targets: Vector, costs: Vector, weights: Vector) -> tuple[Vector, int, bool]:
    """Return the weights of one class against the rest, the steps taken, and whether they are exact.

    They are when the same rows lie within the margin before and after a full step; those on its edge may change sides.
    """

    def missing(at: Vector) -> Vector:
        return 1.0 - targets * (X @ at)

    def objective(at: Vector) -> float:
        return float(0.5 * at @ at + costs @ np.maximum(0.0, missing(at)) ** 2)

    value = objective(weights)
    costly = costs > np.finfo(np.float64).tiny  # a row that costs nothing would make the equations singular
    for step in range(1, MAX_STEPS + 1):
        within = costly & (missing(weights) > 0.0)
        goal = minimum_of(X[within], targets[within], costs[within])
        left = missing(goal)
        moved = costly & ((left > 0.0) != within)
        if np.all(np.abs(left[moved]) <= ON_MARGIN):
            return goal, step, True
        size, direction = 1.0, goal - weights
        for _ in range(MAX_HALVINGS):
            reached = objective(weights + size * direction)
            if reached <= value:
                break
            size *= 0.5
        else:
            return weights, step, False
        weights, value = weights + size * direction, reached
    return weights, MAX_STEPS, False


def minimum_of(X: NDArray[np.float64], targets: Vector, costs: Vector) -> Vector:
    """Return the minimum of ``½ ‖w‖² + Σ costs · (targets − X w)²``, by the smaller of two systems of equations."""
    n_rows, n_columns = X.shape
    if n_rows <= n_columns:
        inner = X @ X.T
        inner[np.diag_indices(n_rows)] += 1.0 / (2.0 * costs)
        return np.asarray(X.T @ solved(inner, targets))
    weighted = 2.0 * costs[:, None] * X
    outer = X.T @ weighted
    outer[np.diag_indices(n_columns)] += 1.0
    return solved(outer, weighted.T @ targets)


def solved(matrix: NDArray[np.float64], right: Vector) -> Vector:
    """Return the solution of a positive definite system."""
    factor: Any = linalg.cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
    return np.asarray(linalg.cho_solve(factor, right, check_finite=False), np.float64)
