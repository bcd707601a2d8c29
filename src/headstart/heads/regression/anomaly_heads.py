"""Heads that tell normal rows from others, fitted on normal rows alone: distances, and a threshold for them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.ndimage import uniform_filter
from sklearn.covariance import empirical_covariance, ledoit_wolf_shrinkage
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from headstart.errors import DataError
from headstart.heads.base import Head
from headstart.heads.transforms import signed_sqrt

Floats = NDArray[np.float64]

#: Folds of the normal rows whose distances, each by a fit without its fold, choose the threshold.
N_FOLDS = 5

#: Columns at most: the covariance of more takes gigabytes.
MAX_COLUMNS = 4096

#: Positions that a coreset is chosen from, at most, and columns of the projection that it is chosen in.
MAX_PATCHES, PROJECTED = 20_000, 128

#: Maps that are described at a time.
BLOCK = 64


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
    #: Type that distances are computed in.
    _dtype: Any = np.float64

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None) -> AnomalyHead:
        """Fit on normal rows, shape (n_samples, n_features); labels do not count, and rows of weight 0 are left out.

        Rows of one group (of ``groups``, shape (n_samples,)), as crops of an image, are left out together. Raises DataError
        if there are fewer than two rows or groups.
        """
        X = validate_data(self, X, dtype=self._dtype)
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
        distances = self._distances(validate_data(self, X, dtype=self._dtype, reset=False))
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


class PatchMemoryHead(AnomalyHead):
    """Distance of the oddest position of a map from the nearest of some positions of normal maps: PatchCore.

    Roth, Pemula, Zepeda, Schölkopf, Brox & Gehler, "Towards total recall in industrial anomaly detection", CVPR 2022, on a
    single layer, without their re-weighting. A position is described by the mean over it and its neighbours (3 × 3) of the
    square roots of the features, divided by its length.

    Parameters
    ----------
    positions : int
        Positions of a square map, whose channels lie side by side in a row; 49 of VGG16's last layer at 224 pixels.
    memory_size : int
        Positions of normal maps to keep: a greedy coreset, each the farthest from those before it.
    false_alarms : float
        Share of normal rows beyond the threshold.
    random_state : int, RandomState or None
        Seeds the folds of the threshold, the positions that the coreset is chosen from, and its projection.

    Attributes
    ----------
    memory_ : ndarray of shape (n_kept, n_channels), float32
        The kept positions.
    """

    _dtype = np.float32

    def __init__(
        self,
        positions: int = 49,
        *,
        memory_size: int = 1000,
        false_alarms: float = 0.05,
        random_state: Any = None,
    ) -> None:
        self.positions = positions
        self.memory_size = memory_size
        self.false_alarms = false_alarms
        self.random_state = random_state

    def _learn(self, X: NDArray[Any]) -> None:
        rng = np.random.default_rng(check_random_state(self.random_state).randint(2**31 - 1))
        patches = np.concatenate([self._patches(X[start : start + BLOCK]) for start in range(0, len(X), BLOCK)])
        patches = patches.reshape(-1, patches.shape[2])
        if len(patches) > MAX_PATCHES:
            patches = patches[np.sort(rng.choice(len(patches), MAX_PATCHES, replace=False))]
        self.memory_ = patches[greedy_coreset(patches, self.memory_size, rng)]

    def _distances(self, X: NDArray[Any]) -> Floats:
        own = (self.memory_**2).sum(axis=1)
        found = np.empty(len(X))
        for row in range(len(X)):
            patches = self._patches(X[row : row + 1])[0]
            squared = (patches**2).sum(axis=1)[:, None] - 2.0 * (patches @ self.memory_.T) + own
            found[row] = np.sqrt(max(float(squared.min(axis=1).max()), 0.0))
        return found

    def _patches(self, X: NDArray[Any]) -> NDArray[np.float32]:
        """Return what describes each position, of length 1, shape (n_samples, positions, n_channels)."""
        side = math.isqrt(self.positions)
        if side**2 != self.positions or X.shape[1] % self.positions:
            raise DataError(
                f"{X.shape[1]:,} columns are no square map of {self.positions} positions. Expected: the feature flatten, "
                "and as many positions as its map has."
            )
        maps = signed_sqrt(X.reshape(len(X), side, side, -1))
        around = uniform_filter(maps, size=(0, 3, 3, 0)).reshape(len(X), self.positions, -1)
        lengths = np.linalg.norm(around, axis=2, keepdims=True)
        return np.asarray(around / np.where(lengths > 0, lengths, 1), np.float32)


def greedy_coreset(rows: NDArray[Any], size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return some rows, each the farthest from those before it, the first drawn at random; ascending.

    Distances are those of a random projection to :data:`PROJECTED` columns, as Roth et al. (2022) compute them. No row is
    more than twice as far as by the best choice (Gonzalez, Theoretical Computer Science 38, 1985).
    """
    projected = rows
    if rows.shape[1] > PROJECTED:
        projected = rows @ (rng.normal(size=(rows.shape[1], PROJECTED)) / np.sqrt(PROJECTED)).astype(rows.dtype)
    squares = (projected**2).sum(axis=1)
    chosen = [int(rng.integers(len(rows)))]
    nearest = np.full(len(rows), np.inf)
    while len(chosen) < min(size, len(rows)):
        last = chosen[-1]
        nearest = np.minimum(nearest, squares - 2.0 * (projected @ projected[last]) + squares[last])
        nearest[last] = -np.inf
        chosen.append(int(nearest.argmax()))
    return np.sort(np.array(chosen, np.int64))
