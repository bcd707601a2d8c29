"""Metrics, the influence of each row on them, and confidence intervals: of accuracy and all others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betaincinv

from headstart.errors import DataError
from headstart.scores import ECE_BINS, METRICS, Z_95, Estimate, wilson

Floats = NDArray[np.float64]
Labels = NDArray[np.integer[Any]]

#: Description of the intervals of a comparison, shown in reports.
INTERVAL_METHOD = (
    "95 % intervals of the fitting procedure's score on other images of the same kind. Scores from 0 to 1: intervals of a "
    "proportion with the effective number of images that gives the same variance (infinitesimal jackknife over units of "
    "related images). The end towards one half is Wilson's (JASA 22, 1927) with one more, completely wrong unit, so that a "
    "score without a mistake has an interval too; the other end is Jeffreys' (Brown, Cai & DasGupta, Statistical Science "
    "16, 2001). Log-loss: on the logarithmic scale, the upper end with one more mistake. These variances are multiplied by "
    "1.4, since the heads of cross-validation share training images. Calibration error: the multiples of the bins' gaps "
    "that are compatible with it. The intervals are not corrected for choosing the best head."
)

#: Variance of cross-validation relative to the score of one head on as many images; with it, intervals have their nominal
#: coverage (benchmarks/intervals.py). Nadeau & Bengio (Machine Learning 52, 2003): 2.25 for the variance of 5 folds' means.
CV_VARIANCE = 1.4

#: Loss of the additional mistake in the upper end of log-loss (true class at 20 %), unless a larger loss was seen.
MISTAKE_LOSS = math.log(5)

#: Variances up to this are rounding errors.
ROUNDING = 1e-24

#: Random draws for the interval of the calibration error.
N_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Influence:
    """A metric and the influence of each row on it."""

    value: float  # the metric; NaN if undefined
    rows: Floats  # derivatives with respect to the row weights; they sum to 0; shape (n_samples,)


def influences(
    y_true: Labels, probabilities: NDArray[np.floating[Any]], positive: int | None = None
) -> dict[str, Influence]:
    """Return all metrics of ``scores.METRICS`` by name, with the influence of each row.

    The prediction is the class with the largest probability, the first one if tied. Average precision is that of the
    class ``positive``, by default the one-vs-rest mean over all classes. It and ``roc_auc_ovr`` are NaN if all rows are
    of one class; classes without rows are ignored.

    Raises DataError if there are no rows, shapes do not match, a label has no column, or a probability is not finite.
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
    mean = float(values.mean())
    return Influence(mean, (values - mean) / len(values))


def _prediction_scores(y_true: Labels, predicted: Labels, n_classes: int) -> dict[str, Influence]:
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
    gaps, number = _confidence_gaps(y_true, probabilities)
    sums = np.bincount(number, gaps, ECE_BINS)
    value = float(np.abs(sums).sum() / len(gaps))
    return Influence(value, (np.sign(sums)[number] * gaps - value) / len(gaps))


def _confidence_gaps(y_true: Labels, probabilities: NDArray[np.floating[Any]]) -> tuple[Floats, NDArray[np.intp]]:
    """Return correctness (0 or 1) minus confidence of each row, and its bin, closed to the right."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    number = np.clip(np.ceil(confidence * ECE_BINS).astype(np.intp) - 1, 0, ECE_BINS - 1)
    return (probabilities.argmax(axis=1) == y_true) - confidence, number


def _ranking_scores(
    y_true: Labels, probabilities: NDArray[np.floating[Any]], positive: int | None
) -> dict[str, Influence]:
    """Return ROC-AUC (of the second of two classes, otherwise the mean) and average precision."""
    areas, precisions = [], []
    for label, area, precision in _rankings(y_true, probabilities):
        areas += [area] if probabilities.shape[1] != 2 or label == 1 else []
        precisions += [precision] if positive in (None, label) else []
    return {
        "roc_auc_ovr": _mean_influence(areas, len(y_true)),
        "average_precision": _mean_influence(precisions, len(y_true)),
    }


def _rankings(y_true: Labels, probabilities: NDArray[np.floating[Any]]) -> Iterator[tuple[int, Influence, Influence]]:
    """Yield label, area and average precision of each class with both positive and negative rows."""
    for label in range(probabilities.shape[1]):
        of_class = y_true == label
        if 0 < of_class.sum() < len(y_true):
            yield label, *_ranking(of_class, probabilities[:, label])


def _ranking(positive: NDArray[np.bool_], scores: NDArray[np.floating[Any]]) -> tuple[Influence, Influence]:
    """Return area under the ROC curve and average precision of one class against the rest.

    Ties count half in the area; its influences are those of DeLong, DeLong & Clarke-Pearson, Biometrics 44, 1988.
    Average precision is that of ``sklearn.metrics.average_precision_score``.
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
    # A row of the class raises, and any row lowers, the precision at every threshold up to its own score.
    raised, lowered = np.cumsum(own / all_from)[place], np.cumsum(own * own_from / all_from**2)[place]
    precisions = (np.where(positive, share[place] - precision + raised, 0.0) - lowered) / n_own
    return Influence(area, areas), Influence(precision, precisions)


def _mean_influence(parts: list[Influence], n_samples: int) -> Influence:
    if not parts:
        return Influence(float("nan"), np.zeros(n_samples))
    return Influence(float(np.mean([part.value for part in parts])), np.mean([part.rows for part in parts], axis=0))


def _row_losses(y_true: Labels, probabilities: NDArray[np.floating[Any]]) -> Floats:
    """Return −log of the true class's probability, clipped as in ``sklearn.metrics.log_loss``."""
    clipped = np.maximum(probabilities[np.arange(len(y_true)), y_true], np.finfo(probabilities.dtype).eps)
    losses: Floats = -np.log(clipped.astype(np.float64))
    return losses


def _check(y_true: Labels, probabilities: NDArray[np.floating[Any]]) -> None:
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


@dataclass(frozen=True, slots=True)
class Unseen:
    """The effect of one more, completely wrong unit of a randomly drawn class."""

    drop: float  # mean of the fraction lost by a score from 0 to 1, and of its square
    square: float
    loss: float  # increase of the mean loss


class Units:
    """Groups of dependent rows, resampled as a whole; by default each row is a unit. Raises DataError if lengths differ."""

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
        """Return the variance of a metric from its influences; infinite for a single unit."""
        return math.inf if self.n < 2 else float((self.sums(rows) ** 2).sum() * self.n / (self.n - 1))

    def per_class(self, y_true: Labels) -> NDArray[np.int64]:
        """Return the number of units of each class that has any."""
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
    """Return all metrics of ``scores.METRICS`` by name, with their intervals (:data:`INTERVAL_METHOD`); NaN if undefined.

    ``probabilities``, shape (n_samples, n_classes), are predictions of a head not fitted on these rows: then intervals
    are of this head. Or out-of-fold predictions: then they are of the fitting procedure, and ``variance_factor`` is
    :data:`CV_VARIANCE`. Rows of one of the ``units`` are not independent. Average precision is that of the class
    ``positive``.

    Raises DataError if shapes do not match, or a probability is not finite.
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
    """Return the effect of one more, completely wrong unit on a metric."""
    n = np.array([units.n]) if name == "accuracy" else units.per_class(y_true)
    drops = 1.0 / (len(n) * n)
    loss = max(MISTAKE_LOSS, float(_row_losses(y_true, probabilities).max()))
    return Unseen(float(drops.mean()), float((drops**2).mean()), loss / units.n)


def estimate(name: str, value: float, variance: float, allowed: Unseen, variance_factor: float = 1.0) -> Estimate:
    """Return a metric with its interval, from its variance."""
    if math.isnan(value):
        return Estimate(value, value, value)
    low, high = (_log_interval if name == "log_loss" else _share_interval)(value, variance, allowed, variance_factor)
    return Estimate(value, min(low, value), max(high, value))


def _share_interval(value: float, variance: float, allowed: Unseen, variance_factor: float) -> tuple[float, float]:
    """Return the interval of a proportion with the effective sample size given by the variance.

    The end towards 1/2 includes one more mistake. Near 0 and 1 the coverage of the other end of Wilson's interval is
    too low: 92 % for a proportion of 0.991 of 60.
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
    """Return the interval of a positive value on the logarithmic scale; the upper end includes one more mistake."""
    if math.isinf(variance):
        return 0.0, math.inf
    more = value + allowed.loss
    width = Z_95 * math.sqrt(variance_factor * variance) / value if value > 0 else 0.0
    wider = Z_95 * math.sqrt(variance_factor * (variance + allowed.loss**2)) / more
    return value * math.exp(-width), more * math.exp(wider)


def f1_interval(n_right: float, n_either: float) -> tuple[float, float]:
    """Return the interval of F1 = 2j / (1 + j), where j is the proportion of correct ones among true or predicted ones.

    Lam et al., "Confidence intervals for the F1 score: a comparison of four methods", 2023, section 3 (indirect
    Wilson).
    """
    low, high = wilson(n_right / n_either if n_either else 0.0, n_either)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def _calibration_estimate(
    y_true: Labels, probabilities: NDArray[np.floating[Any]], units: Units, value: float
) -> Estimate:
    """Return the calibration error with the range of multiples of the bins' gaps that are compatible with it.

    Noise is that of a calibrated head with as many independent images as there are units, so that bins without a
    mistake vary too. The lower end uses binomial noise (few mistakes are skewed), the upper end normal noise (bins
    where a mistake is unlikely would have none).
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
