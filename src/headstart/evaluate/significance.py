"""Whether a difference between heads is more than chance: intervals and p-values of one test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from headstart.errors import DataError
from headstart.evaluate.intervals import CV_VARIANCE
from headstart.scores import Estimate

if TYPE_CHECKING:
    from headstart.evaluate.influence import Influence
    from headstart.evaluate.intervals import Units

#: What the intervals and p-values of differences are, for a person.
TEST_METHOD = (
    "Differences to the best head on the same images, with simultaneous 95 % intervals of all pairs of heads (Tukey–Kramer; "
    "Kramer, Biometrics 12, 1956), so that it does not matter that the best was found on these images. The p-value is of the "
    "same test: it is below 0.05 exactly where the interval does not hold 0. Variances are those of paired differences over "
    "units of images that belong together, 1.4 times, as the heads of cross-validation share training images, and of one "
    "more pair of units on which the heads differ"
)

#: A difference with a p-value below it is more than chance.
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Difference:
    """A score minus that of the best head.

    Attributes
    ----------
    estimate : Estimate
        With its simultaneous interval.
    p_value : float
        Corrected for all pairs of heads; below :data:`ALPHA` exactly where the interval does not hold 0.
    """

    estimate: Estimate
    p_value: float


def differences(found: Mapping[str, Influence], units: Units, best: str) -> dict[str, Difference]:
    """Return each other head's score minus the best one's (:data:`TEST_METHOD`).

    Parameters
    ----------
    found : mapping of str to Influence
        The score of every head, by its name, on the same rows in the same order.
    units : Units
        Of the rows.
    best : str
        Name of the head that the others are compared with.

    Raises
    ------
    DataError
        If there is no such head, or the heads were not scored on the same rows.
    """
    if best not in found or len({one.rows.shape for one in found.values()}) > 1:
        received = ", ".join(f"{name} of {len(one.rows)} rows" for name, one in found.items())
        raise DataError(f"Expected {best!r} among heads scored on the same rows. Received: {received}.")
    made = {}
    for name, one in found.items():
        difference = one.value - found[best].value
        if name != best and math.isfinite(difference):
            variance = CV_VARIANCE * units.variance(one.rows - found[best].rows) + 2 / units.n**2
            made[name] = range_test(difference, math.sqrt(variance), len(found))
    return made


def range_test(difference: float, standard_error: float, n_heads: int) -> Difference:
    """Return a difference with the interval and the p-value of one test of all pairs of heads."""
    if math.isinf(standard_error):
        return Difference(Estimate(difference, -math.inf, math.inf), 1.0)
    half = critical_range(n_heads) * standard_error / math.sqrt(2)
    p_value = float(stats.studentized_range.sf(math.sqrt(2) * abs(difference) / standard_error, n_heads, math.inf))
    p_value = min(max(p_value, 0.0), 1.0)
    # Both are of one integral; its rounding shall not part them.
    p_value = min(p_value, np.nextafter(ALPHA, 0)) if abs(difference) > half else max(p_value, ALPHA)
    return Difference(Estimate(difference, difference - half, difference + half), float(p_value))


@lru_cache
def critical_range(n_heads: int) -> float:
    """Return the studentized range that chance exceeds in 5 % of comparisons."""
    return float(stats.studentized_range.isf(ALPHA, n_heads, math.inf))
