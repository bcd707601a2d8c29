"""What a saved head keeps of the training images in a cache, to tell unfamiliar images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.decisions.familiarity import MAX_IMAGES, Familiarity, averages, fit_familiarity
from headstart.evaluate.joined_caches import AnyCache, caches_of
from headstart.evaluate.leakage import deepest_feature
from headstart.evaluate.splits import connected_units
from headstart.types import Recipe


def familiar_features(recipe: Recipe) -> tuple[str, ...]:
    """Return the averages that images are compared by: of every pooled layer, and of the stored one where it is deeper.

    Early layers tell frames without content and drawings, late ones other objects.
    """
    return tuple(dict.fromkeys([*recipe.pooled_layers, deepest_feature(recipe)]))


def familiarity_of(
    cache: AnyCache, rows: NDArray[np.int64], y: NDArray[Any], names: Sequence[str], random_state: int = 0
) -> Familiarity | None:
    """Return what is kept of the training images; of a join, by the features of its first cache.

    ``rows`` are theirs in the cache, and ``y`` their indices into ``names``, or numbers, shape (n_rows,). Of more than
    ``MAX_IMAGES`` rows, as many are drawn at random. None if there are too few.
    """
    if len(rows) > MAX_IMAGES:
        chosen = np.sort(np.random.default_rng(random_state).choice(len(rows), MAX_IMAGES, replace=False))
        rows, y = rows[chosen], y[chosen]
    first = caches_of(cache)[0]
    features = familiar_features(first.recipe)
    return fit_familiarity(
        _averages(cache, rows, features),
        connected_units(rows, cache.sha256, cache.groups),
        features,
        [cache.paths[row] for row in rows.tolist()],
        [names[one] if y.dtype.kind == "i" else f"{one:g}" for one in y.tolist()],
        random_state=random_state,
    )


def n_unfamiliar(familiarity: Familiarity, cache: AnyCache, rows: NDArray[np.int64]) -> int:
    """Return how many images of a cache are unfamiliar."""
    return int((familiarity.unfamiliarity(_averages(cache, rows, familiarity.features)) > 1).sum())


def _averages(cache: AnyCache, rows: NDArray[np.int64], features: Sequence[str]) -> NDArray[np.float32]:
    return averages(caches_of(cache)[0].batches(rows, finite=True), features)
