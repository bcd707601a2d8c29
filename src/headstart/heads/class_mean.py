"""The nearest class mean."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.utils.validation import validate_data

from headstart.heads.base import Head, Layer, encode, fit_temperature, softmax_layer, weighted_rows
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

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> ClassMeanHead:
        """Fit on rows of features, an array or CSR matrix of shape (n_samples, n_features), with labels and weights.

        A row of weight n counts as n rows in mean and variance.
        """
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=(np.float64, np.float32))
        X, y, given = weighted_rows(X, y, sample_weight)
        self.classes_, labels = encode(y)
        weights = np.ones(len(labels)) if given is None else given
        totals = np.bincount(labels, weights).astype(np.float64)
        self.means_ = np.zeros((len(totals), X.shape[1]))
        for rows in blocks(*X.shape):
            members = (labels[rows] == np.arange(len(totals))[:, None]) * weights[rows]
            self.means_ += (members / totals[:, None]) @ _wide(X[rows])
        squares = np.zeros(X.shape[1])
        for rows in blocks(*X.shape):
            squares += weights[rows] @ (_wide(X[rows]) - self.means_[labels[rows]]) ** 2
        self.variances_ = self._shrink(squares[None], totals.sum() - len(totals))[0]
        self.temperature_ = self._choose_temperature(X, labels, totals, squares, weights)
        return self

    def _shrink(self, squares: NDArray[np.float64], freedom: Any) -> NDArray[np.float64]:
        """Return variances, shape as ``squares``: sums of squares within classes, one set in each row.

        ``freedom`` is the weight of the rows less the number of classes, one for all or one for each row.
        """
        variances = squares / np.maximum(freedom, 1.0)
        shrunk: NDArray[np.float64] = (
            self.shrinkage * variances.mean(axis=1, keepdims=True) + (1 - self.shrinkage) * variances
        )
        # One image per class, or identical ones: no spread is known, and the plain distance is what remains.
        return np.where(shrunk > 0, shrunk, 1.0)

    def _choose_temperature(
        self,
        X: Any,
        labels: NDArray[np.int64],
        totals: NDArray[np.float64],
        squares: NDArray[np.float64],
        weights: NDArray[np.float64],
    ) -> float:
        """Return the temperature by the scores of left-out rows; a row that is all its class cannot be left out.

        Of a row of weight n, one of n rows is left out.
        """
        left_out = np.minimum(weights, 1.0)
        useful = np.flatnonzero(totals[labels] > left_out)
        if not len(useful):
            warnings.warn("Each class has one image: the probabilities are not calibrated.", stacklevel=3)
            return 1.0
        scores = np.concatenate(
            [
                self._left_out(_wide(X[rows]), labels[rows], totals, squares, left_out[rows])
                for rows in (useful[part] for part in blocks(len(useful), X.shape[1]))
            ]
        )
        return fit_temperature(scores, labels[useful], weights[useful], weights[useful])

    def _left_out(
        self,
        X: NDArray[np.float64],
        labels: NDArray[np.int64],
        totals: NDArray[np.float64],
        squares: NDArray[np.float64],
        left_out: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return the scores of rows by means and variances without each of them, or some of its weight, ``left_out``."""
        share = totals[labels] / (totals[labels] - left_out)
        deviations = X - self.means_[labels]
        without = np.maximum(squares - (left_out * share)[:, None] * deviations**2, 0.0)
        variances = self._shrink(without, (totals.sum() - len(totals) - left_out)[:, None])
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
