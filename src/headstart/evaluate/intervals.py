"""Scores, the influence of each row on them, and confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaincinv

from headstart.errors import DataError
from headstart.scores import METRICS, Estimate

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
    _check(y_true, probabilities)
    losses = _row_losses(y_true, probabilities)
    return {
        **_prediction_scores(y_true, probabilities.argmax(axis=1), probabilities.shape[1]),
        **_ranking_scores(y_true, probabilities, positive),
        "log_loss": _mean_of(losses),
        "ece": _calibration_error(y_true, probabilities),
    }


def _mean_of(values: Floats) -> Influence:
    """Return the mean of values, one of each row."""
    mean = float(values.mean())
    return Influence(mean, (values - mean) / len(values))


def _prediction_scores(y_true: Labels, predicted: Labels, n_classes: int) -> dict[str, Influence]:
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
        "accuracy": _mean_of(right),
        "balanced_accuracy": Influence(float(recall.sum() / n_true), recalls),
        "f1_macro": Influence(float(f1.sum() / n_seen), shared / n_seen),
    }


def _calibration_error(y_true: Labels, probabilities: NDArray[np.floating[Any]]) -> Influence:
    """Return the expected calibration error of the most probable class."""
    gaps, number = _confidence_gaps(y_true, probabilities)
    sums = np.bincount(number, gaps, ECE_BINS)
    value = float(np.abs(sums).sum() / len(gaps))
    return Influence(value, (np.sign(sums)[number] * gaps - value) / len(gaps))


def _confidence_gaps(y_true: Labels, probabilities: NDArray[np.floating[Any]]) -> tuple[Floats, NDArray[np.intp]]:
    """Return of each row 1 for right, else 0, less how sure the head was; and its bin, closed to the right."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    number = np.clip(np.ceil(confidence * ECE_BINS).astype(np.intp) - 1, 0, ECE_BINS - 1)
    return (probabilities.argmax(axis=1) == y_true) - confidence, number


def _ranking_scores(
    y_true: Labels, probabilities: NDArray[np.floating[Any]], positive: int | None
) -> dict[str, Influence]:
    """Return ROC-AUC, of two classes the second's, else the mean of all; and average precision."""
    areas, precisions = [], []
    for label, area, precision in _rankings(y_true, probabilities):
        areas += [area] if probabilities.shape[1] != 2 or label == 1 else []
        precisions += [precision] if positive in (None, label) else []
    return {
        "roc_auc_ovr": _mean_influence(areas, len(y_true)),
        "average_precision": _mean_influence(precisions, len(y_true)),
    }


def _rankings(y_true: Labels, probabilities: NDArray[np.floating[Any]]) -> Iterator[tuple[int, Influence, Influence]]:
    """Yield area and average precision of each class that some rows are of, and others are not."""
    for label in range(probabilities.shape[1]):
        of_class = y_true == label
        if 0 < of_class.sum() < len(y_true):
            yield label, *_ranking(of_class, probabilities[:, label])


def _ranking(positive: NDArray[np.bool_], scores: NDArray[np.floating[Any]]) -> tuple[Influence, Influence]:
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


def _mean_influence(parts: list[Influence], n_samples: int) -> Influence:
    """Return the mean of scores; NaN without any."""
    if not parts:
        return Influence(float("nan"), np.zeros(n_samples))
    return Influence(float(np.mean([part.value for part in parts])), np.mean([part.rows for part in parts], axis=0))


def _row_losses(y_true: Labels, probabilities: NDArray[np.floating[Any]]) -> Floats:
    """Return −log of each true class's probability, clipped as ``sklearn.metrics.log_loss`` does."""
    clipped = np.maximum(probabilities[np.arange(len(y_true)), y_true], np.finfo(probabilities.dtype).eps)
    losses: Floats = -np.log(clipped.astype(np.float64))
    return losses


def _check(y_true: Labels, probabilities: NDArray[np.floating[Any]]) -> None:
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


#: What the intervals of a comparison are, for a person.
INTERVAL_METHOD = (
    "95 % intervals of how well this way of fitting does on other images of the same kind. Scores from 0 to 1: intervals of "
    "a proportion of as many images as would give the same variance (infinitesimal jackknife over units of images that "
    "belong together). The end towards one half is Wilson's (JASA 22, 1927) with one more unit that is all wrong, so that a "
    "score without a mistake has an interval too; the other end is Jeffreys' (Brown, Cai & DasGupta, Statistical Science "
    "16, 2001). Log-loss: on the logarithmic scale, upwards with one more mistake. These variances are taken 1.4 times, as "
    "the heads of cross-validation share training images. Calibration error: the multiples of the gaps that are compatible "
    "with it, at least up to the figure itself. Each interval is of one head, whether it is the best or not."
)

#: Standard normal quantile of 97.5 %.
Z_95 = 1.959963984540054

#: By what cross-validation varies more than a score of as many images by one head; with it, intervals hold as often as they
#: say (benchmarks/intervals.py). Nadeau & Bengio (Machine Learning 52, 2003) have 2.25 for the variance of 5 folds' means.
CV_VARIANCE = 1.4

#: Loss of the mistake that the upper end of log-loss allows for: the true class at 20 %, or the largest loss seen.
MISTAKE_LOSS = math.log(5)

#: Variances up to this are none: where an image counts, its influence is about one over their number.
ROUNDING = 1e-24

#: Draws for the calibration error.
N_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Unseen:
    """What one more unit that is all wrong would do, of a class drawn at random.

    Attributes
    ----------
    drop, square : float
        Mean of the share of a score from 0 to 1 that it would take, and of its square.
    loss : float
        What it would add to the mean loss.
    """

    drop: float
    square: float
    loss: float


class Units:
    """Rows that belong together, which chance draws as a whole.

    Parameters
    ----------
    units : ndarray of shape (n_samples,), int, optional
        Rows of the same number belong together; by default each row is a unit.
    n_samples : int
        Rows there are.

    Raises
    ------
    DataError
        If there is not one for each row.
    """

    def __init__(self, units: NDArray[np.integer[Any]] | None, n_samples: int) -> None:
        numbers = np.arange(n_samples) if units is None else np.asarray(units)
        if len(numbers) != n_samples:
            raise DataError(f"Expected a unit for each of {n_samples:,} labels. Received: {len(numbers):,} units.")
        found, self.inverse = np.unique(numbers, return_inverse=True)
        self.n = len(found)

    def sums(self, rows: Floats) -> Floats:
        """Return the sum of values over each unit, shape (n_units,)."""
        return np.bincount(self.inverse, rows, self.n).astype(np.float64)

    def variance(self, rows: Floats) -> float:
        """Return the variance of a score with the influences of some rows; of a single unit, infinite."""
        return math.inf if self.n < 2 else float((self.sums(rows) ** 2).sum() * self.n / (self.n - 1))

    def per_class(self, y_true: Labels) -> NDArray[np.int64]:
        """Return in how many units each class is that has any."""
        pairs = np.unique(np.stack([self.inverse, y_true]), axis=1)
        counts = np.bincount(pairs[1])
        return counts[counts > 0]


def estimates(
    y_true: Labels,
    probabilities: NDArray[np.floating[Any]],
    units: NDArray[np.integer[Any]] | None = None,
    *,
    positive: int | None = None,
    variance_factor: float = 1.0,
) -> dict[str, Estimate]:
    """Return every score of ``criteria.METRICS`` by its name, with its interval (:data:`INTERVAL_METHOD`).

    Parameters
    ----------
    y_true : ndarray of shape (n_samples,), int
        Index of the true class.
    probabilities : ndarray of shape (n_samples, n_classes)
        By a head that was not fitted on these rows: then the intervals are of this head. Out of fold: of the way of fitting.
    units : ndarray of shape (n_samples,), int, optional
        Rows of one unit are not independent.
    positive : int, optional
        The class whose average precision it is.
    variance_factor : float
        :data:`CV_VARIANCE` for out-of-fold probabilities.

    Returns
    -------
    dict of str to Estimate
        Every value lies in its interval. NaN where a score does not exist.

    Raises
    ------
    DataError
        If the shapes do not fit together, or a probability is not finite.
    """
    found = influences(y_true, probabilities, positive)
    together = Units(units, len(y_true))
    made = {}
    for metric in METRICS:
        influence = found[metric.name]
        if metric.name == "ece":
            made[metric.name] = _calibration_estimate(y_true, probabilities, together, influence.value)
        else:
            allowed = unseen(metric.name, y_true, probabilities, together)
            variance = together.variance(influence.rows)
            made[metric.name] = estimate(metric.name, influence.value, variance, allowed, variance_factor)
    return made


def unseen(name: str, y_true: Labels, probabilities: NDArray[np.floating[Any]], units: Units) -> Unseen:
    """Return what one more unit that is all wrong would do to a score."""
    n = np.array([units.n]) if name == "accuracy" else units.per_class(y_true)
    drops = 1.0 / (len(n) * n)
    loss = max(MISTAKE_LOSS, float(_row_losses(y_true, probabilities).max()))
    return Unseen(float(drops.mean()), float((drops**2).mean()), loss / units.n)


def estimate(name: str, value: float, variance: float, allowed: Unseen, variance_factor: float = 1.0) -> Estimate:
    """Return a score with its interval, from its variance."""
    if math.isnan(value):
        return Estimate(value, value, value)
    low, high = (_log_interval if name == "log_loss" else _share_interval)(value, variance, allowed, variance_factor)
    return Estimate(value, min(low, value), max(high, value))


def _share_interval(value: float, variance: float, allowed: Unseen, variance_factor: float) -> tuple[float, float]:
    """Return the interval of a proportion of as many images as have this variance.

    The end towards 1/2 allows for one more mistake. Near 0 and 1 the other end of Wilson's interval holds too seldom: 92 %
    for a proportion of 0.991 of 60.
    """
    if math.isinf(variance):
        return 0.0, 1.0
    if value < 0.5:
        low, high = _share_interval(1 - value, variance, allowed, variance_factor)
        return 1 - high, 1 - low
    moved = value * (1 - allowed.drop)
    low, high = wilson(value, moved * (1 - moved) / (variance_factor * (variance + allowed.square * value**2)))
    if variance > ROUNDING:
        n = value * (1 - value) / (variance_factor * variance)
        high = float(betaincinv(value * n + 0.5, (1 - value) * n + 0.5, 0.975))
    return low, high


def _log_interval(value: float, variance: float, allowed: Unseen, variance_factor: float) -> tuple[float, float]:
    """Return the interval of a positive figure on the logarithmic scale; its upper end with one more mistake."""
    if math.isinf(variance):
        return 0.0, math.inf
    more = value + allowed.loss
    width = Z_95 * math.sqrt(variance_factor * variance) / value if value > 0 else 0.0
    wider = Z_95 * math.sqrt(variance_factor * (variance + allowed.loss**2)) / more
    return value * math.exp(-width), more * math.exp(wider)


def wilson(share: float, n: float) -> tuple[float, float]:
    """Return the score interval of a proportion, 95 % (Wilson, JASA 22, 1927); of nothing, from 0 to 1."""
    if n <= 0:
        return 0.0, 1.0
    square = Z_95 * Z_95
    centre = share + square / (2 * n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    scale = 1 + square / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def f1_interval(n_right: float, n_either: float) -> tuple[float, float]:
    """Return the interval of F1: 2j / (1 + j), where j is the share of right ones among those that are or are called so.

    Lam et al., "Confidence intervals for the F1 score: a comparison of four methods", 2023, section 3 (indirect Wilson).
    """
    low, high = wilson(n_right / n_either if n_either else 0.0, n_either)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def _calibration_estimate(
    y_true: Labels, probabilities: NDArray[np.floating[Any]], units: Units, value: float
) -> Estimate:
    """Return the calibration error with the multiples of its bins' gaps of which chance would make what is seen.

    Chance is that of a calibrated head, so that bins without a mistake vary too; as units belong together, it is that of as
    many units. The lower end counts mistakes (few of them are skewed), the upper end has normal ones (bins where a mistake
    is unlikely would have none).
    """
    gaps, number = _confidence_gaps(y_true, probabilities)
    sums, shares = np.bincount(number, gaps, ECE_BINS) / len(gaps), np.bincount(number, minlength=ECE_BINS) / len(gaps)
    confidence = probabilities.max(axis=1).astype(np.float64)
    rng = np.random.default_rng(0)
    each = np.bincount(number, confidence * (1 - confidence), ECE_BINS) / len(gaps) / units.n
    normal = rng.standard_normal((N_DRAWS, ECE_BINS)) * np.sqrt(each)
    right = np.clip(np.bincount(number, confidence, ECE_BINS) / len(gaps) / np.where(shares, shares, 1), 0, 1)
    n = np.ceil(shares * units.n).astype(np.int64)
    counted = (rng.binomial(n, right, (N_DRAWS, ECE_BINS)) / np.maximum(n, 1) - right) * shares

    def excess(multiple: float, level: float, noise: Floats) -> float:
        return float(np.quantile(np.abs(multiple * sums + noise).sum(axis=1), level)) - value

    low = high = 1.0
    if excess(0, 0.975, counted) >= 0:
        low = 0.0
    elif excess(1, 0.975, counted) > 0:
        low = brentq(excess, 0, 1, args=(0.975, counted), xtol=1e-4)
    if excess(1, 0.025, normal) < 0:
        high = brentq(excess, 1, 100, args=(0.025, normal), xtol=1e-4)
    return Estimate(value, min(low * value, value), min(max(high * value, value), 1.0))
