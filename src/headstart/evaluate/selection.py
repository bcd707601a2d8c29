"""The score of the best head, less what it owes to being the best on these images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.evaluate.intervals import CV_VARIANCE, Units, estimate, unseen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.criteria import Metric
    from headstart.evaluate.influence import Influence, Labels
    from headstart.scores import Estimate

#: How the score of the recommended head is corrected, for a person.
SELECTION_METHOD = (
    "Bootstrap bias correction for the choice of the head (BBC-CV; Tsamardinos, Greasidou & Borboudakis, Machine Learning "
    "107, 2018): the best head of every draw of the images, or each of equally good ones, is scored on the images that were "
    "not drawn. The interval is of the whole procedure, the choice of the head included, with as many training images as a "
    "fold has; fitted on all images, a head is as good or slightly better."
)

#: Draws of the bootstrap.
N_DRAWS = 500

#: Scores of a draw that differ by less are equal: they are sums of rounded numbers.
ROUNDING = 1e-9

#: Units times draws in memory at a time: 32 MB.
BLOCK = 4_000_000


def corrected(
    metric: Metric,
    found: Sequence[Influence],
    y_true: Labels,
    probabilities: NDArray[np.floating[Any]],
    units: Units,
    random_state: int = 0,
) -> Estimate:
    """Return what to expect of the best of several heads on other images (:data:`SELECTION_METHOD`).

    Scores of draws are taken to the first order, by the influence of each unit; of accuracy and log-loss that is exact. The
    variance is the mean of the heads', by how often each is the best.

    Parameters
    ----------
    metric : Metric
        By which the best is chosen.
    found : sequence of Influence
        The score of every head there is to choose among, on the same rows.
    y_true, probabilities
        Of these rows: the classes, and what the best head says.
    units : Units
        Of the rows, drawn as a whole.
    random_state : int
        Seeds the draws.
    """
    values = np.array([one.value for one in found])
    sums = np.stack([units.sums(one.rows) for one in found], axis=1)
    value, shares = values[int(np.nanargmax([metric.gain(one.value) for one in found]))], np.ones(len(found))
    if len(found) > 1:
        value, shares = out_of_bag(metric, values, sums, random_state)
    variance = float(shares @ [units.variance(one.rows) for one in found])
    return estimate(metric.name, value, variance, unseen(metric.name, y_true, probabilities, units), CV_VARIANCE)


def out_of_bag(
    metric: Metric, values: NDArray[np.float64], sums: NDArray[np.float64], random_state: int
) -> tuple[float, NDArray[np.float64]]:
    """Return the mean score of each draw's best heads on the units not drawn, and how often each head was the best.

    Equal ones share a draw: where mistakes are few, that is most draws, and the first head alone would say little of the
    rest. Scores to the first order can leave their range, and would seem better than without a mistake.
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
