"""What of a cache goes to other programs: the features as a matrix, and everything that belongs to its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headstart.errors import DataError
from headstart.heads.transforms import design_matrix
from headstart.schema import FeatureBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.cache.store import FeatureCache

#: Rows that are in memory at a time.
BATCH_ROWS = 64


@dataclass(frozen=True, slots=True)
class Contents:
    """A cache in the form in which other programs get it.

    Attributes
    ----------
    n_samples : int
        Rows.
    features : tuple of str
        What the columns of X are made of, as a head names it: ``avg``, ``flatten``, ``block4_conv3`` …
    feature_names : tuple of str
        One name per column of X: ``avg_0``, ``avg_1`` …
    map_shape : tuple of int
        Height, width and channels where X holds whole maps, flattened; empty where it does not.
    class_names : tuple of str
        Names that ``y`` indexes.
    y : ndarray of shape (n_samples,), int64
        Index of the class, −1 where unlabelled.
    texts : mapping of str to callable
        ``path``, ``label``, ``split``, ``group`` and ``sha256``: each call gives one string per row anew.
    recipe : str
        JSON: how the features were made.
    blocks : callable
        Each call yields X from the top, in blocks of shape (≤ 64, n_features), float32.
    """

    n_samples: int
    features: tuple[str, ...]
    feature_names: tuple[str, ...]
    map_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    y: NDArray[np.int64]
    texts: Mapping[str, Callable[[], Iterable[str]]]
    recipe: str
    blocks: Callable[[], Iterator[NDArray[np.float32]]]


def contents_of(cache: FeatureCache, features: Sequence[str]) -> Contents:
    """Return what a cache, which stays open, gives to other programs; X is read when it is asked for.

    Raises
    ------
    HeadstartError
        If there is no such feature, or no row.
    """
    if not cache.n_images:
        raise DataError(f"{cache.path} holds no image: there is nothing to convert.")
    rows, layers, names = cache.rows, cache.recipe.pooled_layers, (*cache.class_names, "")
    return Contents(
        n_samples=cache.n_images,
        features=tuple(features),
        feature_names=feature_names(cache, features),
        map_shape=cache.map_shape if tuple(features) == ("flatten",) else (),
        class_names=cache.class_names,
        y=cache.labels,
        texts={
            "path": lambda: rows.path,
            "label": lambda: (names[label] for label in rows.label.tolist()),
            "split": lambda: rows.split,
            "group": lambda: rows.group,
            "sha256": lambda: rows.sha256,
        },
        recipe=cache.recipe.to_json(),
        blocks=lambda: (
            design_matrix([batch], features, pooled_layers=layers) for batch in cache.batches(batch_rows=BATCH_ROWS)
        ),
    )


def feature_names(cache: FeatureCache, features: Sequence[str]) -> tuple[str, ...]:
    """Return one name per column, the feature's and a number from 0; widths are those that a head gets."""
    empty = FeatureBatch(np.zeros((1, *cache.map_shape), np.float32), np.zeros((1, cache.n_pooled), np.float32))
    layers = cache.recipe.pooled_layers
    widths = {name: design_matrix([empty], [name], pooled_layers=layers).shape[1] for name in dict.fromkeys(features)}
    if len(widths) < len(features):
        raise DataError(f"A feature is named twice: {', '.join(features)}. Name each once.")
    return tuple(f"{name}_{number}" for name, width in widths.items() for number in range(width))
