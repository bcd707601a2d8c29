"""Scores of heads: plain, frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from headstart.texts import json_value


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
        class or the mean of all (evaluate/influence.py). None where there is one class only, and in scores that older
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
