"""The target ``order``: one of ordered levels per image; quadratic weighted kappa and the error in levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError, ParameterError
from headstart.evaluate.intervals import Influence, Units, estimates, influences
from headstart.evaluate.target_types.class_target import SingleLabel
from headstart.evaluate.target_types.number_target import number_estimate
from headstart.scores import ORDER_METRICS, Estimate, Metric, OrderScore
from headstart.texts import listed
from headstart.types import ORDER

#: Description of the intervals of a comparison, shown in reports, added to that of the metrics of classes.
ORDER_INTERVAL_METHOD = (
    " Kappa: on Fisher's scale, with Student's t of as many degrees of freedom as there are other units; the error in levels "
    "on the logarithmic scale."
)

#: Classes named in a message.
MAX_LISTED = 20


class Order(SingleLabel):
    """One of ordered levels per image: the classes of the cache.

    Parameters
    ----------
    levels : sequence of str, optional
        The classes from the lowest to the highest; by default class names that are numbers, sorted.
    """

    name = ORDER
    tasks: Sequence[str] = ("order", "classification")
    all_metrics: Sequence[Metric] = ORDER_METRICS
    choices: Sequence[str] = tuple(metric.name for metric in ORDER_METRICS)
    interval_method = SingleLabel.interval_method + ORDER_INTERVAL_METHOD

    def __init__(self, levels: Sequence[str] | None = None) -> None:
        if levels is not None and len(set(levels)) < max(2, len(levels)):
            raise ParameterError(f"Expected two or more different `levels`. Received: {', '.join(levels) or 'none'}.")
        self.levels = None if levels is None else tuple(levels)

    def for_head(self, names: Sequence[str]) -> Order:
        """Return the target of a saved head, whose levels are its class names."""
        return Order(names)

    def encode(
        self, labels: NDArray[np.int64], class_names: Sequence[str]
    ) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Return the number of the level of each row, −1 for none, and the levels; raise DataError if a class is none."""
        levels = self.levels or _sorted_numbers(class_names)
        place = {name: number for number, name in enumerate(levels)}
        used = np.unique(labels[labels >= 0]).tolist()
        unknown = [class_names[label] for label in used if class_names[label] not in place]
        if unknown:
            raise DataError(
                f"The levels {', '.join(levels)} do not name the class {listed(unknown, MAX_LISTED)}.",
                hint="Name every class in `levels`, from the lowest to the highest.",
            )
        return np.array([*(place.get(name, -1) for name in class_names), -1], np.int64)[labels], tuple(levels)

    def influences(  # type: ignore[override]
        self, y_true: NDArray[np.int64], outputs: NDArray[np.floating[Any]], positive: int | None = None
    ) -> dict[str, Influence]:
        """Return the metrics of classes, kappa and the error in levels, with the influence of each row."""
        found = influences(y_true, outputs, positive)
        predicted = outputs.argmax(axis=1)
        errors = np.abs(predicted - y_true).astype(np.float64)
        mean = float(errors.mean())
        return {
            "qwk": weighted_kappa(y_true, predicted),
            "mae_levels": Influence(mean, (errors - mean) / len(errors)),
            **found,
        }

    def estimates(  # type: ignore[override]
        self,
        y_true: NDArray[np.int64],
        outputs: NDArray[np.floating[Any]],
        units: NDArray[np.integer[Any]] | None = None,
        *,
        positive: int | None = None,
        variance_factor: float = 1.0,
    ) -> dict[str, Estimate]:
        """Return the metrics with their intervals."""
        found, together = self.influences(y_true, outputs, positive), Units(units, len(y_true))
        own = {
            name: self.finish(
                name, found[name].value, together.variance(found[name].rows), y_true, outputs, together, variance_factor
            )
            for name in ("qwk", "mae_levels")
        }
        return own | estimates(y_true, outputs, units, positive=positive, variance_factor=variance_factor)

    def finish(
        self,
        name: str,
        value: float,
        variance: float,
        y_true: NDArray[np.int64],
        outputs: NDArray[np.floating[Any]],
        units: Units,
        factor: float,
    ) -> Estimate:
        """Return a metric with its interval; an error in levels is below the number of levels."""
        if name == "qwk":
            return number_estimate("spearman", value, variance, units.n, factor)
        if name == "mae_levels":
            found = number_estimate("mae", value, variance, units.n, factor)
            return Estimate(value, found.low, min(found.high, float(outputs.shape[1] - 1)))
        return super().finish(name, value, variance, y_true, outputs, units, factor)

    def unit_of(self, name: str, y_true: NDArray[np.int64]) -> float:
        """Return the number of steps from the lowest to the highest level for the error in levels, otherwise 1."""
        return float(max(y_true.max(), 1)) if name == "mae_levels" else 1.0

    def metrics(  # type: ignore[override]
        self,
        y_true: NDArray[np.int64],
        outputs: NDArray[np.floating[Any]],
        names: Sequence[str],
        positive: int | None = None,
        units: NDArray[np.integer[Any]] | None = None,
    ) -> OrderScore:
        """Return the score of classes, with kappa and the error in levels."""
        base = SingleLabel.metrics(y_true, outputs, names, positive, units)
        found = self.estimates(y_true, outputs, units, positive=positive)
        own = {name: found[name] for name in ("qwk", "mae_levels") if math.isfinite(found[name].value)}
        values: dict[str, Any] = {one.name: getattr(base, one.name) for one in fields(base)}
        values["intervals"] = {**values["intervals"], **{name: (one.low, one.high) for name, one in own.items()}}
        values |= {name: one.value for name, one in own.items()}
        return OrderScore(**values)


def _sorted_numbers(class_names: Sequence[str]) -> tuple[str, ...]:
    """Return class names that are numbers in ascending order; raise ParameterError if one is none, or two are equal."""
    try:
        numbers = {name: float(name) for name in class_names}
    except ValueError:
        numbers = {}
    if not all(map(math.isfinite, numbers.values())) or len(set(numbers.values())) < max(1, len(class_names)):
        raise ParameterError(
            f"The order of the classes {listed(list(class_names), MAX_LISTED)} is not known: they are no different numbers.",
            hint="Name them from the lowest to the highest in `levels`.",
        )
    return tuple(sorted(class_names, key=numbers.__getitem__))


def weighted_kappa(y_true: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]]) -> Influence:
    """Return the quadratic weighted kappa (Cohen, Psychological Bulletin 70, 1968) and the influence of each row.

    NaN where all true and all predicted levels are one.
    """
    truth, called = y_true.astype(np.float64), predicted.astype(np.float64)
    squared = (truth - called) ** 2
    # Mean over all pairs of a true and a predicted level; each row is in both.
    of_truth = (truth - called.mean()) ** 2 + called.var()
    of_called = (called - truth.mean()) ** 2 + truth.var()
    observed, expected = float(squared.mean()), float(of_truth.mean())
    if not expected > 0:
        return Influence(math.nan, np.zeros(len(truth)))
    slopes = -squared / expected + observed * (of_truth + of_called) / expected**2
    return Influence(1.0 - observed / expected, (slopes - slopes.mean()) / len(truth))
