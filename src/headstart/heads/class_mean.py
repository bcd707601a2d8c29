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

#: Share of the weight of a class that may be rounding.
ROUNDING = 1e-12


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

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> ClassMeanHead:
        """Fit on rows of features, an array or CSR matrix of shape (n_samples, n_features), with labels and weights.

        A row of weight n counts as n rows in mean and variance. Rows of one group (of ``groups``, shape (n_samples,)) and
        class, as crops of an image, are left out together.
        """
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=(np.float64, np.float32))
        X, y, given, groups = weighted_rows(X, y, sample_weight, groups)
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
        self.temperature_ = self._choose_temperature(X, labels, totals, squares, weights, groups)
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
        groups: NDArray[np.int64] | None,
    ) -> float:
        """Return the temperature by the scores of left-out rows; a row, or group, that is all its class cannot be left out.

        Of a row of weight n, one of n rows is left out; of a group all.
        """
        if groups is None:
            own, left_out = np.arange(len(labels)), np.minimum(weights, 1.0)
        else:
            own, left_out = np.unique(groups * len(totals) + labels, return_inverse=True)[1], weights
        useful = totals[labels] * (1 - ROUNDING) > np.bincount(own, left_out)[own]
        if not useful.any():
            warnings.warn("Each class has one image: the probabilities are not calibrated.", stacklevel=3)
            return 1.0
        order = np.flatnonzero(useful)[np.argsort(own[useful], kind="stable")]
        starts = np.flatnonzero(np.diff(own[order], prepend=-1))
        ends, scores = np.append(starts, len(order)), []
        for part in blocks(len(starts), X.shape[1] * -(-len(order) // len(starts))):
            rows = order[ends[part.start] : ends[min(part.stop, len(starts))]]
            scores.append(self._left_out(_wide(X[rows]), labels[rows], totals, squares, left_out[rows], own[rows]))
        return fit_temperature(np.concatenate(scores), labels[order], weights[order], weights[order])

    def _left_out(
        self,
        X: NDArray[np.float64],
        labels: NDArray[np.int64],
        totals: NDArray[np.float64],
        squares: NDArray[np.float64],
        left_out: NDArray[np.float64],
        own: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Return the scores of rows by means and variances without ``left_out`` of the weight of each row of its set.

        ``own`` numbers the sets of rows that are left out together, all of one class, one behind the other.
        """
        starts = np.flatnonzero(np.diff(own, prepend=-1))
        sizes = np.diff(np.append(starts, len(own)))
        deviations = X - self.means_[labels]
        weight, first, second = (
            np.add.reduceat(values, starts).repeat(sizes, axis=0)
            for values in (left_out, left_out[:, None] * deviations, left_out[:, None] * deviations**2)
        )
        rest = (totals[labels] - weight)[:, None]
        without = np.maximum(squares - second - first**2 / rest, 0.0)
        variances = self._shrink(without, (totals.sum() - len(totals) - weight)[:, None])
        scores = _distances(X, self.means_, variances)
        scores[np.arange(len(X)), labels] = ((deviations + first / rest) ** 2 / variances).sum(axis=1)
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
