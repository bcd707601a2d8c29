"""The target ``single-label``: one class per image, and the metrics of predicted classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

from headstart.errors import DataError
from headstart.evaluate.intervals import (
    INTERVAL_METHOD,
    Units,
    estimate,
    estimates,
    f1_interval,
    influences,
    unseen,
)
from headstart.evaluate.splits import labelled
from headstart.scores import (
    CHOICE_METRICS,
    METRICS,
    Estimate,
    Metric,
    PositiveRates,
    Score,
    class_index,
    proportion,
    wilson,
)
from headstart.types import SINGLE_LABEL


def score(
    y_true: NDArray[np.integer[Any]],
    probabilities: NDArray[np.floating[Any]],
    class_names: Sequence[str],
    positive: int | None = None,
    units: NDArray[np.integer[Any]] | None = None,
) -> Score:
    """Return the metrics of predictions, the largest probability of each row, the first one if tied.

    ``y_true`` are true class indices, and ``probabilities`` have shape (n_samples, n_classes). Average precision and
    rates are those of the class ``positive``; by default the one-vs-rest mean over all classes, and no rates. Rows of one
    of the ``units`` are dependent; the intervals of the metrics account for it, those of single classes do not.

    Raises DataError if there is nothing to score, shapes do not match, or a probability is not finite.
    """
    n_classes = len(class_names)
    if not len(y_true) or probabilities.shape != (len(y_true), n_classes):
        raise DataError(
            f"Expected at least one label, and probabilities of shape (n, {n_classes}). "
            f"Received: {len(y_true)} labels, {probabilities.shape}."
        )
    found = {
        name: one
        for name, one in estimates(y_true, probabilities, units, positive=positive).items()
        if math.isfinite(one.value)
    }
    values = {name: one.value for name, one in found.items()}
    predicted = probabilities.argmax(axis=1)
    counts = metrics.confusion_matrix(y_true, predicted, labels=np.arange(n_classes))
    return Score(
        n_samples=len(y_true),
        accuracy=values["accuracy"],
        accuracy_interval=_bounds(found["accuracy"]),
        balanced_accuracy=values["balanced_accuracy"],
        f1_macro=values["f1_macro"],
        log_loss=values["log_loss"],
        per_class=[_class_score(name, counts, label) for label, name in enumerate(class_names)],
        confusion=counts.tolist(),
        class_names=tuple(class_names),
        roc_auc_ovr=values.get("roc_auc_ovr"),
        ece=values["ece"],
        average_precision=values.get("average_precision"),
        intervals={name: _bounds(one) for name, one in found.items() if math.isfinite(one.high)},
        positive=None if positive is None else positive_rates(counts, positive, class_names[positive]),
    )


def _class_score(name: str, counts: NDArray[np.int64], label: int) -> dict[str, Any]:
    """Return the rates of a class from the confusion matrix, with their intervals."""
    right, support, called = int(counts[label, label]), int(counts[label].sum()), int(counts[:, label].sum())
    others, either = int(counts.sum()) - support, support + called - right
    kept = others - (called - right)
    parts = {"precision": (right, called), "recall": (right, support), "specificity": (kept, others)}
    shares = {key: n / of if of else 0.0 for key, (n, of) in parts.items()}
    intervals = {f"{key}_interval": wilson(shares[key], of) for key, (_, of) in parts.items()}
    f1 = 2 * right / (support + called) if support + called else 0.0
    return {
        "class": name,
        **shares,
        "f1": f1,
        "support": support,
        **intervals,
        "f1_interval": f1_interval(right, either),
    }


def _bounds(one: Estimate) -> tuple[float, float]:
    return one.low, one.high


def metric_values(
    y_true: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]], positive: int | None = None
) -> dict[str, float]:
    """Return all metrics of ``scores.METRICS`` by name; see :func:`headstart.evaluate.intervals.influences`."""
    found = influences(y_true, probabilities, positive)
    return {metric.name: found[metric.name].value for metric in METRICS}


def positive_rates(counts: NDArray[np.int64], label: int, class_name: str) -> PositiveRates:
    """Return the one-vs-rest rates of a class from the confusion matrix (rows are true classes), with Wilson intervals."""
    right, support, called = int(counts[label, label]), int(counts[label].sum()), int(counts[:, label].sum())
    total = int(counts.sum())
    kept = total - support - called + right
    return PositiveRates(
        class_name,
        sensitivity=proportion(right, support),
        specificity=proportion(kept, total - support),
        precision=proportion(right, called),
        npv=proportion(kept, total - called),
    )


class SingleLabel:
    """One class per image: the label in the cache."""

    name = SINGLE_LABEL
    tasks: Sequence[str] = ("classification",)
    baseline = "majority"
    n_classes_needed = 2
    all_metrics: Sequence[Metric] = METRICS
    choices: Sequence[str] = CHOICE_METRICS
    interval_method: str = INTERVAL_METHOD
    metrics = staticmethod(score)
    influences = staticmethod(influences)
    estimates = staticmethod(estimates)

    def encode(
        self, labels: NDArray[np.int64], class_names: Sequence[str]
    ) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Return the class to predict for each row, −1 for none, and the names of these classes: the labels as they are."""
        return labels, tuple(class_names)

    def outputs(
        self, labels: NDArray[np.int64], class_names: Sequence[str], targets: NDArray[np.float64] | None = None
    ) -> tuple[NDArray[np.int64], tuple[str, ...], NDArray[np.int64]]:
        """Return the encoded labels and their names; the outputs are these labels."""
        y, names = self.encode(labels, class_names)
        return y, names, y

    def weights(self, y: NDArray[Any], weights: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        """Return the weights as they are."""
        return weights

    def for_head(self, names: Sequence[str]) -> SingleLabel:
        """Return the target itself."""
        return self

    def stratify(self, y: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the classes; raise DataError where fewer than two have a labelled image."""
        labelled(y)
        return y

    def positive_index(self, positive: str | None, class_names: Sequence[str]) -> int | None:
        """Return the index of the positive class; raise ParameterError if there is no such class."""
        return class_index(positive, class_names)

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
        """Return a metric with its interval (:data:`INTERVAL_METHOD`)."""
        return estimate(name, value, variance, unseen(name, y_true, outputs, units), factor)

    def unit_of(self, name: str, y_true: NDArray[np.int64]) -> float:
        """Return 1."""
        return 1.0

    def know_nothing(
        self, y: NDArray[np.int64], weights: NDArray[np.float64] | None, n_outputs: int
    ) -> NDArray[np.float64]:
        """Return the share of each class in the weight of the rows."""
        weights = np.ones(len(y)) if weights is None else weights
        shares: NDArray[np.float64] = np.bincount(y, weights, n_outputs) / weights.sum()
        return shares
