"""How good probabilities are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn import metrics

from headstart.criteria import METRICS
from headstart.errors import DataError
from headstart.evaluate.weighted import WeightedMetrics
from headstart.schema import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Standard normal quantile of 97.5 %.
Z_95 = 1.959963984540054


def score(
    y_true: NDArray[np.integer[Any]],
    probabilities: NDArray[np.floating[Any]],
    class_names: Sequence[str],
    positive: int | None = None,
) -> Score:
    """Return accuracy and the rest.

    Parameters
    ----------
    y_true : ndarray of shape (n_samples,), int
        Index of the true class.
    probabilities : ndarray of shape (n_samples, n_classes)
        Of each class; rows sum to 1. The prediction is the largest, the first of equal ones.
    class_names : sequence of str
        Names of the classes.
    positive : int, optional
        The class whose average precision is given; the default is the mean of all classes, each against the rest.

    Raises
    ------
    DataError
        If there is nothing to score, the shapes do not fit together, or a probability is not finite.
    """
    n_classes = len(class_names)
    if not len(y_true) or probabilities.shape != (len(y_true), n_classes):
        raise DataError(
            f"Expected at least one label, and probabilities of shape (n, {n_classes}). "
            f"Received: {len(y_true)} labels, {probabilities.shape}."
        )
    values = metric_values(y_true, probabilities, positive)
    labels, predicted = np.arange(n_classes), probabilities.argmax(axis=1)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        y_true, predicted, labels=labels, zero_division=0.0
    )
    present = support > 0
    per_class = [
        {"class": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(class_names, precision, recall, f1, support, strict=True)
    ]
    n_right = int((predicted == y_true).sum())
    return Score(
        n_samples=len(y_true),
        accuracy=n_right / len(y_true),
        accuracy_interval=wilson_interval(n_right, len(y_true)),
        balanced_accuracy=float(recall[present].mean()),
        f1_macro=float(f1[present | np.isin(labels, predicted)].mean()),
        log_loss=values["log_loss"],
        per_class=per_class,
        confusion=metrics.confusion_matrix(y_true, predicted, labels=labels).tolist(),
        class_names=tuple(class_names),
        roc_auc_ovr=or_none(values["roc_auc_ovr"]),
        ece=values["ece"],
        average_precision=or_none(values["average_precision"]),
    )


def metric_values(
    y_true: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]], positive: int | None = None
) -> dict[str, float]:
    """Return every score of ``criteria.METRICS`` by its name.

    ``roc_auc_ovr`` and ``average_precision`` are NaN where all rows are of one class; classes without rows count for nothing.

    Parameters
    ----------
    y_true, probabilities, positive
        As for :func:`score`.

    Raises
    ------
    DataError
        If there is nothing to score, the shapes do not fit together, or a probability is not finite.
    """
    weighted = WeightedMetrics(y_true, probabilities, positive)
    once = np.ones((len(y_true), 1))
    values = weighted(once) | weighted.ranking(once)
    return {metric.name: float(values[metric.name][0]) for metric in METRICS}


def or_none(value: float) -> float | None:
    """Return a number; None for NaN, which JSON does not have."""
    return None if math.isnan(value) else value


def wilson_interval(n_right: int, n_samples: int, z: float = Z_95) -> tuple[float, float]:
    """Return the score interval of a proportion (Wilson, JASA 22, 1927), 95 % by default."""
    share = n_right / n_samples
    centre = share + z * z / (2 * n_samples)
    half = z * math.sqrt(share * (1 - share) / n_samples + z * z / (4 * n_samples**2))
    scale = 1 + z * z / n_samples
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
