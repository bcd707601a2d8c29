"""Scores of heads as plain, frozen values, and the metrics that a choice of settings or heads may go by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import ParameterError
from headstart.texts import class_name, did_you_mean, json_value

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PositiveRates:
    """How well one class, the positive one, is told from all others; NaN where there are no images to take a share of.

    Attributes
    ----------
    class_name : str
        The positive class.
    sensitivity : Estimate
        Share of its images that are predicted so (recall).
    specificity : Estimate
        Share of the other images that are predicted as another class.
    precision : Estimate
        Share of its images among those predicted so (positive predictive value).
    npv : Estimate
        Share of other images among those predicted as another class (negative predictive value).
    """

    class_name: str
    sensitivity: Estimate
    specificity: Estimate
    precision: Estimate
    npv: Estimate


@dataclass(frozen=True, slots=True)
class Score:
    """How well predicted probabilities agree with the true classes; keys as scikit-learn names them.

    Attributes
    ----------
    n_samples : int
        Images scored.
    accuracy, balanced_accuracy, f1_macro, log_loss : float
        As ``sklearn.metrics`` defines them.
    accuracy_interval : tuple of float
        95 % interval of accuracy (evaluate/intervals.py names the method).
    per_class : sequence of mapping
        One of ``class``, ``precision``, ``recall``, ``specificity``, ``f1``, ``support`` per class, in the order of
        ``class_names``; and of each figure ``…_interval``.
    confusion : sequence of sequence of int
        Rows are true classes, columns predicted ones.
    class_names : tuple of str
        Names of the rows and columns.
    roc_auc_ovr, ece, average_precision : float or None
        Area under the ROC curve, one class against the rest; expected calibration error; average precision, of the positive
        class or the mean of all (evaluate/intervals.py). None where there is one class only, and in scores that older
        versions saved.
    intervals : mapping of str to (float, float)
        95 % interval of each score, by its name: of this head on other images of the same kind. Empty in scores that older
        versions saved.
    positive : PositiveRates or None
        Of the positive class; None where none was named.
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

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for ``metrics.json``; None for a rate that does not exist."""
        values: dict[str, Any] = json_value(asdict(self))
        return values


@dataclass(frozen=True, slots=True)
class Metric:
    """A score that heads are compared by.

    Attributes
    ----------
    name : str
        As scikit-learn spells it: ``accuracy``, ``balanced_accuracy``, ``f1_macro``, ``roc_auc_ovr``, ``average_precision``,
        ``log_loss``; and ``ece``.
    title : str
        For a person.
    higher_is_better : bool
        Whether more is better.
    """

    name: str
    title: str
    higher_is_better: bool = True

    def gain(self, value: float) -> float:
        """Return the value with the sign under which more is better."""
        return value if self.higher_is_better else -value

    def clip(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return values within the range of the score: log-loss is 0 or more, all others are from 0 to 1."""
        return np.clip(values, 0.0, np.inf if self.name == "log_loss" else 1.0)


#: In the order in which they are shown.
METRICS = (
    Metric("accuracy", "accuracy"),
    Metric("balanced_accuracy", "balanced accuracy"),
    Metric("f1_macro", "macro F1"),
    Metric("roc_auc_ovr", "ROC-AUC (one-vs-rest)"),
    Metric("average_precision", "average precision"),
    Metric("log_loss", "log-loss", higher_is_better=False),
    Metric("ece", "expected calibration error", higher_is_better=False),
)

#: What a choice of settings or heads may go by: a head that gives the class shares has no calibration error.
CHOICE_METRICS = tuple(metric.name for metric in METRICS if metric.name != "ece")

#: Of those, the ones that judge probabilities; the others judge predicted classes alone.
PROBABILITY_METRICS = frozenset({"roc_auc_ovr", "average_precision", "log_loss"})

#: Classes that a message names before the rest is counted.
MAX_LISTED = 20


@dataclass(frozen=True, slots=True)
class Criterion:
    """What a choice goes by.

    Attributes
    ----------
    metric : str
        One of :data:`CHOICE_METRICS`.
    positive : int or None
        Index of the class whose average precision it is; None for the mean of all classes.
    """

    metric: str = "accuracy"
    positive: int | None = None


#: The default.
ACCURACY = Criterion()


def class_index(name: str | None, class_names: Sequence[str]) -> int | None:
    """Return the index of the positive class; None where none is named.

    Raises
    ------
    ParameterError
        If there is no class of that name.
    """
    if name is None:
        return None
    kept = name if name in class_names else class_name(name)
    if kept not in class_names:
        more = f" and {len(class_names) - MAX_LISTED:,} more" if len(class_names) > MAX_LISTED else ""
        raise ParameterError(
            f"Expected a positive class among {', '.join(class_names[:MAX_LISTED])}{more}. Received: {name!r}."
            f"{did_you_mean([name], class_names)}"
        )
    return list(class_names).index(kept)


def metric_title(name: str) -> str:
    """Return what a metric is called for a person; its name where it is none."""
    return next((metric.title for metric in METRICS if metric.name == name), name)


def metric_named(name: str) -> Metric:
    """Return the metric of a name that a choice may go by.

    Raises
    ------
    ParameterError
        If there is no such metric, or it is not for choosing.
    """
    if name not in CHOICE_METRICS:
        raise ParameterError(
            f"Expected a metric among {', '.join(CHOICE_METRICS)}. Received: {name!r}.{did_you_mean([name], CHOICE_METRICS)}"
        )
    return {metric.name: metric for metric in METRICS}[name]
