"""Ridge regression on classes: exact, with leave-one-out scores, or by conjugate gradients on rows taken block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from scipy.special import softmax
from sklearn.utils.validation import validate_data

from headstart.errors import DataError
from headstart.heads.base import (
    Layer,
    LinearHead,
    both_sides,
    encode,
    fit_temperature,
    hold_out,
    row_weights,
    softmax_layer,
    weighted_rows,
)
from headstart.heads.fitting.row_space import Centred, blocks
from headstart.heads.out_of_core import MAX_PASSES, Rows, of_blocks, solver_bytes, warn_unfinished

#: 1 − leverage of a row that its own target alone decides; below it, rounding is all that is left.
LEAST_FREEDOM = 1e-10

#: Fraction of each class whose scores choose the temperature of a fit by blocks; a second solution leaves them out.
HELD_OUT = 0.1

#: Norm of the gradient, relative to that at zero, at which conjugate gradients stop.
RESIDUAL_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class RidgePath:
    """Ridge solutions of one set of rows, for several strengths of the penalty."""

    coefs: NDArray[np.float64]  # shape (n_alphas, n_targets, n_features)
    intercepts: NDArray[np.float64]  # not penalised; shape (n_alphas, n_targets)
    #: Score of each row by the solution on all other rows; shape (n_alphas, n_samples, n_targets)
    left_out: NDArray[np.float64]


def ridge_path(
    X: Any,
    targets: NDArray[np.float64],
    alphas: Sequence[float],
    *,
    weights: NDArray[np.float64] | None = None,
    counts: NDArray[np.float64] | None = None,
    groups: NDArray[np.int64] | None = None,
) -> RidgePath:
    """Return the ridge solutions for every ``alpha``, by one eigendecomposition in float64.

    The Gram matrix is decomposed where rows are fewer than columns, else the covariance. The scores of left-out rows are
    exact: for a linear smoother with fixed weights, leaving row i out changes its residual by 1 / (1 − leverage). Craven &
    Wahba, "Smoothing noisy data with spline functions", 1979; Golub, Heath & Wahba, Technometrics 21, 1979.

    ``X`` is an array or a CSR matrix of shape (n_samples, n_features), ``targets`` has shape (n_samples, n_targets), and
    ``weights``, of the rows' squared residuals, all above 0, shape (n_samples,). Of a row that stands for several
    (``counts``, its sample weight), one is left out, as if each of them were a row of its own.
    With ``groups``, numbers of shape (n_samples,), all rows of a group are left out together: their residuals change by
    (1 − their block of the leverages)⁻¹.
    """
    weights = np.ones(len(targets)) if weights is None else weights
    rows = Centred(X, weights)
    mean = weights @ targets / weights.sum()
    wanted = rows.root_weights[:, None] * (targets - mean)
    values, vectors, scores = decompose(rows)
    moments = scores.T @ wanted
    solutions = [moments / (values + alpha)[:, None] for alpha in alphas]
    left_out, share = [], 1.0 if counts is None else 1.0 / np.maximum(counts, 1.0)
    for alpha, solution in zip(alphas, solutions, strict=True):
        if groups is not None:
            basis = np.column_stack([scores, rows.root_weights])
            factors = np.append(1.0 / (values + alpha), 1.0 / weights.sum())
            residuals = without_groups(wanted - scores @ solution, basis, factors, groups)
            left_out.append(targets - residuals / rows.root_weights[:, None])
            continue
        freedom = 1.0 - share * weights / weights.sum() - share * ((scores**2) @ (1.0 / (values + alpha)))
        residuals = (wanted - scores @ solution) / np.maximum(freedom, LEAST_FREEDOM)[:, None]
        left_out.append(targets - residuals / rows.root_weights[:, None])
    # All of them in one pass over the features.
    coefs = vectors(np.hstack(solutions)).T.reshape(len(solutions), targets.shape[1], -1)
    return RidgePath(coefs, mean - coefs @ rows.mean, np.stack(left_out))


def without_groups(
    residuals: NDArray[np.float64], basis: NDArray[np.float64], factors: NDArray[np.float64], groups: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the residuals of rows by the solutions without their groups; leverages are ``basis · factors · basisᵀ``."""
    found = np.empty_like(residuals)
    sizes = np.bincount(groups)[groups]
    for size in np.unique(sizes).tolist():
        rows = np.flatnonzero(sizes == size)
        members = rows[np.argsort(groups[rows], kind="stable")].reshape(-1, size)
        for part in blocks(len(members), size * basis.shape[1]):
            own = basis[members[part]]
            freedom = (1.0 + LEAST_FREEDOM) * np.eye(size) - (own * factors) @ own.transpose(0, 2, 1)
            found[members[part]] = np.linalg.solve(freedom, residuals[members[part]])
    return found


def decompose(rows: Centred) -> tuple[NDArray[np.float64], Any, NDArray[np.float64]]:
    """Return eigenvalues, a function that multiplies by the right singular vectors, and the rows in their basis.

    The rows' basis has shape (n_samples, rank); directions without variance are left out.
    """
    wide = rows.shape[0] <= rows.shape[1]
    values, basis = linalg.eigh(rows.gram() if wide else rows.covariance(), overwrite_a=True, check_finite=False)
    keep = values > max(values[-1], 0.0) * np.finfo(np.float64).eps * max(rows.shape)
    values, basis = values[keep], basis[:, keep]
    if not wide:
        return values, lambda solution: basis @ solution, rows.times(basis)
    lengths = np.sqrt(values)
    return values, lambda solution: rows.transposed_times(basis @ (solution / lengths[:, None])), basis * lengths


class RidgeHead(LinearHead):
    """Least squares on targets ±1 with an L2 penalty, and probabilities by a temperature on left-out scores.

    Coefficients are those of ``sklearn.linear_model.RidgeClassifier``, solved in float64. Probabilities are
    ``softmax(scores / temperature_)`` (for two classes of ``[-score, score]``), the temperature chosen by the log-loss of
    exact leave-one-out scores: no second fit.

    Parameters
    ----------
    alpha : float
        Strength of the penalty.
    class_weight : None, "balanced" or mapping
        As in scikit-learn.

    Attributes
    ----------
    coef_, intercept_ : ndarray of shape (n_classes, n_features), ndarray of shape (n_classes,), float64
        One row, and one value, where there are two classes.
    temperature_ : float
        Divisor of the scores.
    """

    def __init__(self, alpha: float = 1.0, *, class_weight: Any = None) -> None:
        self.alpha = alpha
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> RidgeHead:
        """Fit on rows of features, an array or CSR matrix of shape (n_samples, n_features), with labels and weights.

        Rows of one group (of ``groups``, shape (n_samples,)), as crops of an image, are left out together.
        """
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=(np.float64, np.float32))
        X, y, counts, groups = weighted_rows(X, y, sample_weight, groups)
        self.classes_, labels = encode(y)
        weights = row_weights(self.class_weight, y, counts)
        path = ridge_path(
            X, signs(labels, len(self.classes_)), [self.alpha], weights=weights, counts=counts, groups=groups
        )
        self.coef_, self.intercept_ = path.coefs[0], path.intercepts[0]
        self.temperature_ = fit_temperature(both_sides(path.left_out[0]), labels, weights, counts)
        return self

    def fit_rows(self, rows: Rows, y: NDArray[Any], sample_weight: Any = None, groups: Any = None) -> RidgeHead:
        """Fit on rows that are taken block by block: the same coefficients, to ``RESIDUAL_TOLERANCE``.

        Left-out scores of every row would need the matrix of the normal equations. The temperature comes from the scores
        of ``HELD_OUT`` of the rows instead, by a second solution without them that is found in the same passes. Raises
        DataError if no class has two rows.
        """
        self.classes_, codes = encode(y)
        self.n_features_in_ = rows.shape[1]
        weights = row_weights(self.class_weight, y, sample_weight)
        held_out = hold_out(codes, HELD_OUT, seed=0, least=1, groups=groups)
        if not len(held_out):
            raise DataError(
                "Ridge needs at least two images of a class to find its temperature. Received: one of each."
            )
        without = weights.copy()
        without[held_out] = 0.0
        targets = signs(codes, len(self.classes_))
        fits = ridge_by_blocks(rows, targets, np.column_stack([weights, without]), self.alpha)
        (self.coef_, self.intercept_), (other, other_intercept) = fits
        scores = np.concatenate(list(of_blocks(lambda _, block: np.asarray(block @ other.T), rows, held_out)))
        scores += other_intercept
        counts = None if sample_weight is None else sample_weight[held_out]
        self.temperature_ = fit_temperature(both_sides(scores), codes[held_out], weights[held_out], counts)
        return self

    def streaming_bytes(self, n_features: int, n_classes: int) -> int:
        """Return the memory that :meth:`fit_rows` needs beside the rows of a block, bytes."""
        # Columns of conjugate gradients for two weightings, with mean and diagonal.
        return solver_bytes(24, n_features, 1 if n_classes == 2 else n_classes)

    def to_layers(self) -> tuple[Layer, ...]:
        """Return the one layer that gives ``predict_proba``."""
        two_sided = 2.0 if len(self.coef_) == 1 else 1.0  # softmax([−s, s]) is softmax([0, 2 s])
        factor = two_sided / self.temperature_
        return (softmax_layer(factor * self.coef_, factor * self.intercept_),)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return probabilities of shape (n_samples, n_classes), float64, in the order of ``classes_``."""
        probabilities: NDArray[np.float64] = softmax(both_sides(self._scores(X)) / self.temperature_, axis=1)
        return probabilities


def signs(labels: NDArray[np.int64], n_classes: int) -> NDArray[np.float64]:
    """Return the targets: 1 for a row's own class and −1 for the others; one column where there are two classes."""
    targets = np.where(labels[:, None] == np.arange(n_classes), 1.0, -1.0)
    return targets[:, 1:] if n_classes == 2 else targets


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
        warn_unfinished(f"ridge with alpha={alpha:g}", MAX_PASSES, "Raise alpha")
    return normal.split(solution)


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
