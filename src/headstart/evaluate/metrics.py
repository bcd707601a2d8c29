"""How good probabilities are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn import metrics

from headstart.errors import DataError
from headstart.schema import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
        If there is nothing to score, or the shapes do not fit together.
    """
    n_classes = len(class_names)
    if not len(y_true) or probabilities.shape != (len(y_true), n_classes):
        raise DataError(
            f"Expected at least one label, and probabilities of shape (n, {n_classes}). "
            f"Received: {len(y_true)} labels, {probabilities.shape}."
        )
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
    )


def log_loss(y_true: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]]) -> float:
    """Return the mean of −log of the true class's probability, clipped as ``sklearn.metrics.log_loss`` does."""
    clipped = np.maximum(probabilities[np.arange(len(y_true)), y_true], np.finfo(probabilities.dtype).eps)
    return float(-np.log(clipped).mean())


def wilson_interval(n_right: int, n_samples: int, z: float = Z_95) -> tuple[float, float]:
    """Return the score interval of a proportion (Wilson, JASA 22, 1927), 95 % by default."""
    share = n_right / n_samples
    centre = share + z * z / (2 * n_samples)
    half = z * math.sqrt(share * (1 - share) / n_samples + z * z / (4 * n_samples**2))
    scale = 1 + z * z / n_samples
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
