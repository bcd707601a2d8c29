"""Heads that tell normal rows from others, fitted on normal rows alone: distances, and a threshold for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from sklearn.covariance import empirical_covariance, ledoit_wolf_shrinkage
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from headstart.errors import DataError
from headstart.heads.base import Head

Floats = NDArray[np.float64]

#: Folds of the normal rows whose distances, each by a fit without its fold, choose the threshold.
N_FOLDS = 5

#: Columns at most: the covariance of more takes gigabytes.
MAX_COLUMNS = 4096


class AnomalyHead(Head):
    """Base class: a distance from the normal rows, and the threshold that a share of normal rows exceeds.

    The threshold is the conformal quantile (Vovk, Gammerman & Shafer, 2005) of the distances of normal rows, each by a fit
    without its fold. Outputs are ``d / (d + threshold_)``, above 1/2 beyond the threshold, for the second of two classes:
    they rank rows, and are no probabilities.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        0, normal, and 1, not normal.
    threshold_ : float
        Distance from which a row is not normal.
    """

    false_alarms: float
    random_state: Any

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None) -> AnomalyHead:
        """Fit on normal rows, shape (n_samples, n_features); labels do not count, and rows of weight 0 are left out.

        Rows of one group (of ``groups``, shape (n_samples,)), as crops of an image, are left out together. Raises DataError
        if there are fewer than two rows or groups.
        """
        X = validate_data(self, X, dtype=np.float64)
        if sample_weight is not None:
            used = _check_sample_weight(sample_weight, X, ensure_non_negative=True) > 0
            X, groups = X[used], None if groups is None else np.asarray(groups)[used]
        parts = np.arange(len(X)) if groups is None else np.unique(groups, return_inverse=True)[1]
        n_parts = int(parts.max(initial=-1)) + 1
        if n_parts < 2:
            raise DataError(f"A head for anomalies needs at least two normal images. Received: {n_parts}.")
        fold = check_random_state(self.random_state).permutation(n_parts)[parts] % min(N_FOLDS, n_parts)
        held_out = np.empty(len(X))
        for number in range(int(fold.max()) + 1):
            self._learn(X[fold != number])
            held_out[fold == number] = self._distances(X[fold == number])
        self.threshold_ = conformal_quantile(held_out, self.false_alarms)
        self._learn(X)
        self.classes_ = np.array([0, 1])
        return self

    def predict_proba(self, X: Any) -> Floats:
        """Return two columns, shape (n_samples, 2), float64: 1 minus the anomaly score, and the anomaly score."""
        check_is_fitted(self, "threshold_")
        distances = self._distances(validate_data(self, X, dtype=np.float64, reset=False))
        scores = distances / (distances + self.threshold_)
        return np.column_stack([1.0 - scores, scores])

    def _learn(self, X: Floats) -> None:
        raise NotImplementedError

    def _distances(self, X: Floats) -> Floats:
        raise NotImplementedError


def conformal_quantile(distances: Floats, share: float) -> float:
    """Return the distance that a new normal row exceeds with a probability of at most ``share``; above 0.

    The largest one where there are too few rows for this.
    """
    rank = int(np.ceil((len(distances) + 1) * (1.0 - share)))
    chosen = float(np.sort(distances)[min(rank, len(distances)) - 1])
    return max(chosen, float(np.finfo(np.float64).tiny))


class MahalanobisHead(AnomalyHead):
    """Mahalanobis distance from the mean of the normal rows, by a covariance shrunk as Ledoit & Wolf do.

    Ledoit & Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of Multivariate
    Analysis 88, 2004. Rippel, Mertens & Merhof, "Modeling the distribution of normal data in pre-trained deep features for
    anomaly detection", ICPR 2020.

    Parameters
    ----------
    shrinkage_factor : float
        Factor of their shrinkage.
    false_alarms : float
        Share of normal rows beyond the threshold.
    random_state : int, RandomState or None
        Seeds the folds of the threshold.

    Attributes
    ----------
    mean_, precision_ : ndarray of shape (n_features,), ndarray of shape (n_features, n_features), float64
        Of the normal rows.
    """

    def __init__(self, shrinkage_factor: float = 1.0, *, false_alarms: float = 0.05, random_state: Any = None) -> None:
        self.shrinkage_factor = shrinkage_factor
        self.false_alarms = false_alarms
        self.random_state = random_state

    def _learn(self, X: Floats) -> None:
        if X.shape[1] > MAX_COLUMNS:
            raise DataError(
                f"The covariance of {X.shape[1]:,} columns does not fit in memory. Expected: at most {MAX_COLUMNS:,}.",
                hint="Take averages (`features=['avg']`).",
            )
        self.mean_ = X.mean(axis=0)
        covariance = empirical_covariance(X)
        size = float(np.trace(covariance)) / len(covariance) or 1.0
        shrinkage = float(min(1.0, self.shrinkage_factor * ledoit_wolf_shrinkage(X)))
        covariance *= 1.0 - shrinkage
        covariance.flat[:: len(covariance) + 1] += max(shrinkage, float(np.finfo(np.float32).eps)) * size
        self.precision_ = linalg.pinvh(covariance)

    def _distances(self, X: Floats) -> Floats:
        centred = X - self.mean_
        squared: Floats = np.maximum(((centred @ self.precision_) * centred).sum(axis=1), 0.0)
        return np.sqrt(squared)


class NearestNormalHead(AnomalyHead):
    """Mean distance to the nearest normal rows.

    Parameters
    ----------
    n_neighbors : int
        Number of neighbors; all rows where there are fewer.
    metric : "cosine" or "euclidean"
        Distance between rows.
    false_alarms : float
        Share of normal rows beyond the threshold.
    random_state : int, RandomState or None
        Seeds the folds of the threshold.

    Attributes
    ----------
    rows_ : ndarray of shape (n_samples, n_features), float64
        The normal rows.
    """

    def __init__(
        self, n_neighbors: int = 3, *, metric: str = "cosine", false_alarms: float = 0.05, random_state: Any = None
    ) -> None:
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.false_alarms = false_alarms
        self.random_state = random_state

    def _learn(self, X: Floats) -> None:
        self.rows_ = X

    def _distances(self, X: Floats) -> Floats:
        search = NearestNeighbors(
            n_neighbors=min(self.n_neighbors, len(self.rows_)), metric=self.metric, algorithm="brute"
        ).fit(self.rows_)
        distances: Floats = search.kneighbors(X)[0].mean(axis=1)
        return distances
