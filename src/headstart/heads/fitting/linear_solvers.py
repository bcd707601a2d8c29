"""The objectives of linear heads, multinomial deviance and squared hinge, with an L2 penalty; L-BFGS and Newton steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

Vector = NDArray[np.float64]

#: Steps that are remembered.
MEMORY = 10

#: Share of the decrease predicted by the slope that a step must reach (Armijo's condition; Nocedal & Wright, section 3.1).
SUFFICIENT = 1e-4

#: Share of the slope at the start that may remain at the end of a step (Wolfe's condition, same section).
FLATTER = 0.9

#: Lengths of a step that are tried before the function counts as flat at this point, to rounding.
MAX_TRIALS = 40


@dataclass(frozen=True, slots=True)
class Minimum:
    """Result of a minimisation; converged too where rounding allows no further step."""

    x: Vector  # the point; shape (n,)
    n_iter: int
    #: Whether the largest component of the gradient is below the tolerance, or rounding allows no further step
    converged: bool


def minimise(
    function: Callable[[Vector], tuple[float, Vector]], start: Vector, *, tol: float, max_iter: int
) -> Minimum:
    """Return the minimum of a convex function, which returns value and gradient (a new array each time).

    It ends when the largest component of the gradient is at most ``tol``. Best in coordinates in which the function is
    about equally steep in all directions.
    """
    x, (value, gradient) = start, function(start)
    pairs: deque[tuple[Vector, Vector, float]] = deque(maxlen=MEMORY)
    for n_iter in range(max_iter):
        if np.abs(gradient).max(initial=0.0) <= tol:
            return Minimum(x, n_iter, converged=True)
        direction = descent(gradient, pairs)
        step = search_line(function, x, value, direction, float(gradient @ direction))
        if step is None:
            return Minimum(x, n_iter, converged=True)
        new_x, value, new_gradient = step
        remember(pairs, new_x - x, new_gradient - gradient)
        x, gradient = new_x, new_gradient
    return Minimum(x, max_iter, converged=bool(np.abs(gradient).max(initial=0.0) <= tol))


def descent(gradient: Vector, pairs: deque[tuple[Vector, Vector, float]]) -> Vector:
    """Return the direction of the next step: minus the inverse Hessian that the pairs imply, times the gradient."""
    direction = -gradient
    shares = []
    for moved, turned, inverse in reversed(pairs):
        share = inverse * float(moved @ direction)
        direction -= share * turned
        shares.append(share)
    if pairs:
        moved, turned, inverse = pairs[-1]
        direction *= 1.0 / (inverse * float(turned @ turned))
    for (moved, turned, inverse), share in zip(pairs, reversed(shares), strict=True):
        direction += (share - inverse * float(turned @ direction)) * moved
    return direction


def search_line(
    function: Callable[[Vector], tuple[float, Vector]], x: Vector, value: float, direction: Vector, slope: float
) -> tuple[Vector, float, Vector] | None:
    """Return the point, value and gradient of a step that goes down far enough, and to where it is less steep.

    The weak Wolfe conditions, by bisection: it ends for functions whose second derivative jumps as well (Lewis & Overton,
    "Nonsmooth optimization via quasi-Newton methods", Mathematical Programming 141, 2013). None where rounding allows none.
    """
    size, shortest, longest = 1.0, 0.0, np.inf
    rounding = 4 * np.finfo(np.float64).eps * abs(value)
    for _ in range(MAX_TRIALS):
        point = x + size * direction
        reached, gradient = function(point)
        if not reached <= value + SUFFICIENT * size * slope + rounding:
            longest = size
            # The parabola through both values and the slope has its minimum here; not below a tenth, not above a half.
            parabola = -slope * size / (2 * (reached - value - slope * size)) if np.isfinite(reached) else 0.1
            inner = shortest + min(0.5, max(0.1, parabola)) * (longest - shortest)
        elif float(gradient @ direction) < FLATTER * slope:
            shortest, inner = size, 0.5 * (size + longest)
        else:
            return point, reached, gradient
        size = inner if np.isfinite(longest) else 2.0 * size
    return None


def remember(pairs: deque[tuple[Vector, Vector, float]], moved: Vector, turned: Vector) -> None:
    """Keep a step and how it changed the gradient, unless rounding hides that the function is convex."""
    curvature = float(moved @ turned)
    if curvature > np.finfo(np.float64).eps * float(turned @ turned):
        pairs.append((moved, turned, 1.0 / curvature))


@dataclass(frozen=True)
class Deviance:
    """Multinomial deviance, −log of the true class's probability; with two classes a single score is enough."""

    codes: NDArray[np.intp]  # index of the true class; shape (n_samples,)
    n_classes: int  # classes there are
    weights: NDArray[np.float64]  # weights of the rows; shape (n_samples,)
    penalised_intercept = False

    @property
    def n_outputs(self) -> int:
        """Scores per row."""
        return 1 if self.n_classes == 2 else self.n_classes

    def __call__(self, scores: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the loss, and its derivative by each score."""
        wide, probabilities = self._probabilities(scores)
        rows = np.arange(len(wide))
        largest = wide.max(axis=1)
        log_sum = largest + np.log(np.exp(wide - largest[:, None]).sum(axis=1))
        slope = probabilities
        slope[rows, self.codes] -= 1.0
        slope *= self.weights[:, None]
        return float(self.weights @ (log_sum - wide[rows, self.codes])), slope[:, -self.n_outputs :]

    def curvature(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the second derivative by each score."""
        probabilities = self._probabilities(scores)[1][:, -self.n_outputs :]
        return probabilities * (1.0 - probabilities) * self.weights[:, None]

    def take(self, rows: NDArray[np.intp]) -> Deviance:
        """Return the loss of some rows alone."""
        return Deviance(self.codes[rows], self.n_classes, self.weights[rows])

    def _probabilities(self, scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        wide = np.hstack([np.zeros_like(scores), scores]) if self.n_classes == 2 else scores
        return wide, softmax(wide)


@dataclass(frozen=True)
class SquaredHinge:
    """``max(0, 1 − target · score)²`` of each class against the rest, as scikit-learn's ``LinearSVC``."""

    #: +1 for the class, −1 for the rest; with two classes one column, +1 for the second; shape (n_samples, n_outputs)
    targets: NDArray[np.float64]
    weights: NDArray[np.float64]  # weights of the rows; shape (n_samples,)
    penalised_intercept = True

    @property
    def n_outputs(self) -> int:
        """Scores per row."""
        return int(self.targets.shape[1])

    @classmethod
    def of_classes(cls, codes: NDArray[np.intp], n_classes: int, weights: NDArray[np.float64]) -> SquaredHinge:
        """Return the loss of these classes."""
        columns = np.array([1]) if n_classes == 2 else np.arange(n_classes)
        return cls(np.where(codes[:, None] == columns, 1.0, -1.0), weights)

    def __call__(self, scores: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the loss, and its derivative by each score."""
        missing = np.maximum(0.0, 1.0 - self.targets * scores)
        weighted = missing * self.weights[:, None]
        return float((weighted * missing).sum()), -2.0 * self.targets * weighted

    def curvature(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the second derivative by each score, where there is one."""
        active: NDArray[np.float64] = 2.0 * (self.targets * scores < 1.0) * self.weights[:, None]
        return active

    def take(self, rows: NDArray[np.intp]) -> SquaredHinge:
        """Return the loss of some rows alone."""
        return SquaredHinge(self.targets[rows], self.weights[rows])


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities from scores, row by row."""
    exponentials: NDArray[np.float64] = np.exp(scores - scores.max(axis=1, keepdims=True))
    exponentials /= exponentials.sum(axis=1, keepdims=True)
    return exponentials


#: A loss of scores of shape (n_samples, n_outputs), summed over the rows with their weights.
Loss = Deviance | SquaredHinge


#: Smallest curvature of the mean loss by an intercept; below it (all rows right and certain) steps would be too long.
MIN_CURVATURE = 1e-3

#: Tolerance of solutions that only show the way to another.
ROUGH_TOL = 1e-3


@dataclass(frozen=True, slots=True)
class Solution:
    """A linear model."""

    C: float  # weight of the loss against the penalty
    weights: NDArray[np.float64]  # penalised coefficients; shape (n_features, n_outputs)
    intercept: NDArray[np.float64]  # penalised like the weights where the loss says so; shape (n_outputs,)
    n_iter: int  # steps of the solver
    converged: bool  # whether the gradient came below the tolerance before the steps ran out

    def scores(self, rows: Any) -> NDArray[np.float64]:
        """Return the scores of some rows, shape (n_samples, n_outputs)."""
        return np.asarray(rows @ self.weights) + self.intercept


def no_solution(n_features: int, n_outputs: int) -> Solution:
    """Return the model without any loss, whose coefficients are 0."""
    return Solution(0.0, np.zeros((n_features, n_outputs)), np.zeros(n_outputs), 0, True)


def solve_path(rows: Any, loss: Loss, Cs: Iterable[float], *, tol: float, max_iter: int) -> Iterator[Solution]:
    """Yield the solution for each C, every one started from the last: ascending is fastest.

    ``rows`` is an array or a CSR matrix in float64, best with nearly orthogonal columns, as those of a RowSpace.
    """
    last = no_solution(rows.shape[1], loss.n_outputs)
    for C in Cs:
        last = solve(rows, loss, C, start=last, tol=tol, max_iter=max_iter)
        yield last


def solve_alone(rows: Any, loss: Loss, C: float, *, tol: float, max_iter: int) -> Solution:
    """Return the solution for one C; a large one is reached by way of smaller ones, in fewer steps."""
    start = no_solution(rows.shape[1], loss.n_outputs)
    for on_the_way in (C / 100, C / 10):
        if on_the_way > 1.0:
            start = solve(rows, loss, on_the_way, start=start, tol=max(tol, ROUGH_TOL), max_iter=max_iter)
    return solve(rows, loss, C, start=start, tol=tol, max_iter=max_iter)


def solve(rows: Any, loss: Loss, C: float, *, start: Solution, tol: float, max_iter: int) -> Solution:
    """Return the minimum of ``C · loss + ½ ‖weights‖²``, by L-BFGS in coordinates that make the Hessian's diagonal one.

    It ends when the largest component of the gradient of the mean loss, in those coordinates, is at most ``tol``.
    """
    problem = Problem(rows, loss, C, start)
    minimum = minimise(problem, problem.join(start.weights, start.intercept), tol=tol, max_iter=max_iter)
    weights, intercept = problem.split(minimum.x)
    if not loss.penalised_intercept and loss.n_outputs > 1:
        intercept = intercept - intercept.mean()  # a common shift changes nothing; scikit-learn's sum to 0
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


#: Steps of one class at most; some ten are enough.
MAX_STEPS = 100

#: How near to the margin a row may lie on either side of it: what it adds to the gradient is rounding.
ON_MARGIN = 1e-9

#: Halvings of a step at most.
MAX_HALVINGS = 30


def finish(rows: NDArray[np.float64], loss: SquaredHinge, C: float, start: Solution) -> Solution:
    """Return the exact minimum of ``C · loss + ½ ‖weights‖²``, the intercept penalised, from a solution near to it."""
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
