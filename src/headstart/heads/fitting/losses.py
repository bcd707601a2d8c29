"""The objectives of linear heads, multinomial deviance and squared hinge, and L-BFGS to minimise them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
