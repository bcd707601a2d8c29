"""Solvers of linear heads that take the rows block by block, for matrices that do not fit in memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from headstart.heads.fitting.linear_path import Problem, Solution, curvatures, no_solution, slopes
from headstart.heads.fitting.losses import Loss, minimise
from headstart.heads.out_of_core import N_THREADS, Rows, of_blocks

#: Maximum number of passes over the rows: a few minutes for hundreds of thousands of rows of a flattened map.
MAX_PASSES = 100

#: Largest component of the gradient of the mean loss at which L-BFGS stops here: that of scikit-learn's
#: ``LogisticRegression``, in scaled coordinates, where it is stricter; heads/linear.py, with cheaper steps, has 1e-8.
GRADIENT_TOLERANCE = 1e-4

#: Norm of the gradient, relative to that at zero, at which conjugate gradients stop.
RESIDUAL_TOLERANCE = 1e-6


class StreamedProblem(Problem):
    """The objective of a linear head; value and gradient are added up block by block, in float64."""

    def curvatures(self, start: Solution) -> NDArray[np.float64]:
        """Return the second derivative of the loss by each weight and intercept."""
        total = np.zeros(self.shape)
        for part in of_blocks(lambda numbers, block: curvatures(block, self.loss.take(numbers), start), self.rows):
            total += part
        return total

    def slopes(self, all_weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the loss, and its derivative by each weight and intercept."""
        value, gradient = 0.0, np.zeros(self.shape)
        for part, slope in of_blocks(
            lambda numbers, block: slopes(block, self.loss.take(numbers), all_weights), self.rows
        ):
            value += part
            gradient += slope
        return value, gradient


def solve_by_blocks(rows: Rows, loss: Loss, C: float, max_iter: int) -> Solution:
    """Return the minimum of ``C · loss + ½ ‖weights‖²`` by L-BFGS, to ``GRADIENT_TOLERANCE`` or ``MAX_PASSES``."""
    start = no_solution(rows.shape[1], loss.n_outputs)
    problem, max_iter = StreamedProblem(rows, loss, C, start), min(max_iter, MAX_PASSES)
    found = minimise(problem, problem.join(start.weights, start.intercept), tol=GRADIENT_TOLERANCE, max_iter=max_iter)
    if not found.converged:
        _warn_unfinished(f"logistic with C={C:g}", max_iter, "Lower C")
    return Solution(C, *problem.split(found.x), found.n_iter, found.converged)


def ridge_by_blocks(
    rows: Rows, targets: NDArray[np.float64], weights: NDArray[np.float64], alpha: float
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return the ridge coefficients and intercepts of each weighting of the rows.

    By conjugate gradients on the :class:`NormalEquations`, to ``RESIDUAL_TOLERANCE``. Their matrix would take n_features²
    numbers (5 GB for a flattened map), so it is only ever multiplied by: one pass over the rows, for all weightings.
    """
    normal = NormalEquations(rows, targets, weights, alpha)
    solution, converged = conjugate_gradients(normal, normal.right, 1.0 / normal.diagonal)
    if not converged:
        _warn_unfinished(f"ridge with alpha={alpha:g}", MAX_PASSES, "Raise alpha")
    return normal.split(solution)


def solver_bytes(n_arrays: int, n_features: int, n_outputs: int) -> int:
    """Return the memory of arrays of the size of the coefficients: those a solver keeps, and the sums of every thread."""
    # The sums are three arrays in the case of ridge, with two weightings each.
    return (n_arrays + 6 * N_THREADS) * 8 * n_features * n_outputs


class NormalEquations:
    """``(Zᵀ W Z + alpha) B = Zᵀ W T`` with ``Z = X − mean``, for several weightings ``W`` of the same rows at once.

    ``targets`` are ``T``, (n_samples, n_targets), ``weights`` the diagonals of ``W``, (n_samples, n_weightings). The
    unknowns of all weightings stand side by side, (n_features, n_weightings · n_targets).
    """

    def __init__(self, rows: Rows, targets: NDArray[np.float64], weights: NDArray[np.float64], alpha: float) -> None:
        self.rows, self.alpha, self.n_targets = rows, alpha, targets.shape[1]
        self.weights = np.repeat(weights, self.n_targets, axis=1)
        self.total = self.weights.sum(axis=0)
        wanted = np.tile(targets, weights.shape[1])
        self.wanted_mean = (self.weights * wanted).sum(axis=0) / self.total
        wanted = self.weights * (wanted - self.wanted_mean)
        self.mean, squares, self.right = (np.zeros((rows.shape[1], len(self.total))) for _ in range(3))

        def sums(numbers: NDArray[np.int64], block: Any) -> list[NDArray[np.float64]]:
            by = self.weights[numbers]
            squared = block.multiply(block) if sparse.issparse(block) else block * block
            return [np.asarray(part) for part in (block.T @ by, squared.T @ by, block.T @ wanted[numbers])]

        for mean, squared, right in of_blocks(sums, rows):
            self.mean += mean
            squares += squared
            self.right += right
        self.mean /= self.total
        # Zᵀ W is Xᵀ W less the mean times the sum of the weighted targets, which is 0.
        self.diagonal = np.maximum(squares - self.total * self.mean**2, 0.0) + alpha

    def __call__(self, unknowns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the left side, by one pass over the rows."""
        by_mean = (self.mean * unknowns).sum(axis=0)

        def part(numbers: NDArray[np.int64], block: Any) -> NDArray[np.float64]:
            # Less the mean times the sum of these scores, which is 0 over all rows.
            return np.asarray(block.T @ (self.weights[numbers] * (np.asarray(block @ unknowns) - by_mean)))

        product: NDArray[np.float64] = self.alpha * unknowns
        for one in of_blocks(part, self.rows):
            product += one
        return product

    def split(self, unknowns: NDArray[np.float64]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Return coefficients, (n_targets, n_features), and intercepts of each weighting."""
        intercepts = self.wanted_mean - (self.mean * unknowns).sum(axis=0)
        starts = range(0, len(intercepts), self.n_targets)
        parts = [slice(start, start + self.n_targets) for start in starts]
        return [(np.ascontiguousarray(unknowns[:, part].T), intercepts[part]) for part in parts]


def conjugate_gradients(
    product: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    right: NDArray[np.float64],
    preconditioner: NDArray[np.float64],
) -> tuple[NDArray[np.float64], bool]:
    """Return the solution of ``product(x) = right`` for a positive definite product, and whether it converged.

    Hestenes & Stiefel, 1952, preconditioned by about the inverse of the diagonal; every column of ``right`` has steps of
    its own, all in the same passes.
    """
    x, residual = np.zeros_like(right), right.copy()
    step = preconditioner * residual
    size = start = (residual * step).sum(axis=0)
    for _ in range(MAX_PASSES):
        if np.all(size <= RESIDUAL_TOLERANCE**2 * start):
            return x, True
        turned = product(step)
        curvature = (step * turned).sum(axis=0)
        length = size / np.where(curvature > 0, curvature, np.inf)  # a column that is solved has no step left
        x += length * step
        residual -= length * turned
        conditioned = preconditioner * residual
        last, size = size, (residual * conditioned).sum(axis=0)
        step = conditioned + size / np.where(last > 0, last, np.inf) * step
    return x, bool(np.all(size <= RESIDUAL_TOLERANCE**2 * start))


def _warn_unfinished(what: str, n_passes: int, remedy: str) -> None:
    warnings.warn(
        f"{what} has not converged in {n_passes} passes over the images, the most that are made of rows that do not fit in "
        f"memory; its coefficients are not the best ones yet. {remedy}, or scale the features (sqrt-l2, l2 or standard).",
        ConvergenceWarning,
        stacklevel=4,
    )
