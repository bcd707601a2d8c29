"""The nearest class mean."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from headstart.heads.fitting.exported_layers import Layer, softmax_layer
from headstart.heads.fitting.row_space import blocks
from headstart.heads.fitting.temperature import encode, fit_temperature

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ClassMeanHead(ClassifierMixin, BaseEstimator):
    """The nearest class mean, each feature measured in its own spread, with probabilities.

    Mensink et al., "Distance-based image classification: generalizing to new classes at near-zero cost", PAMI 2013. Scores
    are ``−½ Σⱼ (xⱼ − μⱼ)² / σⱼ²``: σⱼ² is the variance within classes, shrunk towards its mean over the features.
    Probabilities are their softmax at a temperature that is chosen by the log-loss of exact leave-one-out scores (mean and
    variance without the row).

    Parameters
    ----------
    shrinkage : float
        Share of the mean variance in each variance, above 0; 1 is the plain Euclidean distance.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    means_ : ndarray of shape (n_classes, n_features), float64
        Mean of each class.
    variances_ : ndarray of shape (n_features,), float64
        Shrunken variance within classes.
    temperature_ : float
        Divisor of the scores.
    """

    def __init__(self, shrinkage: float = 0.5) -> None:
        self.shrinkage = shrinkage

    def fit(self, X: Any, y: Any) -> ClassMeanHead:
        """Fit on rows of features.

        Parameters
        ----------
        X : array-like or CSR matrix of shape (n_samples, n_features)
            Features.
        y : array-like of shape (n_samples,)
            Labels.
        """
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=(np.float64, np.float32))
        self.classes_, labels = encode(y)
        counts = np.bincount(labels).astype(np.float64)
        self.means_ = np.zeros((len(counts), X.shape[1]))
        for rows in blocks(*X.shape):
            members = labels[rows] == np.arange(len(counts))[:, None]
            self.means_ += (members / counts[:, None]) @ dense(X[rows])
        squares = sum(((dense(X[rows]) - self.means_[labels[rows]]) ** 2).sum(axis=0) for rows in blocks(*X.shape))
        self.variances_ = self._shrink(np.atleast_2d(squares), len(labels) - len(counts))[0]
        self.temperature_ = self._choose_temperature(X, labels, counts, np.asarray(squares))
        return self

    def _shrink(self, squares: NDArray[np.float64], freedom: int) -> NDArray[np.float64]:
        """Return variances, shape as ``squares``: sums of squares within classes, one set in each row."""
        variances = squares / max(freedom, 1)
        shrunk: NDArray[np.float64] = (
            self.shrinkage * variances.mean(axis=1, keepdims=True) + (1 - self.shrinkage) * variances
        )
        # One image per class, or identical ones: no spread is known, and the plain distance is what remains.
        return np.where(shrunk > 0, shrunk, 1.0)

    def _choose_temperature(
        self, X: Any, labels: NDArray[np.int64], counts: NDArray[np.float64], squares: NDArray[np.float64]
    ) -> float:
        """Return the temperature by the scores of left-out rows; a row that is all its class cannot be left out."""
        useful = np.flatnonzero(counts[labels] > 1)
        if not len(useful):
            warnings.warn("Each class has one image: the probabilities are not calibrated.", stacklevel=3)
            return 1.0
        scores = np.concatenate(
            [
                self._left_out(dense(X[useful[part]]), labels[useful[part]], counts, squares, len(labels))
                for part in blocks(len(useful), X.shape[1])
            ]
        )
        return fit_temperature(scores, labels[useful])

    def _left_out(
        self,
        X: NDArray[np.float64],
        labels: NDArray[np.int64],
        counts: NDArray[np.float64],
        squares: NDArray[np.float64],
        n_samples: int,
    ) -> NDArray[np.float64]:
        """Return the scores of rows by means and variances without each of them."""
        share = counts[labels] / (counts[labels] - 1)
        deviations = X - self.means_[labels]
        without = np.maximum(squares - share[:, None] * deviations**2, 0.0)
        variances = self._shrink(without, n_samples - 1 - len(counts))
        scores = distances(X, self.means_, variances)
        own = ((share[:, None] * deviations) ** 2 / variances).sum(axis=1)
        scores[np.arange(len(X)), labels] = own
        return -0.5 * scores

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return scores of shape (n_samples, n_classes), float64; (n_samples,), second less first, where there are two."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def linear_form(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return coefficients and intercepts that give ``predict_proba``: a row's own square is common to all classes."""
        check_is_fitted(self, "means_")
        scaled = self.means_ / self.variances_
        return scaled / self.temperature_, -0.5 * (scaled * self.means_).sum(axis=1) / self.temperature_

    def to_layers(self) -> tuple[Layer, ...]:
        """Return the one layer that gives ``predict_proba``."""
        return (softmax_layer(*self.linear_form()),)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return probabilities of shape (n_samples, n_classes), float64, in the order of ``classes_``."""
        probabilities: NDArray[np.float64] = softmax(self._scores(X) / self.temperature_, axis=1)
        return probabilities

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the label of the nearest mean of each row."""
        nearest = self._scores(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[nearest]
        return labels

    def _scores(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self, "means_")
        X = validate_data(self, X, accept_sparse="csr", dtype=(np.float64, np.float32), reset=False)
        spread = self.variances_[None]
        return np.concatenate([-0.5 * distances(dense(X[rows]), self.means_, spread) for rows in blocks(*X.shape)])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def dense(rows: Any) -> NDArray[np.float64]:
    """Return a block of rows as a float64 array."""
    return np.asarray(rows.toarray() if sparse.issparse(rows) else rows, np.float64)


def distances(
    X: NDArray[np.float64], means: NDArray[np.float64], variances: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return squared distances in units of the variances, shape (n_samples, n_means).

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features), float64
        Rows.
    means : ndarray of shape (n_means, n_features), float64
        Means to compare them with.
    variances : ndarray of shape (n_samples, n_features) or (1, n_features), float64
        Variance of each feature, for each row or for all.
    """
    centre = means.mean(axis=0)  # the formula below cancels less where numbers are small
    X, means = X - centre, means - centre
    scaled = X / variances
    squares: NDArray[np.float64] = (
        (X * scaled).sum(axis=1)[:, None] - 2.0 * scaled @ means.T + (1.0 / variances) @ (means**2).T
    )
    return squares.clip(min=0.0)
