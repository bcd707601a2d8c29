"""Scores of weighted rows, for many sets of weights at once.

A resample of rows is a weight per row: how often it was drawn. Sorting and binning are done once, and every resample costs
a few sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: Bins of the largest probability, equally wide: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, sec. 5.
#: Bins of equal mass are a little less biased (Nixon et al., "Measuring Calibration in Deep Learning", CVPR workshops 2019);
#: these are the ones of published figures, and those that a reliability diagram shows.
ECE_BINS = 15


class WeightedMetrics:
    """Accuracy, balanced accuracy, macro F1, log-loss, calibration error and ROC-AUC of any weights of the same rows.

    Parameters
    ----------
    y_true : ndarray of shape (n_samples,), int
        Index of the true class.
    probabilities : ndarray of shape (n_samples, n_classes)
        Of each class. The prediction is the largest, the first of equal ones.

    Raises
    ------
    DataError
        If there are no rows, the shapes do not fit together, a label has no column, or a probability is not finite.
    """

    def __init__(self, y_true: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]]) -> None:
        from scipy.sparse import csr_array, vstack

        check(y_true, probabilities)
        n, self.n_classes = probabilities.shape
        self._y, self._probabilities = np.asarray(y_true), probabilities
        predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1).astype(np.float64)
        right = (predicted == y_true).astype(np.float64)
        number = confidence_bins(confidence, ECE_BINS)

        def summed(rows: NDArray[np.integer[Any]], values: Floats, n_rows: int) -> Any:
            return csr_array((values, (rows, np.arange(n))), shape=(n_rows, n))

        self._sums = vstack(
            [
                summed(self._y, np.ones(n), self.n_classes),
                summed(predicted, np.ones(n), self.n_classes),
                summed(self._y, right, self.n_classes),
                summed(number, right - confidence, ECE_BINS),
                summed(np.zeros(n, np.intp), row_losses(y_true, probabilities), 1),
            ],
            format="csr",
        )

    def __call__(self, weights: Floats) -> dict[str, Floats]:
        """Return every score but ROC-AUC, each of shape (n_resamples,).

        Parameters
        ----------
        weights : ndarray of shape (n_samples, n_resamples), float64
            How often each row counts. A class without weight counts for nothing.
        """
        k, total = self.n_classes, weights.sum(axis=0)
        support, predicted, right, gaps, losses = np.split(
            self._sums @ weights, np.cumsum([k, k, k, ECE_BINS]).tolist()
        )
        return {
            "accuracy": right.sum(axis=0) / total,
            "balanced_accuracy": mean_ratio(right, support),
            "f1_macro": mean_ratio(2 * right, support + predicted),
            "log_loss": losses[0] / total,
            "ece": np.abs(gaps).sum(axis=0) / total,
        }

    def roc_auc_ovr(self, weights: Floats) -> Floats:
        """Return the area under the ROC curve, shape (n_resamples,): one class against the rest, the mean of all classes.

        Of two classes it is the area of the second; NaN where only one class has weight.
        """
        areas = np.stack([area @ weights for area in self._areas()])
        found = np.isfinite(areas)
        sums = np.where(found, areas, 0.0).sum(axis=0)
        mean: Floats = np.divide(sums, found.sum(axis=0), out=np.full(len(sums), np.nan), where=found.any(axis=0))
        return mean

    def _areas(self) -> Iterator[WeightedArea]:
        for label in [1] if self.n_classes == 2 else range(self.n_classes):
            yield WeightedArea(self._y == label, self._probabilities[:, label])


class WeightedArea:
    """Area under the ROC curve of one class, for any weights (``area @ weights``).

    It is the probability that a row of the class scores above one that is not, ties counting half (Hanley & McNeil,
    Radiology 143, 1982): sums of weights between the places of the class's own rows in the order of scores.
    """

    def __init__(self, positive: NDArray[np.bool_], scores: NDArray[np.floating[Any]]) -> None:
        from scipy.sparse import csr_array

        n = len(scores)
        rows = np.flatnonzero(positive)
        places, own = np.unique(scores[rows], return_inverse=True)
        left = np.searchsorted(places, scores)
        tied = (left < len(places)) & (places[np.minimum(left, len(places) - 1)] == scores) if len(rows) else left > 0
        shape = (2 * len(places) + 1, n)
        self._between = csr_array((np.ones(n), (2 * left + tied, np.arange(n))), shape=shape)
        self._own = csr_array((np.ones(len(rows)), (own, rows)), shape=(len(places), n))

    def __matmul__(self, weights: Floats) -> Floats:
        upto = np.cumsum(self._between @ weights, axis=0)
        own = self._own @ weights
        n_own = own.sum(axis=0)
        n_others = upto[-1] - n_own
        # Pairs of the class's own rows are half of each order.
        won = (own * (upto[0:-1:2] + upto[1::2])).sum(axis=0) / 2 - n_own**2 / 2
        pairs = n_own * n_others
        area: Floats = np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
        return area


def row_losses(y_true: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]]) -> Floats:
    """Return −log of each true class's probability, clipped as ``sklearn.metrics.log_loss`` does."""
    clipped = np.maximum(probabilities[np.arange(len(y_true)), y_true], np.finfo(probabilities.dtype).eps)
    losses: Floats = -np.log(clipped.astype(np.float64))
    return losses


def mean_ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Return the mean over the rows with a denominator, of each column."""
    present = denominator > 0
    ratios = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=present)
    mean: Floats = ratios.sum(axis=0) / present.sum(axis=0)
    return mean


def confidence_bins(confidence: Floats, n_bins: int) -> NDArray[np.intp]:
    """Return the bin of each probability; they are closed to the right, as in the paper: 1 is in the last one."""
    number: NDArray[np.intp] = np.clip(np.ceil(confidence * n_bins).astype(np.intp) - 1, 0, n_bins - 1)
    return number


def check(
    y_true: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]], what: str = "probabilities"
) -> None:
    """Raise DataError where labels and probabilities do not fit together."""
    if not len(y_true) or probabilities.ndim != 2 or len(probabilities) != len(y_true):
        raise DataError(
            f"Expected at least one label, and {what} of shape (n_samples, n_classes). "
            f"Received: {len(y_true)} labels, {probabilities.shape}."
        )
    low, high = int(np.min(y_true)), int(np.max(y_true))
    if low < 0 or high >= probabilities.shape[1]:
        raise DataError(
            f"Expected labels from 0 to {probabilities.shape[1] - 1}, one per column of {what}. "
            f"Received: labels from {low} to {high}."
        )
    wrong = int((~np.isfinite(probabilities).all(axis=1)).sum())
    if wrong:
        raise DataError(f"Expected finite {what}. Received: {wrong:,} of {len(y_true):,} rows that are not.")
