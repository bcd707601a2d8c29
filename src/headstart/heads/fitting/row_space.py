"""Feature matrices in as few columns as they have rows, for models with an L2 penalty; rows centred block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from headstart.heads.catalogue import MAX_RANK

#: Numbers in one float64 block: 32 MiB.
BLOCK_SIZE = 2**22


def blocks(length: int, width: int) -> Iterator[slice]:
    """Yield slices over ``length`` rows (or columns) of ``width`` numbers each, a block at a time."""
    step = max(1, BLOCK_SIZE // max(1, width))
    for start in range(0, length, step):
        yield slice(start, start + step)


class Centred:
    """The matrix ``Z = sqrt(weights) · (X − mean)``, which is never made whole; ``X`` is an array or a CSR matrix."""

    def __init__(self, X: Any, weights: NDArray[np.float64]) -> None:
        self.X = X.astype(np.float64) if sparse.issparse(X) else X
        self.shape: tuple[int, int] = X.shape
        self.root_weights = np.sqrt(weights)
        self.mean = self._transposed_times(weights[:, None] / weights.sum()).ravel()

    def gram(self) -> NDArray[np.float64]:
        """Return ``Z Zᵀ``, shape (n_samples, n_samples)."""
        n_samples, n_features = self.shape
        if sparse.issparse(self.X):
            by_mean = self.X @ self.mean
            product = (self.X @ self.X.T).toarray() - by_mean[:, None] - by_mean + self.mean @ self.mean
            weighted: NDArray[np.float64] = self.root_weights[:, None] * product * self.root_weights
            return weighted
        product = np.zeros((n_samples, n_samples))
        for columns in blocks(n_features, n_samples):
            block = self.root_weights[:, None] * (self.X[:, columns].astype(np.float64) - self.mean[columns])
            product += block @ block.T
        return product

    def covariance(self) -> NDArray[np.float64]:
        """Return ``Zᵀ Z``, shape (n_features, n_features)."""
        n_samples, n_features = self.shape
        if sparse.issparse(self.X):
            weighted = self.X.multiply(self.root_weights[:, None]).tocsr()
            total = (self.root_weights**2).sum()
            moments: NDArray[np.float64] = (weighted.T @ weighted).toarray() - total * np.outer(self.mean, self.mean)
            return moments
        product = np.zeros((n_features, n_features))
        for rows in blocks(n_samples, n_features):
            block = self.root_weights[rows, None] * (self.X[rows].astype(np.float64) - self.mean)
            product += block.T @ block
        return product

    def times(self, right: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``Z @ right``, shape (n_samples, n_columns)."""
        if sparse.issparse(self.X):
            centred: NDArray[np.float64] = self.X @ right - self.mean @ right
            return self.root_weights[:, None] * centred
        product = np.empty((self.shape[0], right.shape[1]))
        for rows in blocks(*self.shape):
            block = self.X[rows].astype(np.float64) - self.mean
            product[rows] = self.root_weights[rows, None] * (block @ right)
        return product

    def transposed_times(self, left: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``Zᵀ @ left``, shape (n_features, n_columns)."""
        weighted = self.root_weights[:, None] * left
        return self._transposed_times(weighted) - np.outer(self.mean, weighted.sum(axis=0))

    def _transposed_times(self, left: NDArray[np.float64]) -> NDArray[np.float64]:
        if sparse.issparse(self.X):
            product: NDArray[np.float64] = self.X.T @ left
            return product
        whole = np.empty((self.shape[1], left.shape[1]))
        for columns in blocks(self.shape[1], self.shape[0]):
            whole[columns] = self.X[:, columns].astype(np.float64).T @ left
        return whole


#: Share of non-zero values up to which products with a CSR matrix are the faster ones, and its 12 bytes a value the smaller.
MAX_DENSITY = 0.25

#: Columns that are converted to float64 at a time.
BLOCK_COLUMNS = 4096


@dataclass(frozen=True, slots=True)
class RowSpace:
    """The rows of a matrix in other coordinates, and the way back."""

    #: Rows to fit a model on instead of ``X``. Inner products are those of the rows of ``X``, or of ``X − mean``;
    #: shape (n_samples, rank)
    rows: Any
    mean: NDArray[np.float64]  # row subtracted from each row of ``X``; zeros for none; shape (n_features,)
    _back: Callable[[NDArray[np.float64]], NDArray[np.float64]]

    def to_features(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the coefficients on ``X``, (n_outputs, n_features), of those on ``rows``, (rank, n_outputs)."""
        return np.ascontiguousarray(self._back(weights).T)


def row_space(X: Any, *, centred: bool) -> RowSpace:
    """Return the rows of a matrix, an array or CSR, in the coordinates that make fitting cheapest.

    ``centred`` subtracts the mean row: it changes nothing but the intercept where that is not penalised, and fits take
    fewer steps. ``X`` is kept, not copied, until the coefficients are mapped back.
    """
    n_samples, n_features = X.shape
    if min(n_samples, n_features) > MAX_RANK:
        return no_space(X)
    mean = np.asarray(X.mean(axis=0, dtype=np.float64)).ravel() if centred else np.zeros(n_features)
    if n_samples < n_features:
        values, vectors = spectrum(centred_gram(X, centred))
        scale = np.sqrt(values)

        def back(weights: NDArray[np.float64]) -> NDArray[np.float64]:  # rows of X, weighted
            dual = (vectors / scale) @ weights
            return transposed_product(X, dual) - np.outer(mean, dual.sum(axis=0))

        return RowSpace(vectors * scale, mean, back)
    basis = spectrum(covariance(X, mean))[1]
    rows = np.asarray(X @ basis) - mean @ basis
    return RowSpace(rows, mean, lambda weights: basis @ weights)


def no_space(X: Any) -> RowSpace:
    """Return the rows of a matrix in the coordinates they have, float64; as a CSR matrix where most values are zero."""
    if not sparse.issparse(X) and np.count_nonzero(X) < MAX_DENSITY * X.size:
        X = sparse.csr_matrix(X)
    return RowSpace(X.astype(np.float64, copy=False), np.zeros(X.shape[1]), lambda weights: weights)


def spectrum(symmetric: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the eigenvalues that are not rounding errors, largest first, and their vectors; at least one."""
    values, vectors = linalg.eigh(symmetric, overwrite_a=True, check_finite=False)
    values, vectors = values[::-1], vectors[:, ::-1]
    smallest = len(values) * np.finfo(np.float64).eps * max(values[0], np.finfo(np.float64).tiny)
    rank = max(1, int((values > smallest).sum()))
    return np.maximum(values[:rank], np.finfo(np.float64).tiny), np.ascontiguousarray(vectors[:, :rank])


def centred_gram(X: Any, centred: bool) -> NDArray[np.float64]:
    """Return the inner products of all pairs of rows, of shape (n_samples, n_samples), float64."""
    products: NDArray[np.float64] = np.zeros((X.shape[0], X.shape[0]))
    if sparse.issparse(X):
        wide = X.astype(np.float64, copy=False)
        products = np.asarray((wide @ wide.T).toarray())
    else:
        for block in column_blocks(X):
            products += block @ block.T
    if centred:
        means = products.mean(axis=0)
        products += means.mean() - means - means[:, None]
    return products


def covariance(X: Any, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``(X − mean)ᵀ (X − mean)`` in float64, of shape (n_features, n_features)."""
    if sparse.issparse(X):
        wide = X.astype(np.float64, copy=False)
        moments: NDArray[np.float64] = (wide.T @ wide).toarray()
        moments -= X.shape[0] * np.outer(mean, mean)
        return moments
    wide = X.astype(np.float64) - mean
    products: NDArray[np.float64] = wide.T @ wide
    return products


def column_blocks(X: NDArray[np.floating[Any]]) -> Iterator[NDArray[np.float64]]:
    """Yield a matrix in float64, some columns at a time."""
    for start in range(0, X.shape[1], BLOCK_COLUMNS):
        yield X[:, start : start + BLOCK_COLUMNS].astype(np.float64)


def transposed_product(X: Any, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``Xᵀ weights`` in float64, of shape (n_features, n_outputs)."""
    if sparse.issparse(X):
        return np.asarray(X.T @ weights)
    return np.concatenate([block.T @ weights for block in column_blocks(X)])
