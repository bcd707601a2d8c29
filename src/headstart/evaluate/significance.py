"""Tests of differences between heads, and the score of the best head corrected for its selection."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from headstart.errors import DataError
from headstart.evaluate.intervals import CV_VARIANCE, Influence, Labels, Units, estimate, unseen
from headstart.scores import ALPHA, Estimate, Metric

#: Description of the correction, shown in reports.
SELECTION_METHOD = (
    "Bootstrap bias correction for the choice of the head (BBC-CV; Tsamardinos, Greasidou & Borboudakis, Machine Learning "
    "107, 2018): in every bootstrap sample of the images, the best head (or each of equally good ones) is scored on the "
    "images not drawn. The interval is that of the whole procedure, including the choice of the head, with as many training "
    "images as a fold has; fitted on all images, a head is as good or slightly better."
)

#: Bootstrap samples.
N_DRAWS = 500

#: Tolerance for ties between scores.
ROUNDING = 1e-9

#: Units × samples in memory at a time: 32 MB.
BLOCK = 4_000_000

#: Description of intervals and p-values of differences, shown in reports.
TEST_METHOD = (
    "Differences to the best head on the same images, with simultaneous 95 % intervals for all pairs of heads (Tukey–Kramer; "
    "Kramer, Biometrics 12, 1956), which stay valid although the best head was chosen on these images. The p-value belongs "
    "to the same test: it is below 0.05 exactly if the interval does not contain 0. Variances are those of paired "
    "differences over units of related images, multiplied by 1.4 since the heads of cross-validation share training images, "
    "plus one more pair of units on which the heads differ"
)


def corrected(
    metric: Metric,
    found: Sequence[Influence],
    y_true: Labels,
    probabilities: NDArray[np.floating[Any]],
    units: Units,
    random_state: int = 0,
    finish: Callable[[float, float], Estimate] | None = None,
) -> Estimate:
    """Return the expected score of the best of several heads on other images (:data:`SELECTION_METHOD`).

    ``found`` are the scores of all heads on the same rows, and ``probabilities`` the predictions of the best one.
    Scores of bootstrap samples are first-order approximations by influences; exact for accuracy and log-loss. The
    variance is the mean over heads, weighted by how often each is the best. ``finish`` returns the metric with its interval
    from value and variance, by default that of a metric of classes.
    """
    values = np.array([one.value for one in found])
    sums = np.stack([units.sums(one.rows) for one in found], axis=1)
    value, shares = values[int(np.nanargmax([metric.gain(one.value) for one in found]))], np.ones(len(found))
    if len(found) > 1:
        value, shares = _out_of_bag(metric, values, sums, random_state)
    variance = float(shares @ [units.variance(one.rows) for one in found])
    if finish is not None:
        return finish(value, variance)
    return estimate(metric.name, value, variance, unseen(metric.name, y_true, probabilities, units), CV_VARIANCE)


def _out_of_bag(
    metric: Metric, values: NDArray[np.float64], sums: NDArray[np.float64], random_state: int
) -> tuple[float, NDArray[np.float64]]:
    """Return the mean out-of-bag score of the best heads of each draw, and how often each head was the best.

    Ties are divided equally: with few mistakes they are frequent, and the first head alone would not represent the
    others. First-order scores are clipped to the valid range.
    """
    rng, n = np.random.default_rng(random_state), len(sums)
    sign, some = metric.gain(1.0), max(1, BLOCK // n)
    scores, best = [], []
    for start in range(0, N_DRAWS, some):
        size = min(some, N_DRAWS - start)
        drawn = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)
        left_out = (counts == 0).astype(np.float64)
        found = (left_out.sum(axis=1) > 0).nonzero()[0]
        gains = sign * metric.clip(values + counts @ sums)[found]
        equal = gains >= gains.max(axis=1, keepdims=True) - ROUNDING
        shares = equal / equal.sum(axis=1, keepdims=True)
        means = (left_out @ sums)[found] * n / left_out.sum(axis=1)[found, None]
        scores.append((shares * metric.clip(values + means)).sum(axis=1))
        best.append(shares)
    return float(np.concatenate(scores).mean()), np.concatenate(best).mean(axis=0)


@dataclass(frozen=True, slots=True)
class Difference:
    """A score minus that of the best head."""

    estimate: Estimate  # the difference with its simultaneous interval
    p_value: float  # corrected for all pairs of heads; below :data:`ALPHA` exactly if the interval does not contain 0


def differences(found: Mapping[str, Influence], units: Units, best: str, unit: float = 1.0) -> dict[str, Difference]:
    """Return each other head's score minus that of the best one (:data:`TEST_METHOD`).

    ``unit`` is the size of a large difference: 1 for scores from 0 to 1, the spread of the true numbers for their errors.
    Raises DataError if ``best`` is not a head, or the heads were not scored on the same rows.
    """
    if best not in found or len({one.rows.shape for one in found.values()}) > 1:
        received = ", ".join(f"{name} of {len(one.rows)} rows" for name, one in found.items())
        raise DataError(f"Expected {best!r} among heads scored on the same rows. Received: {received}.")
    made = {}
    for name, one in found.items():
        difference = one.value - found[best].value
        if name != best and math.isfinite(difference):
            variance = CV_VARIANCE * units.variance(one.rows - found[best].rows) + 2 * (unit / units.n) ** 2
            made[name] = range_test(difference, math.sqrt(variance), len(found))
    return made


def range_test(difference: float, standard_error: float, n_heads: int) -> Difference:
    """Return a difference with the interval and the p-value of a test of all pairs of heads."""
    if math.isinf(standard_error):
        return Difference(Estimate(difference, -math.inf, math.inf), 1.0)
    half = _critical_range(n_heads) * standard_error / math.sqrt(2)
    p_value = float(stats.studentized_range.sf(math.sqrt(2) * abs(difference) / standard_error, n_heads, math.inf))
    p_value = min(max(p_value, 0.0), 1.0)
    # Interval and p-value are computed separately; keep them consistent despite rounding.
    p_value = min(p_value, np.nextafter(ALPHA, 0)) if abs(difference) > half else max(p_value, ALPHA)
    return Difference(Estimate(difference, difference - half, difference + half), float(p_value))


@lru_cache
def _critical_range(n_heads: int) -> float:
    """Return the studentized range exceeded by chance in 5 % of comparisons."""
    return float(stats.studentized_range.isf(ALPHA, n_heads, math.inf))
