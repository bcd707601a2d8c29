"""Regressors of scikit-learn on standardised numbers: ridge, kernel ridge, SVR, and the mean of the nearest images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.svm import SVR
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from headstart.errors import DataError
from headstart.heads.svm import KERNEL_CACHE_MB, numeric_gamma


def standardised(
    y: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], float, float]:
    """Return numbers with mean 0 and standard deviation 1, their mean, and their deviation; 1 where all are equal."""
    mean = float(np.average(y, weights=weights))
    scale = float(np.sqrt(np.average((y - mean) ** 2, weights=weights))) or 1.0
    return (y - mean) / scale, mean, scale


def check_scale(head: Any) -> None:
    """Raise ValueError unless the mean and the deviation of the numbers are finite, and the latter above 0."""
    if not (np.isfinite([head.mean_, head.scale_]).all() and head.scale_ > 0):
        raise ValueError(f"its numbers have the mean {head.mean_} and the deviation {head.scale_}")


class NumberHead(RegressorMixin, BaseEstimator):
    """Base class: a regressor of scikit-learn, fitted on numbers with mean 0 and standard deviation 1.

    So its parameters mean the same for numbers in any unit, and kernel ridge, which has no intercept, needs none.

    Attributes
    ----------
    regressor_ : estimator
        The fitted regressor of scikit-learn.
    mean_, scale_ : float
        Weighted mean and standard deviation of the numbers.
    """

    #: Name of the class of the regressor.
    _kind = ""

    def _fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=np.float64, y_numeric=True)
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
            used = weights > 0
            if not used.any():
                raise DataError("A regressor needs rows to be fitted on. Received: only rows of weight 0.")
            X, y, weights = X[used], y[used], weights[used]
        wanted, self.mean_, self.scale_ = standardised(np.asarray(y, np.float64), weights)
        given = {} if weights is None else {"sample_weight": weights}
        self.regressor_ = self._regressor(X, weights).fit(X, wanted, **given)
        return self

    def _regressor(self, X: Any, weights: NDArray[np.float64] | None) -> Any:
        """Return the unfitted regressor for these rows."""
        raise NotImplementedError

    def check_loaded(self) -> None:
        """Raise ValueError unless a head from a file holds a regressor of its own kind, and finite numbers."""
        found = type(self.regressor_).__name__
        if found != self._kind:
            raise ValueError(f"it holds a {found} in the place of a {self._kind}")
        check_scale(self)

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return numbers, shape (n_samples,), float64."""
        check_is_fitted(self, "regressor_")
        X = validate_data(self, X, accept_sparse="csr", dtype=np.float64, reset=False)
        numbers: NDArray[np.float64] = self.mean_ + self.scale_ * self.regressor_.predict(X)
        return numbers

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


class RidgeRegressionHead(NumberHead):
    """``sklearn.linear_model.Ridge``; predicts what it predicts on the numbers as they are.

    Parameters
    ----------
    alpha : float
        Strength of the L2 penalty.
    """

    _kind = "Ridge"

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> RidgeRegressionHead:
        """Fit on rows, an array or CSR matrix of shape (n_samples, n_features), numbers, and weights of the rows."""
        return self._fit(X, y, sample_weight)  # type: ignore[no-any-return]

    def _regressor(self, X: Any, weights: NDArray[np.float64] | None) -> Any:
        return Ridge(alpha=self.alpha)


class KernelRidgeHead(NumberHead):
    """``sklearn.kernel_ridge.KernelRidge`` with an RBF kernel.

    Parameters
    ----------
    alpha : float
        Strength of the L2 penalty.
    gamma : "scale", "auto" or float
        Kernel coefficient, as in ``sklearn.svm.SVR``.
    gamma_factor : float
        Factor of ``gamma``: with it, one grid serves every scaling and number of features.
    """

    _kind = "KernelRidge"

    def __init__(self, alpha: float = 0.1, *, gamma: str | float = "scale", gamma_factor: float = 1.0) -> None:
        self.alpha = alpha
        self.gamma = gamma
        self.gamma_factor = gamma_factor

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> KernelRidgeHead:
        """Fit on rows, an array or CSR matrix of shape (n_samples, n_features), numbers, and weights of the rows."""
        return self._fit(X, y, sample_weight)  # type: ignore[no-any-return]

    def _regressor(self, X: Any, weights: NDArray[np.float64] | None) -> Any:
        return KernelRidge(
            alpha=self.alpha, kernel="rbf", gamma=self.gamma_factor * numeric_gamma(self.gamma, X, weights)
        )


class SVRHead(NumberHead):
    """``sklearn.svm.SVR`` with an RBF kernel.

    Parameters
    ----------
    C, epsilon : float
        Inverse strength of regularisation; errors up to ``epsilon`` standard deviations of the numbers cost nothing.
    gamma : "scale", "auto" or float
        Kernel coefficient.
    gamma_factor : float
        Factor of ``gamma``.
    """

    _kind = "SVR"

    def __init__(
        self, C: float = 1.0, *, epsilon: float = 0.1, gamma: str | float = "scale", gamma_factor: float = 1.0
    ) -> None:
        self.C = C
        self.epsilon = epsilon
        self.gamma = gamma
        self.gamma_factor = gamma_factor

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SVRHead:
        """Fit on rows, an array or CSR matrix of shape (n_samples, n_features), numbers, and weights of the rows."""
        return self._fit(X, y, sample_weight)  # type: ignore[no-any-return]

    def _regressor(self, X: Any, weights: NDArray[np.float64] | None) -> Any:
        gamma = self.gamma_factor * numeric_gamma(self.gamma, X, weights)
        return SVR(C=self.C, epsilon=self.epsilon, gamma=gamma, cache_size=KERNEL_CACHE_MB)


class NeighboursRegressionHead(NumberHead):
    """``sklearn.neighbors.KNeighborsRegressor``: the mean of the nearest rows. It takes no weights.

    Parameters
    ----------
    n_neighbors : int
        Number of neighbors; all rows where there are fewer.
    metric : "cosine" or "euclidean"
        Distance between rows.
    """

    _kind = "KNeighborsRegressor"

    def __init__(self, n_neighbors: int = 10, *, metric: str = "cosine") -> None:
        self.n_neighbors = n_neighbors
        self.metric = metric

    def fit(self, X: Any, y: Any) -> NeighboursRegressionHead:
        """Keep rows, an array or CSR matrix of shape (n_samples, n_features), and their numbers."""
        return self._fit(X, y)  # type: ignore[no-any-return]

    def _regressor(self, X: Any, weights: NDArray[np.float64] | None) -> Any:
        return KNeighborsRegressor(min(self.n_neighbors, X.shape[0]), metric=self.metric, algorithm="brute")
