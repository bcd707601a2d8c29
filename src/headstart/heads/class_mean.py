"""The nearest class mean."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.utils.validation import validate_data

from headstart.heads.base import Head, Layer, encode, fit_temperature, softmax_layer
from headstart.heads.fitting.row_space import blocks
from headstart.heads.out_of_core import dense


class ClassMeanHead(Head):
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
    means_, variances_ : ndarray of shape (n_classes, n_features), ndarray of shape (n_features,), float64
        Mean of each class, and shrunken variance within classes.
    temperature_ : float
        Divisor of the scores.
    """

    _sparse = True

    def __init__(self, shrinkage: float = 0.5) -> None:
        self.shrinkage = shrinkage

    def fit(self, X: Any, y: Any) -> ClassMeanHead:
        """Fit on rows of features, an array or CSR matrix of shape (n_samples, n_features), and their labels."""
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=(np.float64, np.float32))
        self.classes_, labels = encode(y)
        counts = np.bincount(labels).astype(np.float64)
        self.means_ = np.zeros((len(counts), X.shape[1]))
        for rows in blocks(*X.shape):
            members = labels[rows] == np.arange(len(counts))[:, None]
            self.means_ += (members / counts[:, None]) @ _wide(X[rows])
        squares = sum(((_wide(X[rows]) - self.means_[labels[rows]]) ** 2).sum(axis=0) for rows in blocks(*X.shape))
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
                self._left_out(_wide(X[useful[part]]), labels[useful[part]], counts, squares, len(labels))
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
        scores = _distances(X, self.means_, variances)
        own = ((share[:, None] * deviations) ** 2 / variances).sum(axis=1)
        scores[np.arange(len(X)), labels] = own
        return -0.5 * scores

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return scores of shape (n_samples, n_classes), float64; (n_samples,), second less first, where there are two."""
        scores = self._class_scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def to_layers(self) -> tuple[Layer, ...]:
        """Return the one layer that gives ``predict_proba``: a row's own square is common to all classes."""
        scaled = self.means_ / self.variances_
        intercepts = -0.5 * (scaled * self.means_).sum(axis=1) / self.temperature_
        return (softmax_layer(scaled / self.temperature_, intercepts),)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return probabilities of shape (n_samples, n_classes), float64, in the order of ``classes_``."""
        probabilities: NDArray[np.float64] = softmax(self._class_scores(X) / self.temperature_, axis=1)
        return probabilities

    def _class_scores(self, X: Any) -> NDArray[np.float64]:
        X, spread = self._validated(X), self.variances_[None]
        return np.concatenate([-0.5 * _distances(_wide(X[rows]), self.means_, spread) for rows in blocks(*X.shape)])


def _wide(rows: Any) -> NDArray[np.float64]:
    return np.asarray(dense(rows), np.float64)


def _distances(
    X: NDArray[np.float64], means: NDArray[np.float64], variances: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return squared distances of rows to means, shape (n_samples, n_means), in units of the variances.

    ``variances`` has a row for each row of ``X``, or one for all.
    """
    centre = means.mean(axis=0)  # the formula below cancels less where numbers are small
    X, means = X - centre, means - centre
    scaled = X / variances
    squares: NDArray[np.float64] = (
        (X * scaled).sum(axis=1)[:, None] - 2.0 * scaled @ means.T + (1.0 / variances) @ (means**2).T
    )
    return squares.clip(min=0.0)
