"""Linear models with an L2 penalty, along a path of strengths of regularisation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from headstart.heads.lbfgs import minimise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.heads.losses import Loss

#: Of the mean loss by an intercept: below it (every row right and sure) a step would lead too far.
MIN_CURVATURE = 1e-3

#: Tolerance of solutions that only show the way to another.
ROUGH_TOL = 1e-3


@dataclass(frozen=True, slots=True)
class Solution:
    """A linear model.

    Attributes
    ----------
    C : float
        Weight of the loss against the penalty.
    weights : ndarray of shape (n_features, n_outputs), float64
        Penalised coefficients.
    intercept : ndarray of shape (n_outputs,), float64
        Penalised like the weights where the loss says so.
    n_iter : int
        Steps of the solver.
    converged : bool
        Whether the gradient came below the tolerance before the steps ran out.
    """

    C: float
    weights: NDArray[np.float64]
    intercept: NDArray[np.float64]
    n_iter: int
    converged: bool

    def scores(self, rows: Any) -> NDArray[np.float64]:
        """Return the scores of some rows, shape (n_samples, n_outputs)."""
        return np.asarray(rows @ self.weights) + self.intercept


def solve_path(rows: Any, loss: Loss, Cs: Iterable[float], *, tol: float, max_iter: int) -> Iterator[Solution]:
    """Yield the solution for each C, every one started from the last.

    Parameters
    ----------
    rows : ndarray or CSR matrix of shape (n_samples, n_features), float64
        Features; fastest when their columns are nearly orthogonal, as those of a RowSpace.
    loss : Loss
        Of the rows.
    Cs : iterable of float
        Ascending is fastest.
    tol, max_iter
        As :func:`solve`.
    """
    last = Solution(0.0, np.zeros((rows.shape[1], loss.n_outputs)), np.zeros(loss.n_outputs), 0, True)
    for C in Cs:
        last = solve(rows, loss, C, start=last, tol=tol, max_iter=max_iter)
        yield last


def solve_alone(rows: Any, loss: Loss, C: float, *, tol: float, max_iter: int) -> Solution:
    """Return the solution for one C; a large one is reached by way of smaller ones, in fewer steps.

    Parameters are those of :func:`solve`.
    """
    start = Solution(0.0, np.zeros((rows.shape[1], loss.n_outputs)), np.zeros(loss.n_outputs), 0, True)
    for on_the_way in (C / 100, C / 10):
        if on_the_way > 1.0:
            start = solve(rows, loss, on_the_way, start=start, tol=max(tol, ROUGH_TOL), max_iter=max_iter)
    return solve(rows, loss, C, start=start, tol=tol, max_iter=max_iter)


def solve(rows: Any, loss: Loss, C: float, *, start: Solution, tol: float, max_iter: int) -> Solution:
    """Return the minimum of ``C · loss + ½ ‖weights‖²``, by L-BFGS in coordinates that make the Hessian's diagonal one.

    Parameters
    ----------
    C : float
        Weight of the loss against the penalty.
    start : Solution
        Where to begin.
    tol : float
        Largest component of the gradient of the mean loss, in those coordinates, at which to stop.
    max_iter : int
        Steps at most.
    """
    problem = Problem(rows, loss, C, start)
    minimum = minimise(problem, problem.join(start.weights, start.intercept), tol=tol, max_iter=max_iter)
    weights, intercept = problem.split(minimum.x)
    if not loss.penalised_intercept and loss.n_outputs > 1:
        intercept = intercept - intercept.mean()  # all may be moved alike; scikit-learn's sum to 0
    return Solution(C, weights, intercept, minimum.n_iter, minimum.converged)


class Problem:
    """The objective, divided by ``C · sum of the weights``, in scaled coordinates.

    ``steps`` turns coordinates into weights: with 1/√(diagonal of the Hessian) all directions are about equally steep,
    whatever C is, and L-BFGS needs tens of steps instead of hundreds.
    """

    def __init__(self, rows: Any, loss: Loss, C: float, start: Solution) -> None:
        self.rows, self.loss, self.C = rows, loss, C
        self.shape = (rows.shape[1] + 1, loss.n_outputs)
        self.total = C * float(loss.weights.sum())
        self.penalty = np.ones((self.shape[0], 1))
        self.penalty[-1] = float(loss.penalised_intercept)
        diagonal = self.penalty + C * self.curvatures(start)
        diagonal[-1] = np.maximum(diagonal[-1], MIN_CURVATURE * self.total)
        self.steps = np.sqrt(self.total / diagonal)

    def curvatures(self, start: Solution) -> NDArray[np.float64]:
        """Return the second derivative of the loss by each weight and intercept, shape (n_features + 1, n_outputs)."""
        return curvatures(self.rows, self.loss, start)

    def slopes(self, all_weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the loss, and its derivative by each weight and intercept."""
        return slopes(self.rows, self.loss, all_weights)

    def join(self, weights: NDArray[np.float64], intercept: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the coordinates of weights and intercept."""
        return (np.concatenate([weights, intercept[None]]) / self.steps).ravel()

    def split(self, coordinates: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return weights and intercept."""
        scaled = coordinates.reshape(self.shape) * self.steps
        return scaled[:-1], scaled[-1]

    def __call__(self, coordinates: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the objective and its gradient."""
        all_weights = coordinates.reshape(self.shape) * self.steps
        value, gradient = self.slopes(all_weights)
        penalised = self.penalty * all_weights
        gradient = (penalised + self.C * gradient) * (self.steps / self.total)
        return (self.C * value + 0.5 * float(np.vdot(penalised, all_weights))) / self.total, gradient.ravel()


def curvatures(rows: Any, loss: Loss, start: Solution) -> NDArray[np.float64]:
    """Return the second derivative of the loss of some rows by each weight and, last, each intercept."""
    curvature = loss.curvature(start.scores(rows))
    squares = rows.multiply(rows) if sparse.issparse(rows) else rows * rows
    return np.concatenate([np.asarray(squares.T @ curvature), curvature.sum(axis=0, keepdims=True)])


def slopes(rows: Any, loss: Loss, all_weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return the loss of some rows, and its derivative by each weight and, last, each intercept."""
    value, slope = loss(np.asarray(rows @ all_weights[:-1]) + all_weights[-1])
    gradient = np.empty(all_weights.shape)
    gradient[:-1] = rows.T @ slope
    gradient[-1] = slope.sum(axis=0)
    return value, gradient
