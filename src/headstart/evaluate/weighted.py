"""Scores of weighted rows, for many sets of weights at once.

A resample of rows is a weight per row: how often it was drawn. Sorting and binning are done once, and every resample costs
a few sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: The expected calibration error is the mean distance, bin by bin, between how sure a head is of its prediction and how often
#: it is right. Chance distances count as well, so that it is above 0 for a head without fault, the more so the fewer images.
#: Bins of the largest probability, equally wide: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, sec. 5.
#: Bins of equal mass are a little less biased (Nixon et al., "Measuring Calibration in Deep Learning", CVPR workshops 2019);
#: these are the ones of published figures, and those that a reliability diagram shows.
ECE_BINS = 15


class WeightedMetrics:
    """Every score, of any weights of the same rows.

    Parameters
    ----------
    y_true : ndarray of shape (n_samples,), int
        Index of the true class.
    probabilities : ndarray of shape (n_samples, n_classes)
        Of each class. The prediction is the largest, the first of equal ones.
    positive : int, optional
        The class whose average precision it is; the default is the mean of all.

    Raises
    ------
    DataError
        If there are no rows, the shapes do not fit together, a label has no column, or a probability is not finite.
    """

    def __init__(
        self,
        y_true: NDArray[np.integer[Any]],
        probabilities: NDArray[np.floating[Any]],
        positive: int | None = None,
    ) -> None:
        from scipy.sparse import csr_array, vstack

        check(y_true, probabilities)
        n, self.n_classes = probabilities.shape
        self._y, self._probabilities, self._positive = np.asarray(y_true), probabilities, positive
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
        """Return every score that needs no order of the rows, each of shape (n_resamples,).

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

    def ranking(self, weights: Floats) -> dict[str, Floats]:
        """Return ``roc_auc_ovr`` and ``average_precision``, each of shape (n_resamples,).

        Both are of one class against the rest, the mean of all classes that have weight; NaN where only one class has.
        The area of two classes is that of the second, the average precision that of the positive class where there is one.
        """
        areas, precisions = [], []
        for label in range(self.n_classes):
            area, precision = WeightedRanking(self._y == label, self._probabilities[:, label])(weights)
            areas += [area] if self.n_classes != 2 or label == 1 else []
            precisions += [precision] if self._positive in (None, label) else []
        return {"roc_auc_ovr": mean_found(areas), "average_precision": mean_found(precisions)}


class WeightedRanking:
    """Area under the ROC curve and average precision of one class, for any weights.

    The area is the probability that a row of the class scores above one that is not, ties counting half (Hanley & McNeil,
    Radiology 143, 1982): sums of weights between the places of the class's own rows in the order of scores. Average precision
    is the mean over the class's own rows of the share that the class has of all rows that score at least as much, as
    ``sklearn.metrics.average_precision_score`` has it.
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

    def __call__(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return area and average precision, each of shape (n_resamples,); NaN without rows of the class, or of others."""
        upto = np.cumsum(self._between @ weights, axis=0)
        own = self._own @ weights
        n_own, n_all = own.sum(axis=0), upto[-1]
        pairs = n_own * (n_all - n_own)
        # Pairs of the class's own rows are half of each order.
        won = (own * (upto[0:-1:2] + upto[1::2])).sum(axis=0) / 2 - n_own**2 / 2
        own_above, above = n_own - np.cumsum(own, axis=0) + own, n_all - upto[0:-1:2]
        shares = np.divide(own_above, above, out=np.zeros_like(own), where=own > 0)
        return ratio(won, pairs, pairs > 0), ratio((own * shares).sum(axis=0), n_own, pairs > 0)


def ratio(numerator: Floats, denominator: Floats, where: NDArray[np.bool_]) -> Floats:
    """Return quotients; NaN elsewhere."""
    found: Floats = np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=where)
    return found


def mean_found(values: list[Floats]) -> Floats:
    """Return the mean of those that are not NaN, of each column; NaN where all are."""
    stacked = np.stack(values)
    found = np.isfinite(stacked)
    n_found = found.sum(axis=0).astype(np.float64)
    return ratio(np.where(found, stacked, 0.0).sum(axis=0), n_found, n_found > 0)


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
