"""Images that look alike, by the averages of their features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import DataError
from headstart.heads.transforms import design_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.cache.reader import FeatureCache
    from headstart.types import FeatureBatch, Recipe

#: Cosine of two images' features, both less the mean of all images, from which on they are taken for nearly the same.
#: Measured on 35 photographs of ants and bees: saved as JPEG of quality 60 ≥ 0.978, brightened by 15 % ≥ 0.96 in 95 %,
#: half the size or cropped by 6 % about 0.95; different photographs ≤ 0.72. Of 3.4 million pairs of 2,624 solar cells,
#: which look much alike, 0.07 % are above; of cosines without the mean subtracted, 14 %.
NEAR_DUPLICATE_COSINE = 0.95

#: Cosine from which on they are, the mean not subtracted: where nearly all images show one scene, that is the mean.
SAME_SCENE_COSINE = 0.99

#: The same two for what no person looks at before it is used: only the same picture saved again is meant. Measured on the
#: averages of the last block. Of 32 photographs of ants and bees, all are found when saved as JPEG of quality 75, 97 % at 60,
#: 84 % brightened by 15 %, 13 % at half the size; of 32 solar cells all at quality 90, 78 % at 75, 34 % at 60. Of different
#: pictures, no photograph of 398 is taken for another, and 42 of 2,624 solar cells, in 15 groups of up to 6 (at 300 pixels 4,
#: in 2). 0.95 and 0.99 would join 674 of them, in groups of up to 74. Of 1,360 flowers, 130 are pairs, each of one picture.
SAME_PICTURE_COSINE, SAME_PICTURE_SCENE_COSINE = 0.985, 0.995

#: Rows and columns of the block of cosines that is in memory at a time: 16 MiB.
BLOCK = 2048

#: Members of a group between which all cosines are computed, to tell the range.
MAX_COMPARED_MEMBERS = 64


def near_units(
    pooled: NDArray[np.floating[Any]],
    *,
    cosine: float = SAME_PICTURE_COSINE,
    same_scene: float = SAME_PICTURE_SCENE_COSINE,
) -> NDArray[np.intp]:
    """Return a number per image, the same for those that are nearly the same picture, through any chain of such.

    Parameters
    ----------
    pooled : ndarray of shape (n_images, n_features)
        Averages of the last pooled layer (:func:`last_block`): earlier ones tell textures and colours, by which 2,437 of
        2,624 solar cells are one picture.
    cosine, same_scene : float
        From where on two images belong together: with the mean of all images subtracted, or without.

    Returns
    -------
    ndarray of shape (n_images,), intp
        Images whose features are not finite are alone. Time grows with the square of the images: 100,000 take a minute or two
        on two cores.

    Raises
    ------
    DataError
        If ``pooled`` is not a table, or a threshold is not between 0 and 1.
    """
    if pooled.ndim != 2 or not (0 < cosine <= 1 and 0 < same_scene <= 1):
        raise DataError(
            "Expected averages of shape (n_images, n_features), and cosines between 0 and 1. "
            f"Received: {pooled.shape}, {cosine} and {same_scene}."
        )
    finite = np.isfinite(pooled).all(axis=1)
    units = np.arange(len(pooled))
    units[finite] = np.flatnonzero(finite)[
        group_by_cosine(unit_rows(pooled[finite].astype(np.float32)), cosine, same_scene)
    ]
    _, numbers = np.unique(units, return_inverse=True)
    return numbers


def last_block(cache: FeatureCache) -> NDArray[np.float32]:
    """Return the averages of the last pooled layer, by which images look the same; else of the stored layer."""
    layers = cache.recipe.pooled_layers
    if not layers:
        return design_matrix(cache.batches(), ("avg",), n_samples=cache.n_images)
    return cache.pooled()[:, np.array(cache.pooled_column_layer, object) == layers[-1]]


def last_block_of(batch: FeatureBatch, recipe: Recipe) -> NDArray[np.float32]:
    """Return of fresh features what :func:`last_block` returns of a cache."""
    layers = recipe.pooled_layers
    return design_matrix([batch], (layers[-1] if layers else "avg",))


def unit_rows(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return square roots divided by their norm, as heads take them; rows of zeros stay zeros."""
    rooted = np.sign(features) * np.sqrt(np.abs(features))
    norms = np.linalg.norm(rooted, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(rooted, norms, out=np.zeros_like(rooted), where=norms > 0)
    return unit


def group_by_cosine(
    unit: NDArray[np.float32], cosine: float, same_scene: float = SAME_SCENE_COSINE
) -> NDArray[np.intp]:
    """Return the number of the group of each row; rows hang together through chains of near-duplicates.

    Computed in blocks, so that memory does not grow with the square of the rows; time does.

    Parameters
    ----------
    unit : ndarray of shape (n_rows, n_features), float32
        As :func:`unit_rows` returns them.
    cosine, same_scene : float
        From where on two rows belong together: with the mean of all rows subtracted, or without.
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
    """Return the lowest and highest cosine between different rows; between the first ones of many."""
    few = unit[:MAX_COMPARED_MEMBERS]
    cosines = (few @ few.T)[np.triu_indices(len(few), 1)]
    return round(float(cosines.min()), 4), round(float(min(cosines.max(), 1.0)), 4)
