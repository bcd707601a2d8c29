"""Caches that one is made of: opened when their rows are taken, and of one recipe and shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.cache.index import grouped
from headstart.cache.store import FeatureCache, open_cache
from headstart.errors import CacheError, RecipeMismatchError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from headstart.schema import Recipe


def opened_sources(
    sources: Sequence[Path | FeatureCache], numbers: NDArray[np.int32]
) -> Iterator[tuple[FeatureCache, NDArray[np.int64]]]:
    """Yield each source that rows come from, open, and the places of its rows; paths are opened one at a time.

    Parameters
    ----------
    sources : sequence of Path or FeatureCache
        Of which not all need be used.
    numbers : ndarray of shape (n_rows,), int32
        Index of each row's source.

    Raises
    ------
    CacheError
        If a number stands for no source, or one cannot be opened.
    """
    for number, places in grouped(numbers):
        if not 0 <= number < len(sources):
            raise CacheError(f"A row is to come from source {number}; there are {len(sources)}.")
        with ExitStack() as stack:
            source = sources[number]
            opened = source if isinstance(source, FeatureCache) else stack.enter_context(open_cache(source))
            yield opened, places


def check_recipe(source: FeatureCache, wanted: Recipe) -> None:
    """Raise RecipeMismatchError where a source was made by another recipe than the wanted one."""
    differences = wanted.differences(source.recipe)
    if differences:
        raise RecipeMismatchError(
            f"{source.path} was made by another recipe (wanted ≠ there): {'; '.join(differences)}."
        )


def check_shape(source: FeatureCache, first: FeatureCache) -> None:
    """Raise CacheError where the rows of a source have other shapes than those of the first."""
    if (source.map_shape, source.n_pooled) != (first.map_shape, first.n_pooled):
        raise CacheError(
            f"{source.path} has rows of shape {source.map_shape} and {source.n_pooled} averages; {first.path} has "
            f"{first.map_shape} and {first.n_pooled}."
        )
