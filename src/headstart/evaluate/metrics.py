"""How good probabilities are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn import metrics

from headstart.errors import DataError
from headstart.evaluate.weighted import WeightedMetrics, row_losses
from headstart.schema import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: What :func:`all_metrics` returns, in this order.
METRIC_NAMES = ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc_ovr", "log_loss", "ece")

#: Standard normal quantile of 97.5 %.
Z_95 = 1.959963984540054


def score(
    y_true: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]], class_names: Sequence[str]
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
    area = roc_auc_ovr(y_true, probabilities)
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
        log_loss=log_loss(y_true, probabilities),
        per_class=per_class,
        confusion=metrics.confusion_matrix(y_true, predicted, labels=labels).tolist(),
        class_names=tuple(class_names),
        roc_auc_ovr=None if math.isnan(area) else area,
        ece=ece(y_true, probabilities),
    )


def all_metrics(
    y_true: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]], n_classes: int
) -> dict[str, float]:
    """Return every score that heads are compared by, under the names of ``report.comparison.METRICS``.

    ``roc_auc_ovr`` is NaN where all rows are of one class.

    Parameters
    ----------
    y_true, probabilities
        As for :func:`score`.
    n_classes : int
        Columns of ``probabilities``.

    Raises
    ------
    DataError
        If there is nothing to score, the shapes do not fit together, or a probability is not finite.
    """
    if probabilities.shape[-1] != n_classes:
        raise DataError(f"Expected probabilities of {n_classes} classes. Received: shape {probabilities.shape}.")
    weighted = WeightedMetrics(y_true, probabilities)
    once = np.ones((len(y_true), 1))
    values = weighted(once) | {"roc_auc_ovr": weighted.roc_auc_ovr(once)}
    return {name: float(values[name][0]) for name in METRIC_NAMES}


def roc_auc_ovr(y_true: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]]) -> float:
    """Return the area under the ROC curve: of two classes the second's, of more the mean of each class against the rest.

    Classes without images count for nothing; NaN where all images are of one class.
    """
    return float(WeightedMetrics(y_true, probabilities).roc_auc_ovr(np.ones((len(y_true), 1)))[0])


def ece(y_true: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]]) -> float:
    """Return the expected calibration error of the most probable class, in 15 equally wide bins (evaluate/weighted.py).

    The mean distance, bin by bin, between how sure a head is and how often it is right. Chance distances count as well, so
    that it is above 0 for a head without fault, the more so the fewer images there are.
    """
    return float(WeightedMetrics(y_true, probabilities)(np.ones((len(y_true), 1)))["ece"][0])


def log_loss(y_true: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]]) -> float:
    """Return the mean of −log of the true class's probability, clipped as ``sklearn.metrics.log_loss`` does."""
    return float(row_losses(y_true, probabilities).mean())


def wilson_interval(n_right: int, n_samples: int, z: float = Z_95) -> tuple[float, float]:
    """Return the score interval of a proportion (Wilson, JASA 22, 1927), 95 % by default."""
    share = n_right / n_samples
    centre = share + z * z / (2 * n_samples)
    half = z * math.sqrt(share * (1 - share) / n_samples + z * z / (4 * n_samples**2))
    scale = 1 + z * z / n_samples
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
