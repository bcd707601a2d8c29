"""Scores, and what each row adds to them.

The influence of a row is the derivative of a score by the row's weight (Hampel, JASA 69, 1974). The sum of the squared
influences is the variance of the score (the infinitesimal jackknife: Efron, "The Jackknife, the Bootstrap and Other
Resampling Plans", SIAM 1982, chapter 6); summed over rows that belong together first, it is that of drawing whole units. The
difference of two heads on the same rows has the difference of their influences.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Labels = NDArray[np.integer[Any]]

#: Bins of the largest probability, equally wide: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, sec. 5.
#: The expected calibration error is the mean distance, bin by bin, between how sure a head is of its prediction and how often
#: it is right. Chance distances count as well: it is above 0 for a head without fault, the more so the fewer images.
ECE_BINS = 15


@dataclass(frozen=True, slots=True)
class Influence:
    """A score of some rows, and the influence of each of them.

    Attributes
    ----------
    value : float
        The score; NaN where it does not exist.
    rows : ndarray of shape (n_samples,), float64
        Derivatives by the weights of the rows; their sum is 0.
    """

    value: float
    rows: Floats


def influences(
    y_true: Labels, probabilities: NDArray[np.floating[Any]], positive: int | None = None
) -> dict[str, Influence]:
    """Return every score of ``criteria.METRICS`` by its name, with the influence of each row.

    ``roc_auc_ovr`` and ``average_precision`` are NaN where all rows are of one class; classes without rows count for nothing.

    Parameters
    ----------
    y_true : ndarray of shape (n_samples,), int
        Index of the true class.
    probabilities : ndarray of shape (n_samples, n_classes)
        Of each class. The prediction is the largest, the first of equal ones.
    positive : int, optional
        The class whose average precision it is; the default is the mean of all, each against the rest.

    Raises
    ------
    DataError
        If there are no rows, the shapes do not fit together, a label has no column, or a probability is not finite.
    """
    check(y_true, probabilities)
    losses = row_losses(y_true, probabilities)
    return {
        **of_predictions(y_true, probabilities.argmax(axis=1), probabilities.shape[1]),
        **of_rankings(y_true, probabilities, positive),
        "log_loss": mean_of(losses),
        "ece": calibration_error(y_true, probabilities),
    }


def mean_of(values: Floats) -> Influence:
    """Return the mean of values, one of each row."""
    mean = float(values.mean())
    return Influence(mean, (values - mean) / len(values))


def of_predictions(y_true: Labels, predicted: Labels, n_classes: int) -> dict[str, Influence]:
    """Return accuracy, balanced accuracy and macro F1."""
    right = (predicted == y_true).astype(np.float64)
    support = np.bincount(y_true, minlength=n_classes).astype(np.float64)
    both = support + np.bincount(predicted, minlength=n_classes)
    n_right = np.bincount(y_true, right, n_classes)
    recall, f1 = n_right / np.maximum(support, 1), 2 * n_right / np.maximum(both, 1)
    n_true, n_seen = int((support > 0).sum()), int((both > 0).sum())
    recalls = (right - recall[y_true]) / support[y_true] / n_true
    shared = (2 * right - f1[y_true]) / both[y_true] - f1[predicted] / both[predicted]
    return {
        "accuracy": mean_of(right),
        "balanced_accuracy": Influence(float(recall.sum() / n_true), recalls),
        "f1_macro": Influence(float(f1.sum() / n_seen), shared / n_seen),
    }


def calibration_error(y_true: Labels, probabilities: NDArray[np.floating[Any]]) -> Influence:
    """Return the expected calibration error of the most probable class."""
    gaps, number = confidence_gaps(y_true, probabilities)
    sums = np.bincount(number, gaps, ECE_BINS)
    value = float(np.abs(sums).sum() / len(gaps))
    return Influence(value, (np.sign(sums)[number] * gaps - value) / len(gaps))


def confidence_gaps(y_true: Labels, probabilities: NDArray[np.floating[Any]]) -> tuple[Floats, NDArray[np.intp]]:
    """Return of each row 1 for right, else 0, less how sure the head was; and its bin, closed to the right."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    number = np.clip(np.ceil(confidence * ECE_BINS).astype(np.intp) - 1, 0, ECE_BINS - 1)
    return (probabilities.argmax(axis=1) == y_true) - confidence, number


def of_rankings(y_true: Labels, probabilities: NDArray[np.floating[Any]], positive: int | None) -> dict[str, Influence]:
    """Return ROC-AUC, of two classes the second's, else the mean of all; and average precision."""
    areas, precisions = [], []
    for label, area, precision in rankings(y_true, probabilities):
        areas += [area] if probabilities.shape[1] != 2 or label == 1 else []
        precisions += [precision] if positive in (None, label) else []
    return {
        "roc_auc_ovr": mean_influence(areas, len(y_true)),
        "average_precision": mean_influence(precisions, len(y_true)),
    }


def rankings(y_true: Labels, probabilities: NDArray[np.floating[Any]]) -> Iterator[tuple[int, Influence, Influence]]:
    """Yield area and average precision of each class that some rows are of, and others are not."""
    for label in range(probabilities.shape[1]):
        of_class = y_true == label
        if 0 < of_class.sum() < len(y_true):
            yield label, *ranking(of_class, probabilities[:, label])


def ranking(positive: NDArray[np.bool_], scores: NDArray[np.floating[Any]]) -> tuple[Influence, Influence]:
    """Return the area under the ROC curve and the average precision of one class against the rest.

    The area is the probability that a row of the class scores above one that is not, ties counting half; influences as by
    DeLong, DeLong & Clarke-Pearson, Biometrics 44, 1988. Average precision is the mean over the rows of the class of its
    share among all rows that score at least as much (``sklearn.metrics.average_precision_score``).
    """
    _, place = np.unique(scores, return_inverse=True)
    own, other = np.bincount(place, positive), np.bincount(place, ~positive)
    n_own, n_other = own.sum(), other.sum()
    own_below, other_below = np.cumsum(own) - own, np.cumsum(other) - other
    above_other, below_own = (other_below + other / 2) / n_other, 1 - (own_below + own / 2) / n_own
    area = float((own * above_other).sum() / n_own)
    areas = np.where(positive, (above_other[place] - area) / n_own, (below_own[place] - area) / n_other)
    own_from, all_from = n_own - own_below, len(scores) - own_below - other_below
    share = own_from / all_from
    precision = float((own * share).sum() / n_own)
    # A row of the class raises, any row lowers the share at every place up to its own.
    raised, lowered = np.cumsum(own / all_from)[place], np.cumsum(own * own_from / all_from**2)[place]
    precisions = (np.where(positive, share[place] - precision + raised, 0.0) - lowered) / n_own
    return Influence(area, areas), Influence(precision, precisions)


def mean_influence(parts: list[Influence], n_samples: int) -> Influence:
    """Return the mean of scores; NaN without any."""
    if not parts:
        return Influence(float("nan"), np.zeros(n_samples))
    return Influence(float(np.mean([part.value for part in parts])), np.mean([part.rows for part in parts], axis=0))


def row_losses(y_true: Labels, probabilities: NDArray[np.floating[Any]]) -> Floats:
    """Return −log of each true class's probability, clipped as ``sklearn.metrics.log_loss`` does."""
    clipped = np.maximum(probabilities[np.arange(len(y_true)), y_true], np.finfo(probabilities.dtype).eps)
    losses: Floats = -np.log(clipped.astype(np.float64))
    return losses


def check(y_true: Labels, probabilities: NDArray[np.floating[Any]]) -> None:
    """Raise DataError where labels and probabilities do not fit together."""
    if not len(y_true) or probabilities.ndim != 2 or len(probabilities) != len(y_true):
        raise DataError(
            "Expected at least one label, and probabilities of shape (n_samples, n_classes). "
            f"Received: {len(y_true)} labels, {probabilities.shape}."
        )
    low, high = int(np.min(y_true)), int(np.max(y_true))
    if low < 0 or high >= probabilities.shape[1]:
        raise DataError(
            f"Expected labels from 0 to {probabilities.shape[1] - 1}, one per column of the probabilities. "
            f"Received: labels from {low} to {high}."
        )
    wrong = int((~np.isfinite(probabilities).all(axis=1)).sum())
    if wrong:
        raise DataError(f"Expected finite probabilities. Received: {wrong:,} of {len(y_true):,} rows that are not.")
