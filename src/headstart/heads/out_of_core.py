"""Fit a head within a bound of memory: from the whole matrix where that fits, otherwise block by block."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.class_weight import compute_sample_weight

from headstart.errors import DataError, HeadstartError
from headstart.heads.fitting.linear_path import Problem, Solution, curvatures, slopes
from headstart.heads.fitting.losses import Deviance, minimise
from headstart.heads.fitting.packed_rows import (
    BLOCK_VALUES,
    N_THREADS,
    Rows,
    ScaledRows,
    blocks,
    dense,
    of_blocks,
    pack,
)
from headstart.heads.fitting.temperature import encode, fit_temperature
from headstart.heads.ridge import RidgeHead, both_sides, signs
from headstart.runtime import free_bytes, size_text, used_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.heads.linear import LogisticHead

#: Passes over the rows at most: a few minutes for hundreds of thousands of rows of a flattened map.
MAX_PASSES = 100

#: Largest component of the gradient of the mean loss at which L-BFGS stops here: that of scikit-learn's
#: ``LogisticRegression``, in coordinates in which it says more; heads/linear.py, with cheaper steps, has 1e-8.
GRADIENT_TOLERANCE = 1e-4

#: Norm of the gradient, as a share of that at zero, at which conjugate gradients stop.
RESIDUAL_TOLERANCE = 1e-6

#: Share of each class whose scores choose the temperature of ridge; they are no part of a second solution.
HELD_OUT = 0.1


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


def fit_logistic(head: LogisticHead, rows: Rows, y: NDArray[Any]) -> LogisticHead:
    """Return logistic regression, fitted by L-BFGS: the same objective as in memory, to ``GRADIENT_TOLERANCE``.

    At most ``MAX_PASSES`` steps; a ``ConvergenceWarning`` says where they did not suffice.

    Parameters
    ----------
    head : LogisticHead
        Unfitted.
    rows : Rows of shape (n_samples, n_features)
        Scaled features.
    y : ndarray of shape (n_samples,)
        Labels of at least two classes.
    """
    head.classes_, codes = encode(y)
    head.n_features_in_ = rows.shape[1]
    loss = Deviance(codes, len(head.classes_), compute_sample_weight(head.class_weight, y))
    start = Solution(0.0, np.zeros((rows.shape[1], loss.n_outputs)), np.zeros(loss.n_outputs), 0, True)
    problem = StreamedProblem(rows, loss, head.C, start)
    max_iter = min(head.max_iter, MAX_PASSES)
    found = minimise(problem, problem.join(start.weights, start.intercept), tol=GRADIENT_TOLERANCE, max_iter=max_iter)
    weights, head.intercept_ = problem.split(found.x)
    head.coef_, head.n_iter_ = np.ascontiguousarray(weights.T), found.n_iter
    if not found.converged:
        warn_unfinished(f"logistic with C={head.C:g}", max_iter, "Lower C")
    return head


def fit_ridge(head: RidgeHead, rows: Rows, y: NDArray[Any]) -> RidgeHead:
    """Return ridge regression, fitted by conjugate gradients on the normal equations, to ``RESIDUAL_TOLERANCE``.

    The matrix of the normal equations would take n_features² numbers (5 GB for a flattened map), so it is only ever
    multiplied by: one pass over the rows. Left-out scores of every row would need it too; the temperature comes from those
    of ``HELD_OUT`` of the rows instead, by a second solution without them, which is found in the same passes.

    Parameters
    ----------
    head : RidgeHead
        Unfitted.
    rows : Rows of shape (n_samples, n_features)
        Scaled features.
    y : ndarray of shape (n_samples,)
        Labels of at least two classes, with two rows of one of them at least.
    """
    head.classes_, codes = encode(y)
    head.n_features_in_ = rows.shape[1]
    targets = signs(codes, len(head.classes_))
    weights = compute_sample_weight(head.class_weight, y)
    held_out = hold_out(codes)
    without = weights.copy()
    without[held_out] = 0.0
    normal = NormalEquations(rows, targets, np.column_stack([weights, without]), head.alpha)
    solution, converged = conjugate_gradients(normal, normal.right, 1.0 / normal.diagonal)
    if not converged:
        warn_unfinished(f"ridge with alpha={head.alpha:g}", MAX_PASSES, "Raise alpha")
    (coef, intercept), (other, other_intercept) = normal.split(solution)
    head.coef_, head.intercept_ = coef, intercept
    scores = np.concatenate(list(of_blocks(lambda _, block: np.asarray(block @ other.T), rows, held_out)))
    scores += other_intercept
    head.temperature_ = fit_temperature(both_sides(scores), codes[held_out], weights[held_out])
    return head


class NormalEquations:
    """``(Zᵀ W Z + alpha) B = Zᵀ W T`` with ``Z = X − mean``, for several weightings ``W`` of the same rows at once.

    The unknowns of all weightings stand side by side, (n_features, n_weightings · n_targets).

    Parameters
    ----------
    rows : Rows of shape (n_samples, n_features)
        ``X``.
    targets : ndarray of shape (n_samples, n_targets), float64
        ``T``.
    weights : ndarray of shape (n_samples, n_weightings), float64
        Diagonals of ``W``.
    alpha : float
        Strength of the penalty.
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

    Hestenes & Stiefel, 1952, with a diagonal preconditioner; every column has steps of its own, all in the same passes.

    Parameters
    ----------
    product : callable
        Columns → columns.
    right : ndarray of shape (n, n_columns), float64
        Right sides.
    preconditioner : ndarray of shape (n, n_columns), float64
        About the inverse of the diagonal of the product.
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


def hold_out(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``HELD_OUT`` of the rows of each class, at random but always the same; never all rows of a class.

    Raises
    ------
    DataError
        If no class has two rows.
    """
    order = np.random.default_rng(0).permutation(len(codes))
    chosen = []
    for code in range(int(codes.max()) + 1):
        members = order[codes[order] == code]
        chosen.append(members[: min(max(1, round(HELD_OUT * len(members))), len(members) - 1)])
    held_out = np.sort(np.concatenate(chosen))
    if not len(held_out):
        raise DataError("Ridge needs at least two images of a class to find its temperature. Received: one of each.")
    return held_out


def warn_unfinished(what: str, n_passes: int, remedy: str) -> None:
    """Say that a fit has used up its passes."""
    warnings.warn(
        f"{what} has not converged in {n_passes} passes over the images, the most that are made of rows that do not fit in "
        f"memory; its coefficients are not the best ones yet. {remedy}, or scale the features (sqrt-l2, l2 or standard).",
        ConvergenceWarning,
        stacklevel=4,
    )


log = logging.getLogger(__name__)

#: Heads that are fitted without the whole matrix too.
STREAMED = ("dense", "logistic", "ridge")

#: The matrix in float32 and its copies while a head is fitted: three in scaling, float64 and squares in the solvers.
COPIES = {"dense": 4, "logistic": 6, "ridge": 4, "linear-svm": 6, "rbf-svm": 6}
OTHER_COPIES = 4

#: Up to this many rows or columns a linear head decomposes a square matrix of float64 (heads/fitting/row_space.py); ridge
#: always does.
SQUARES = {"logistic": 4096, "linear-svm": 4096, "ridge": sys.maxsize}

#: Weights and their like that a streamed fit keeps, 8 bytes each: steps and gradients of L-BFGS; columns of conjugate
#: gradients for two weightings, with mean and diagonal.
KEPT = {"logistic": 30, "ridge": 24}

#: What TensorFlow takes before it has trained anything: libraries, threads, compiled functions.
TENSORFLOW_BYTES = 900 * 2**20

#: Blocks of rows in float32 and float64, with what becomes of them, in every thread.
BLOCK_BYTES = 8 * 4 * BLOCK_VALUES * N_THREADS


class Memory:
    """A bound of the memory of this process.

    Parameters
    ----------
    max_bytes : int, optional
        Of the whole process, Python and libraries included. The default is what it has now and half of what is free.

    Attributes
    ----------
    max_bytes : int
        The bound.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self._used = used_bytes()
        self.max_bytes = self._used + free_bytes() // 2 if max_bytes is None else max_bytes

    def left(self, head_type: str) -> int:
        """Return what is left for features and work space, bytes."""
        left = self.max_bytes - self._used
        return left - TENSORFLOW_BYTES if head_type == "dense" and "tensorflow" not in sys.modules else left


def matrix_fits(head_type: str, shape: tuple[int, int], memory: Memory) -> bool:
    """Return whether a head can be fitted on a matrix of this shape within a bound.

    Raises
    ------
    HeadstartError
        If it cannot, and is of a kind that needs the whole matrix.
    """
    needed = 4 * shape[0] * shape[1] * COPIES.get(head_type, OTHER_COPIES)
    smaller = min(shape)
    if smaller <= SQUARES.get(head_type, 0):
        needed += 3 * 8 * smaller**2
    if needed <= memory.left(head_type):
        return True
    if head_type not in STREAMED:
        raise HeadstartError(
            f"{head_type} is fitted on all images at once: {shape[0]:,} of them with {shape[1]:,} features need about "
            f"{size_text(needed)}. Received: {size_text(max(0, memory.left(head_type)))} beside what is in use already. "
            f"Take fewer columns (--features avg), raise --max-memory, or fit one of: {', '.join(STREAMED)}."
        )
    return False


def fit_streamed(pipeline: Any, head_type: str, rows: Rows, y: NDArray[Any], memory: Memory) -> Any:
    """Return a pipeline of scaler and classifier, fitted without the matrix of all features ever being in memory.

    Where the non-zero values alone fit, they are read once and kept in four bytes each (heads/fitting/packed_rows.py); else
    every pass reads the rows again. Same objective as in memory, to the tolerances of this module; the same steps of Adam.

    Parameters
    ----------
    pipeline : Pipeline
        Unfitted, as of :func:`headstart.heads.catalogue.make_head`.
    head_type : str
        One of ``STREAMED``.
    rows : Rows of shape (n_samples, n_features)
        Features, not scaled.
    y : ndarray of shape (n_samples,)
        Labels of at least two classes.
    memory : Memory
        The bound.

    Raises
    ------
    HeadstartError
        If not even the head and a block of rows fit.
    """
    scaler, classifier = pipeline.named_steps["scale"], pipeline.named_steps["classifier"]
    left = memory.left(head_type) - work_bytes(head_type, classifier, rows.shape[1], len(np.unique(y)))
    if left < 0:
        raise HeadstartError(
            f"Fitting {head_type} on {rows.shape[1]:,} features takes {size_text(-left)} more than there is, even with the "
            f"images taken some at a time. Received: a bound of {size_text(memory.max_bytes)}. Take fewer columns "
            "(--features avg), or raise --max-memory."
        )
    packed = pack(rows, left)
    log.info("Features %s.", f"packed in {size_text(packed.n_bytes)}" if packed else "read anew in every pass")
    kept = packed or rows
    fit_scaler(scaler, kept)
    scaled = ScaledRows(kept, scaler)
    if head_type == "dense":
        classifier.fit_rows(scaled, y)
    else:
        fits: dict[str, Any] = {"logistic": fit_logistic, "ridge": fit_ridge}
        fits[head_type](classifier, scaled, y)
    return pipeline


def work_bytes(head_type: str, classifier: Any, n_features: int, n_classes: int) -> int:
    """Return what a streamed fit takes beside the features, bytes."""
    row_bytes = 8 * 4 * n_features * N_THREADS  # a block has one row at least
    block = max(BLOCK_BYTES, row_bytes)
    n_outputs = 1 if n_classes == 2 else n_classes
    if head_type == "dense":
        width = int((*classifier.hidden, n_classes)[0])
        batch = 4 * 4 * n_features * int(classifier.batch_size)
        # Weights, two moments of Adam, a gradient, and a copy of the weights for each of what starts and what was best.
        return block + batch + 6 * 4 * n_features * width
    # Every thread has sums of its own, three of them for ridge with two weightings each.
    return block + (KEPT[head_type] + 6 * N_THREADS) * 8 * n_features * n_outputs


def fit_scaler(scaler: Any, rows: Rows) -> None:
    """Fit a scaler in one pass where it learns something of all rows; else on a single one."""
    if hasattr(scaler, "partial_fit"):
        for _, block in blocks(rows):
            scaler.partial_fit(dense(block))
    else:
        scaler.fit(dense(rows.take(np.arange(1))))
