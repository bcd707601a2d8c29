"""k-means on cached features, with a given number of clusters or the one with the best silhouette."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.reader import FeatureCache, open_cache
from headstart.errors import DataError
from headstart.heads.transforms import design_matrix, make_scaler
from headstart.images.samples import DEFAULT_RULES, DecodeRules
from headstart.quality.quality_report import sampled_rows
from headstart.storage.address import Location
from headstart.texts import counted

#: Principal components that are clustered. 16 to 64 agreed about equally with the true classes of photographs of flowers and
#: insects, 8 less (benchmarks/clusters.py).
N_COMPONENTS = 32

#: Each component is divided by its variance to this power: 0 is plain PCA, 0.5 whitening. Only 0.25 was good for both 2 and
#: 17 classes (benchmarks/clusters.py).
WHITENING = 0.25

#: Largest random sample for principal components, silhouettes and the number of clusters.
MAX_SAMPLE = 5_000

#: Rows from which on k-means uses mini-batches (Sculley, WWW 2010).
MINI_BATCH_ROWS = 20_000

#: Initializations of k-means; fewer while the number of clusters is searched.
N_INIT, N_INIT_SEARCH = 10, 3

#: Rows read from the cache at a time.
BLOCK_ROWS = 4_096


@dataclass(frozen=True, slots=True)
class Clustering:
    """The cluster of each image of a cache."""

    paths: Sequence[str]  # path and digest of each image
    sha256: Sequence[str]
    #: Cluster of each image, shape (n_images,), from 0, the largest cluster first; −1 if its features are not finite
    labels: NDArray[np.int64]
    distances: NDArray[np.float32]  # to the centre of the cluster, shape (n_images,); NaN without a cluster
    #: Number of clusters tried → mean silhouette coefficient, −1 to 1 (Rousseeuw, Journal of Computational and Applied
    #: Mathematics 20, 1987)
    silhouettes: Mapping[int, float] = field(default_factory=dict)
    rules: DecodeRules = DEFAULT_RULES  # how the images were decoded, for thumbnails

    @property
    def n_clusters(self) -> int:
        """Clusters of the best silhouette."""
        return int(self.labels.max()) + 1

    def members(self, cluster: int) -> NDArray[np.intp]:
        """Return the rows of a cluster, the nearest to its centre first."""
        rows = np.flatnonzero(self.labels == cluster)
        return rows[np.argsort(self.distances[rows], kind="stable")]


def cluster_images(
    cache: str | Location,
    n_clusters: int | tuple[int, int] = (2, 30),
    *,
    features: Sequence[str] = ("avg",),
    scaling: str = "sqrt-l2",
    random_state: int = 0,
) -> Clustering:
    """Cluster the images of a cache by k-means; existing labels are not used.

    Parameters
    ----------
    cache : str, Path or Address
        A feature cache.
    n_clusters : int or tuple of int
        Number of clusters; or the smallest and largest number of a range, from which the one with the highest silhouette is
        chosen.
    features, scaling
        As in :class:`headstart.HeadSpec`.
    random_state : int
        Seeds the sample and the initializations.

    Raises
    ------
    CacheError, DataError
        If the cache cannot be read, there are fewer different images than clusters, or the range is invalid.

    Examples
    --------
    >>> found = cluster_images("features/loose.h5", 5)                                 # doctest: +SKIP
    >>> np.bincount(found.labels)                                                      # doctest: +SKIP
    array([31, 22, 20, 9, 4])
    """
    low, high = (n_clusters, n_clusters) if isinstance(n_clusters, int) else n_clusters
    if not 1 <= low <= high:
        raise DataError(f"Expected a number of clusters, or a range as 2 to 30. Received: {low} to {high}.")
    with open_cache(cache) as opened:
        X, rows = _projected(opened, features, scaling, random_state)
        paths, sha256, n_images, rules = opened.paths, opened.sha256, opened.n_images, DecodeRules.of(opened.recipe)
    n_different = len(np.unique(X, axis=0))
    if n_different < max(low, 2):
        fewer = " Ask for fewer (`n_clusters`)." if n_different > 1 else " They look the same to the network."
        raise DataError(
            f"{cache} has {counted(n_different, 'different image')}, too few for {max(low, 2):,} clusters.{fewer}"
        )
    sample = sampled_rows(len(X), MAX_SAMPLE, random_state)
    tried = range(low, min(high, max(low, n_different - 1)) + 1)
    silhouettes = {k: _silhouette(X[sample], k, random_state) for k in tried}
    best = max(silhouettes, key=lambda k: silhouettes[k])
    labels, distances = np.full(n_images, -1, np.int64), np.full(n_images, np.nan, np.float32)
    found, distances[rows] = fit(X, best, random_state)
    rank = np.empty(found.max() + 1, np.int64)  # clusters by size, the largest first
    rank[np.argsort(-np.bincount(found), kind="stable")] = np.arange(len(rank))
    labels[rows] = rank[found]
    return Clustering(paths, sha256, labels, distances, silhouettes, rules)


def _projected(
    cache: FeatureCache, features: Sequence[str], scaling: str, random_state: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return weighted principal components of unit length, and the rows of the cache that have finite features."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import normalize

    def matrix(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return design_matrix(cache.batches(rows), features, n_samples=len(rows))

    if cache.n_images < 2:
        raise DataError(f"{cache.path} has {counted(cache.n_images)}. Expected at least two to cluster.")
    first = _finite(matrix(sampled_rows(cache.n_images, MAX_SAMPLE, random_state)))
    scaler = make_scaler(scaling).fit(first)
    n_components = min(N_COMPONENTS, len(first) - 1, first.shape[1])
    with np.errstate(invalid="ignore"):  # explained_variance_ratio_ (unused) divides by 0 for equal images
        pca = PCA(n_components, svd_solver="randomized", random_state=random_state).fit(scaler.transform(first))
    weights = np.maximum(pca.explained_variance_, np.finfo(np.float32).tiny) ** -WHITENING
    parts, kept = [], []
    for start in range(0, cache.n_images, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, cache.n_images))
        block = matrix(rows)
        good = np.isfinite(block).all(axis=1)
        kept.append(rows[good])
        if good.any():
            parts.append(normalize(pca.transform(scaler.transform(block[good])) * weights))
    return np.concatenate(parts).astype(np.float32), np.concatenate(kept)


def _finite(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows without NaN or infinity; raise DataError for fewer than two."""
    rows = matrix[np.isfinite(matrix).all(axis=1)]
    if len(rows) < 2:
        raise DataError(f"{len(rows)} of {len(matrix)} images have finite features. Extract them again, in float32.")
    return rows


def fit(
    X: NDArray[np.float32], n_clusters: int, random_state: int, n_init: int = N_INIT
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the cluster of each row, and its distance to the cluster's centre."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    kind: Any = KMeans if len(X) < MINI_BATCH_ROWS else MiniBatchKMeans
    model = kind(n_clusters, n_init=n_init, random_state=random_state).fit(X)
    labels = model.labels_.astype(np.int64)
    return labels, np.linalg.norm(X - model.cluster_centers_[labels], axis=1).astype(np.float32)


def _silhouette(X: NDArray[np.float32], n_clusters: int, random_state: int) -> float:
    """Return the mean silhouette coefficient; 0 for one cluster and for single-row clusters, where it is undefined."""
    from sklearn.metrics import silhouette_score

    labels, _ = fit(X, n_clusters, random_state, N_INIT_SEARCH)
    return float(silhouette_score(X, labels)) if 1 < len(np.unique(labels)) < len(X) else 0.0
