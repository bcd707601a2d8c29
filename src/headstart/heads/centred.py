"""Rows of features less their mean, in float64 block by block: never a second copy of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Numbers in one float64 block: 32 MiB.
BLOCK_SIZE = 2**22


def blocks(length: int, width: int) -> Iterator[slice]:
    """Yield slices over ``length`` rows (or columns) of ``width`` numbers each, a block at a time."""
    step = max(1, BLOCK_SIZE // max(1, width))
    for start in range(0, length, step):
        yield slice(start, start + step)


class Centred:
    """The matrix ``Z = sqrt(weights) · (X − mean)``, which is never made whole.

    Parameters
    ----------
    X : ndarray or CSR matrix of shape (n_samples, n_features)
        Features; sparse ones stay sparse.
    weights : ndarray of shape (n_samples,), float64
        Of the rows.
    """

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
