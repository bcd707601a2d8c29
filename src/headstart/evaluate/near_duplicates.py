"""Find near-duplicate images by their averaged features."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.reader import FeatureCache
from headstart.errors import DataError
from headstart.heads.transforms import design_matrix, signed_sqrt
from headstart.types import FeatureBatch, Recipe

#: Cosine of mean-subtracted features from which images are near-duplicates. Measured on 35 photographs of ants and bees:
#: JPEG quality 60 ≥ 0.978, brightened by 15 % ≥ 0.96 in 95 %, half the size or cropped by 6 % about 0.95; different
#: photographs ≤ 0.72. Of 3.4 million pairs of 2,624 solar cells, which are very similar, 0.07 % are above; without
#: subtracting the mean, 14 %.
NEAR_DUPLICATE_COSINE = 0.95

#: The same without subtracting the mean, which is the common scene if nearly all images show it.
SAME_SCENE_COSINE = 0.99

#: Stricter thresholds for use without human review: only re-encoded copies are meant. Measured on the averages of the last
#: block. Of 32 photographs of ants and bees, all are found at JPEG quality 75, 97 % at 60, 84 % brightened by 15 %, 13 %
#: at half the size; of 32 solar cells all at quality 90, 78 % at 75, 34 % at 60. False positives: none of 398
#: photographs, and 42 of 2,624 solar cells, in 15 groups of up to 6 (at 300 pixels 4, in 2). 0.95 and 0.99 would join 674
#: of them, in groups of up to 74. Of 1,360 flowers, 130 are pairs, each of one picture.
SAME_PICTURE_COSINE, SAME_PICTURE_SCENE_COSINE = 0.985, 0.995

#: Rows and columns of the block of cosines in memory at a time: 16 MiB.
BLOCK = 2048

#: Members of a group compared by :func:`cosine_range`.
MAX_COMPARED_MEMBERS = 64


def near_units(pooled: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
    """Return a unit number per image; images connected by a chain of near-duplicates have the same number.

    ``pooled`` are averages of the last pooled layer (:func:`last_block`), shape (n_images, n_features): earlier layers
    describe textures and colours, by which 2,437 of 2,624 solar cells are near-duplicates. Images with non-finite
    features are alone. Time is quadratic: 100,000 images take a minute or two on two cores. Raises DataError if
    ``pooled`` is not two-dimensional.
    """
    if pooled.ndim != 2:
        raise DataError(f"Expected averages of shape (n_images, n_features). Received: {pooled.shape}.")
    finite, units = np.isfinite(pooled).all(axis=1), np.arange(len(pooled))
    groups = group_by_cosine(
        unit_rows(pooled[finite].astype(np.float32)), SAME_PICTURE_COSINE, SAME_PICTURE_SCENE_COSINE
    )
    units[finite] = np.flatnonzero(finite)[groups]
    _, numbers = np.unique(units, return_inverse=True)
    return numbers


def last_block(cache: FeatureCache) -> NDArray[np.float32]:
    """Return the averages of the last pooled layer of a cache; of the stored layer if there are none."""
    layers = cache.recipe.pooled_layers
    if not layers:
        return design_matrix(cache.batches(), ("avg",), n_samples=cache.n_images)
    return cache.pooled()[:, np.array(cache.pooled_column_layer, object) == layers[-1]]


def last_block_of(batch: FeatureBatch, recipe: Recipe) -> NDArray[np.float32]:
    """Return the same for newly computed features."""
    layers = recipe.pooled_layers
    return design_matrix([batch], (layers[-1] if layers else "avg",))


def unit_rows(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return square roots divided by their norm; rows of zeros stay zeros."""
    rooted = signed_sqrt(features)
    norms = np.linalg.norm(rooted, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(rooted, norms, out=np.zeros_like(rooted), where=norms > 0)
    return unit


def group_by_cosine(
    unit: NDArray[np.float32], cosine: float, same_scene: float = SAME_SCENE_COSINE
) -> NDArray[np.intp]:
    """Return the group of each of the :func:`unit_rows`; groups are connected through chains of near-duplicates.

    Thresholds are with and without subtracting the mean over all rows. Memory is linear in the number of rows, time
    quadratic.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(unit)
    component = np.arange(n)
    mean = unit.mean(axis=0) if n else np.zeros(unit.shape[1], np.float32)
    along, centred_norm = unit @ mean, np.maximum(np.linalg.norm(unit - mean, axis=1), 1e-6)
    for a in range(0, n, BLOCK):
        edges = []
        for b in range(a, n, BLOCK):
            raw = unit[a : a + BLOCK] @ unit[b : b + BLOCK].T
            centred = raw - along[a : a + BLOCK, None] - along[b : b + BLOCK] + mean @ mean
            centred /= centred_norm[a : a + BLOCK, None] * centred_norm[b : b + BLOCK]
            i, j = np.nonzero((raw >= same_scene) | (centred >= cosine))
            edges.append(np.unique(np.stack([component[i + a], component[j + b]]), axis=1))
        i, j = np.concatenate(edges, axis=1)
        _, merged = connected_components(coo_array((np.ones(len(i), np.int8), (i, j)), shape=(n, n)), directed=False)
        component = merged[component]
    return component


def cosine_range(unit: NDArray[np.float32]) -> tuple[float, float]:
    """Return the lowest and highest cosine between different rows; at most the first 64 are compared."""
    few = unit[:MAX_COMPARED_MEMBERS]
    cosines = (few @ few.T)[np.triu_indices(len(few), 1)]
    return round(float(cosines.min()), 4), round(float(min(cosines.max(), 1.0)), 4)
