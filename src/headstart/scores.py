"""Scores of heads as immutable values, and the metrics available for model selection."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headstart.errors import ParameterError
from headstart.texts import class_name, did_you_mean, json_value, listed

#: Metrics that depend on the probabilities; the others depend on the predicted classes only.
PROBABILITY_METRICS = frozenset({"roc_auc_ovr", "average_precision", "log_loss"})

#: Classes named in a message.
MAX_LISTED = 20

#: Equally wide bins of confidence: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, sec. 5. The expected
#: calibration error is the mean absolute difference of accuracy and confidence over the bins. It is positive even for a
#: calibrated head, more so with fewer images.
ECE_BINS = 15

#: Standard normal quantile of 97.5 %.
Z_95 = 1.959963984540054

#: Significance level of tests.
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PositiveRates:
    """One-vs-rest rates of the positive class; NaN where the denominator is 0."""

    class_name: str
    sensitivity: Estimate  # recall, true negative rate, positive and negative predictive value
    specificity: Estimate
    precision: Estimate
    npv: Estimate


@dataclass(frozen=True, slots=True)
class Score:
    """Metrics of predicted probabilities; keys as in scikit-learn.

    Attributes
    ----------
    n_samples : int
        Images scored.
    accuracy : float
        As defined by ``sklearn.metrics``.
    accuracy_interval : tuple[float, float]
        95 % interval of accuracy (evaluate/intervals.py).
    balanced_accuracy : float
    f1_macro : float
    log_loss : float
    per_class : Sequence[Mapping[str, Any]]
        ``class``, ``precision``, ``recall``, ``specificity``, ``f1`` and ``support`` of each class, in the order of
        ``class_names``; and the interval of each metric as ``…_interval``.
    confusion : Sequence[Sequence[int]]
        Rows are true classes, columns predicted ones.
    class_names : tuple[str, ...]
        Names of the rows and columns.
    roc_auc_ovr : float | None
        One-vs-rest area under the ROC curve; expected calibration error; average precision of the positive class, or the
        mean over all classes (evaluate/intervals.py). None with a single class, and in scores saved by older versions.
    ece : float | None
    average_precision : float | None
    intervals : Mapping[str, tuple[float, float]]
        Metric → 95 % interval of this head on other images of the same kind. Empty in scores saved by older versions.
    positive : PositiveRates | None
        Rates of the positive class; None if none was named.
    """

    n_samples: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    balanced_accuracy: float
    f1_macro: float
    log_loss: float
    per_class: Sequence[Mapping[str, Any]]
    confusion: Sequence[Sequence[int]]
    class_names: tuple[str, ...]
    roc_auc_ovr: float | None = None
    ece: float | None = None
    average_precision: float | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    positive: PositiveRates | None = None

    @property
    def main(self) -> Estimate:
        """The first metric, by which a head is told in one figure: accuracy."""
        return Estimate(self.accuracy, *self.accuracy_interval)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, for ``metrics.json``; NaN becomes None."""
        values: dict[str, Any] = json_value(asdict(self))
        return values


@dataclass(frozen=True, slots=True)
class OrderScore(Score):
    """Metrics of predicted levels, the most probable ones: those of classes, and two that know the order.

    Attributes
    ----------
    qwk : float | None
        Quadratic weighted kappa, as ``sklearn.metrics.cohen_kappa_score``; None if undefined.
    mae_levels : float
        Mean distance of true and predicted level, in levels.
    """

    qwk: float | None = None
    mae_levels: float = 0.0

    @property
    def main(self) -> Estimate:
        """The first metric: kappa."""
        value = math.nan if self.qwk is None else self.qwk
        return Estimate(value, *self.intervals.get("qwk", (math.nan, math.nan)))


@dataclass(frozen=True, slots=True)
class AnomalyScore(Score):
    """Metrics of anomaly scores: of the ranking, and at the threshold of the head, the rates of images that are not normal.

    The anomaly scores are no probabilities, so log-loss and calibration error mean nothing.
    """

    @property
    def main(self) -> Estimate:
        """The first metric: area under the ROC curve."""
        value = math.nan if self.roc_auc_ovr is None else self.roc_auc_ovr
        return Estimate(value, *self.intervals.get("roc_auc_ovr", (math.nan, math.nan)))


@dataclass(frozen=True, slots=True)
class NumberScore:
    """Metrics of predicted numbers; as defined by scikit-learn and SciPy.

    Attributes
    ----------
    n_samples : int
        Images scored.
    rmse, mae : float
        Root mean squared and mean absolute error, in the unit of the numbers.
    r2, spearman : float | None
        Coefficient of determination, and rank correlation; None if undefined, e.g. where all true numbers are equal.
    intervals : Mapping[str, tuple[float, float]]
        Metric → 95 % interval of this head on other images of the same kind.
    """

    n_samples: int
    rmse: float
    mae: float
    r2: float | None
    spearman: float | None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def main(self) -> Estimate:
        """The first metric, by which a head is told in one figure: root mean squared error."""
        return Estimate(self.rmse, *self.intervals["rmse"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, for ``metrics.json``; NaN becomes None."""
        values: dict[str, Any] = json_value(asdict(self))
        return values


#: The score of a head: :class:`Score`, :class:`OrderScore` or :class:`NumberScore`. Which one, its target decides, and no
#: type checker can know.
AnyScore: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class Metric:
    """A score by which heads are compared."""

    #: As in scikit-learn: ``accuracy``, ``balanced_accuracy``, ``f1_macro``, ``roc_auc_ovr``, ``average_precision``,
    #: ``log_loss``; and ``ece``
    name: str
    title: str  # display name
    higher_is_better: bool = True  # direction of the metric
    bounds: tuple[float, float] = (0.0, 1.0)  # range of the metric

    def gain(self, value: float) -> float:
        """Return the value with its sign chosen so that higher is better."""
        return value if self.higher_is_better else -value

    def clip(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return values clipped to the range of the metric."""
        return np.clip(values, *self.bounds)


#: All metrics, in display order.
METRICS = (
    Metric("accuracy", "accuracy"),
    Metric("balanced_accuracy", "balanced accuracy"),
    Metric("f1_macro", "macro F1"),
    Metric("roc_auc_ovr", "ROC-AUC (one-vs-rest)"),
    Metric("average_precision", "average precision"),
    Metric("log_loss", "log-loss", higher_is_better=False, bounds=(0.0, math.inf)),
    Metric("ece", "expected calibration error", higher_is_better=False),
)

#: Metrics available for model selection. Not ``ece``: always predicting the class frequencies has no calibration error.
CHOICE_METRICS = tuple(metric.name for metric in METRICS if metric.name != "ece")


#: Metrics of predicted numbers, in display order; all are available for model selection. The root mean squared error is
#: first: it is smallest for the mean of what is possible, which the heads estimate. The mean absolute error prefers one
#: nearest neighbour to the mean of ten where many numbers are equal (solar cells: RMSE 0.39 instead of 0.32).
NUMBER_METRICS = (
    Metric("rmse", "root mean squared error", higher_is_better=False, bounds=(0.0, math.inf)),
    Metric("mae", "mean absolute error", higher_is_better=False, bounds=(0.0, math.inf)),
    Metric("r2", "R²", bounds=(-math.inf, 1.0)),
    Metric("spearman", "rank correlation (Spearman)", bounds=(-1.0, 1.0)),
)

#: Metrics of ordered levels, in display order; all are available for model selection.
ORDER_METRICS = (
    Metric("qwk", "quadratic weighted kappa", bounds=(-1.0, 1.0)),
    Metric("mae_levels", "error in levels", higher_is_better=False, bounds=(0.0, math.inf)),
    *(metric for metric in METRICS if metric.name in ("accuracy", "balanced_accuracy", "f1_macro", "log_loss")),
)

#: Metrics of anomaly scores, in display order; all are available for model selection.
ANOMALY_METRICS = tuple(
    metric
    for name in ("roc_auc_ovr", "average_precision", "balanced_accuracy", "accuracy")
    for metric in METRICS
    if metric.name == name
)

#: Metrics by name.
BY_NAME = {metric.name: metric for metric in (*METRICS, *NUMBER_METRICS, *ORDER_METRICS)}


@dataclass(frozen=True, slots=True)
class Criterion:
    """The metric used for model selection."""

    metric: str = "accuracy"  # one of those of the target
    positive: int | None = None  # class index for average precision; None for the mean over all classes
    target: Any = None  # what is predicted (evaluate/targets.py); None for one class per image


#: The default criterion.
ACCURACY = Criterion()


def wilson(share: float, n: float) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion (Wilson, JASA 22, 1927); from 0 to 1 if ``n`` is 0."""
    if n <= 0:
        return 0.0, 1.0
    square = Z_95 * Z_95
    centre = share + square / (2 * n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    scale = 1 + square / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def proportion(n: int, of: int) -> Estimate:
    """Return a proportion with its 95 % interval; NaN if ``of`` is 0."""
    return Estimate(n / of, *wilson(n / of, of)) if of else Estimate(math.nan, math.nan, math.nan)


def class_index(name: str | None, class_names: Sequence[str]) -> int | None:
    """Return the index of the positive class, or None if none is named; raise ParameterError if there is no such class."""
    if name is None:
        return None
    kept = name if name in class_names else class_name(name)
    if kept not in class_names:
        raise ParameterError(
            f"Expected a positive class among {listed(class_names, MAX_LISTED)}. Received: {name!r}."
            f"{did_you_mean([name], class_names)}"
        )
    return list(class_names).index(kept)


def metric_title(name: str) -> str:
    """Return the display name of a metric; its name if it is unknown."""
    return BY_NAME[name].title if name in BY_NAME else name


def metric_named(name: str, among: Sequence[str] = CHOICE_METRICS) -> Metric:
    """Return the metric of a name; raise ParameterError if it is not ``among`` those of model selection."""
    if name not in among:
        raise ParameterError(
            f"Expected a metric among {', '.join(among)}. Received: {name!r}.{did_you_mean([name], among)}"
        )
    return BY_NAME[name]
