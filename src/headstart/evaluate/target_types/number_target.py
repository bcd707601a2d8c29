"""The target ``number``: a number per image; its metrics, the influence of each row on them, and their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from headstart.errors import DataError, ParameterError
from headstart.evaluate.intervals import Floats, Influence, Units
from headstart.scores import NUMBER_METRICS, Estimate, Metric, NumberScore
from headstart.types import NUMBER

#: Description of the intervals of a comparison, shown in reports.
NUMBER_INTERVAL_METHOD = (
    "95 % intervals of the fitting procedure's score on other images of the same kind: the variance of a metric is that of "
    "the sum of the rows' influences over units of related images (infinitesimal jackknife), times 1.4 since the heads of "
    "cross-validation share training images, with Student's t of as many degrees of freedom as there are other units. "
    "Errors and 1 − R² on the logarithmic scale, the rank correlation on Fisher's. The intervals are not corrected for "
    "choosing the best head."
)

#: Strata of splits and folds: tenths of the images by their number.
N_STRATA = 10


class Number:
    """A number per image: the column ``target`` of a manifest."""

    name = NUMBER
    tasks: Sequence[str] = ("regression",)
    baseline = "mean"
    n_classes_needed = 1
    all_metrics: Sequence[Metric] = NUMBER_METRICS
    choices: Sequence[str] = tuple(metric.name for metric in NUMBER_METRICS)
    interval_method = NUMBER_INTERVAL_METHOD

    def outputs(
        self, labels: NDArray[np.int64], class_names: Sequence[str], targets: NDArray[np.float64] | None
    ) -> tuple[NDArray[np.int64], tuple[str, ...], NDArray[np.float64]]:
        """Return 0 for each row with a number, −1 for the others; the name of the output; and the numbers."""
        numbers = np.full(len(labels), np.nan) if targets is None else targets
        return np.where(np.isnan(numbers), -1, 0), ("target",), numbers

    def weights(self, y: NDArray[Any], weights: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        """Return the weights as they are."""
        return weights

    def for_head(self, names: Sequence[str]) -> Number:
        """Return the target itself."""
        return self

    def stratify(self, y: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the tenth of each row by its number, −1 for rows without; raise DataError if there are no two numbers."""
        known = ~np.isnan(y)
        values, ranks = np.unique(y[known], return_inverse=True)
        if len(values) < 2:
            found = "different numbers: all are the same" if len(values) else "numbers: no image has one"
            raise DataError(
                f"The target number needs images with {found}. Expected: a manifest with a column target, at the extraction "
                "of the features."
            )
        below = np.cumsum(np.bincount(ranks)) - np.bincount(ranks)
        strata = np.full(len(y), -1, np.int64)
        strata[known] = below[ranks] * min(N_STRATA, len(values)) // int(known.sum())
        return strata

    def positive_index(self, positive: str | None, class_names: Sequence[str]) -> None:
        """Return None; raise ParameterError if a positive class is named."""
        if positive is not None:
            raise ParameterError(
                f"A number has no positive class. Received: {positive!r}.", hint="Leave out `positive`."
            )

    def metrics(
        self,
        y_true: NDArray[np.float64],
        outputs: NDArray[np.floating[Any]],
        names: Sequence[str],
        positive: int | None = None,
        units: NDArray[np.integer[Any]] | None = None,
    ) -> NumberScore:
        """Return the score of predicted numbers, shape (n_samples, 1)."""
        found = self.estimates(y_true, outputs, units)
        values = {name: one.value for name, one in found.items()}
        defined = {name: one for name, one in found.items() if math.isfinite(one.value)}
        return NumberScore(
            n_samples=len(y_true),
            rmse=values["rmse"],
            mae=values["mae"],
            r2=values["r2"] if "r2" in defined else None,
            spearman=values["spearman"] if "spearman" in defined else None,
            intervals={name: (one.low, one.high) for name, one in defined.items()},
        )

    def influences(
        self, y_true: NDArray[np.float64], outputs: NDArray[np.floating[Any]], positive: int | None = None
    ) -> dict[str, Influence]:
        """Return all metrics with the influence of each row; R² and the rank correlation are NaN if undefined.

        Raises DataError if there are no rows, shapes do not match, or a number is not finite.
        """
        y_true, predicted = np.asarray(y_true, np.float64), np.asarray(outputs, np.float64)
        if not len(y_true) or predicted.shape != (len(y_true), 1):
            raise DataError(
                f"Expected at least one number, and predictions of shape (n, 1). Received: {len(y_true)} numbers, "
                f"{predicted.shape}."
            )
        if not (np.isfinite(y_true).all() and np.isfinite(predicted).all()):
            raise DataError("Expected finite numbers and predictions. Received: some that are not.")
        predicted = predicted[:, 0]
        errors = predicted - y_true
        squared = errors**2
        mae, mse = float(np.abs(errors).mean()), float(squared.mean())
        rmse = math.sqrt(mse)
        n = len(errors)
        return {
            "rmse": Influence(rmse, (squared - mse) / (2 * rmse or 1.0) / n),
            "mae": Influence(mae, (np.abs(errors) - mae) / n),
            "r2": determination(y_true, squared),
            "spearman": rank_correlation(y_true, predicted),
        }

    def estimates(
        self,
        y_true: NDArray[np.float64],
        outputs: NDArray[np.floating[Any]],
        units: NDArray[np.integer[Any]] | None = None,
        *,
        positive: int | None = None,
        variance_factor: float = 1.0,
    ) -> dict[str, Estimate]:
        """Return all metrics with their 95 % intervals (:data:`NUMBER_INTERVAL_METHOD`)."""
        found, together = self.influences(y_true, outputs), Units(units, len(y_true))
        return {
            name: number_estimate(name, one.value, together.variance(one.rows), together.n, variance_factor)
            for name, one in found.items()
        }

    def finish(
        self,
        name: str,
        value: float,
        variance: float,
        y_true: NDArray[np.float64],
        outputs: Any,
        units: Units,
        factor: float,
    ) -> Estimate:
        """Return a metric of cross-validation with its interval, from its variance."""
        return number_estimate(name, value, variance, units.n, factor)

    def unit_of(self, name: str, y_true: NDArray[np.float64]) -> float:
        """Return the size of a large difference between two heads: the spread of the numbers for errors, otherwise 1."""
        return float(np.std(y_true)) if name in ("mae", "rmse") else 1.0

    def know_nothing(
        self, y: NDArray[np.float64], weights: NDArray[np.float64] | None, n_outputs: int
    ) -> NDArray[np.float64]:
        """Return the output of the baseline, shape (1,): the mean number."""
        return np.array([np.average(y, weights=weights)])


def determination(y_true: Floats, squared: Floats) -> Influence:
    """Return R² and the influence of each row; NaN where all true numbers are equal."""
    centred = (y_true - y_true.mean()) ** 2
    total = centred.sum()
    if not total > 0:
        return Influence(math.nan, np.zeros(len(y_true)))
    r2 = 1.0 - float(squared.sum() / total)
    return Influence(r2, ((1.0 - r2) * centred - squared) / total)


def rank_correlation(a: Floats, b: Floats) -> Influence:
    """Return Spearman's rank correlation, ties with their mean rank, and the influence of each row; NaN if one is constant.

    Each row also shifts the ranks of others: the influence is the derivative of the correlation of both distribution
    functions with respect to the row's weight.
    """
    (u, above_u), (v, above_v) = _ranks(a), _ranks(b)
    n, mean = len(a), 0.5
    products = [(u, v, above_u, above_v), (u, u, above_u, above_u), (v, v, above_v, above_v)]
    values = [float(np.mean(left * right)) - mean**2 for left, right, *_ in products]
    if min(values[1], values[2]) <= 1e-12:
        return Influence(math.nan, np.zeros(n))
    slopes = [left * right + shift_left(right) + shift_right(left) for left, right, shift_left, shift_right in products]
    moments = [(slope - slope.mean()) / n for slope in slopes]
    scale = math.sqrt(values[1] * values[2])
    rho = values[0] / scale
    rows = moments[0] / scale - 0.5 * rho * (moments[1] / values[1] + moments[2] / values[2])
    return Influence(float(np.clip(rho, -1.0, 1.0)), rows)


def _ranks(values: Floats) -> tuple[Floats, Any]:
    """Return the share of rows below each one, ties half; and what sums, for each row, another column over rows above it."""
    _, place = np.unique(values, return_inverse=True)
    count = np.bincount(place)
    share = (np.cumsum(count) - count / 2) / len(values)

    def above(column: Floats) -> Floats:
        sums = np.bincount(place, column)
        result: Floats = ((sums.sum() - np.cumsum(sums) + sums / 2) / len(values))[place]
        return result

    return share[place], above


def number_estimate(name: str, value: float, variance: float, n_units: int, factor: float = 1.0) -> Estimate:
    """Return a metric of predicted numbers with its interval, from its variance and the number of independent units."""
    if math.isnan(value):
        return Estimate(value, value, value)
    low, high = {"r2": (-math.inf, 1.0), "spearman": (-1.0, 1.0)}.get(name, (0.0, math.inf))
    if math.isinf(variance) or value in (low, high):
        return Estimate(value, low, high)
    width = float(stats.t.ppf(0.975, n_units - 1)) * math.sqrt(factor * variance)
    if name == "spearman":
        middle, half = math.atanh(value), width / (1.0 - value**2)
        return Estimate(value, math.tanh(middle - half), math.tanh(middle + half))
    if name == "r2":
        half = width / (1.0 - value)
        return Estimate(value, 1.0 - (1.0 - value) * _exp(half), 1.0 - (1.0 - value) * _exp(-half))
    return Estimate(value, value * _exp(-width / value), value * _exp(width / value))


def _exp(exponent: float) -> float:
    """Return its exponential; infinity where that is too large for a float."""
    return math.exp(exponent) if exponent < 700 else math.inf
