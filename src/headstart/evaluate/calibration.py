"""Probabilities that mean what they say: softened or sharpened by one number, and held against what came true."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from headstart.errors import DataError
from headstart.evaluate.metrics import wilson_interval
from headstart.evaluate.weighted import ECE_BINS, check, confidence_bins
from headstart.heads import temperature

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often a head is right, by how sure it is; one entry per bin that holds an image, the least sure first.

    Attributes
    ----------
    confidence, accuracy : ndarray of shape (n_bins,), float64
        Mean of the largest probability, and share of right ones.
    count : ndarray of shape (n_bins,), int64
        Images.
    low, high : ndarray of shape (n_bins,), float64
        95 % interval of the accuracy (Wilson, JASA 22, 1927).
    """

    confidence: Floats
    accuracy: Floats
    count: NDArray[np.int64]
    low: Floats
    high: Floats


def fit_temperature(logits: NDArray[np.floating[Any]], y_true: NDArray[np.integer[Any]]) -> float:
    """Return the temperature ``t`` for which ``softmax(logits / t)`` has the smallest log-loss (heads/temperature.py).

    Above 1, the head was too sure. The most probable class stays what it is. Targets are smoothed a little, so that a head
    without a mistake has a best temperature too.

    Parameters
    ----------
    logits : ndarray of shape (n_samples, n_classes)
        Of images that the head was not fitted on; logarithms of probabilities are logits too.
    y_true : ndarray of shape (n_samples,), int
        Columns of the true classes.

    Raises
    ------
    DataError
        If there are no rows, the shapes do not fit together, or a logit is not finite.
    """
    check(y_true, logits, "logits")
    return temperature.fit_temperature(np.asarray(logits, np.float64), np.asarray(y_true, np.int64))


def apply_temperature(logits: NDArray[np.floating[Any]], t: float) -> Floats:
    """Return ``softmax(logits / t)``, shape (n_samples, n_classes).

    Raises
    ------
    DataError
        If the temperature is not a positive number.
    """
    if not (math.isfinite(t) and t > 0):
        raise DataError(f"A temperature is a positive number. Received: {t}.")
    probabilities: Floats = softmax(np.asarray(logits, np.float64) / t, axis=1)
    return probabilities


def reliability_curve(
    y_true: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]], n_bins: int = ECE_BINS
) -> Reliability:
    """Return how often the most probable class is right, by its probability, in equally wide bins; empty ones left out.

    The mean distance of accuracy and confidence, weighted by count, is the expected calibration error of as many bins.

    Parameters
    ----------
    y_true : ndarray of shape (n_samples,), int
        Index of the true class.
    probabilities : ndarray of shape (n_samples, n_classes)
        Of each class.
    n_bins : int
        Bins from 0 to 1.

    Raises
    ------
    DataError
        If there are no rows or bins, the shapes do not fit together, or a probability is not finite.
    """
    check(y_true, probabilities)
    if n_bins < 1:
        raise DataError(f"Expected at least one bin. Received: {n_bins}.")
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == y_true
    found, number = np.unique(confidence_bins(confidence, n_bins), return_inverse=True)
    count = np.bincount(number, minlength=len(found))
    n_right = np.bincount(number, right, len(found))
    bounds = [wilson_interval(int(k), int(n)) for k, n in zip(n_right, count, strict=True)]
    low, high = np.array(bounds).T
    return Reliability(np.bincount(number, confidence, len(found)) / count, n_right / count, count, low, high)
