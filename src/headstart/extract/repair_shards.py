"""Shards that are missing or damaged, and the one that takes their place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.cache.format import FEATURES
from headstart.cache.merge import MergedRow, MergedRows, merge
from headstart.cache.shards import publish_shards
from headstart.errors import CacheError
from headstart.extract.destination import first_number
from headstart.images.refs import ImageRefs

if TYPE_CHECKING:
    from headstart.cache.folder import ShardFolder
    from headstart.cache.store import FeatureCache
    from headstart.schema import ImageRef


def lost_rows(cache: FeatureCache, shards: Collection[str]) -> list[int]:
    """Return the rows of those shards that cannot be opened."""
    if cache.places is None or not shards:
        return []
    lost: list[int] = []
    for number, name in enumerate(cache.places.table.names):
        rows = np.flatnonzero(cache.places.shard == number).tolist() if name in shards else []
        if rows:
            try:
                cache.filters(FEATURES, rows[0])
            except CacheError:
                lost += rows
    return lost


def replace_shards(
    folder: ShardFolder,
    cache: FeatureCache,
    shards: Collection[str],
    again: Mapping[int, ImageRef],
    part: FeatureCache | None,
) -> None:
    """Write one new shard in the place of the damaged ones: the rows in ``again`` from ``part``, the others as they lie.

    The damaged ones are deleted once the manifest names the new one.
    """
    if cache.places is None:
        raise ValueError(f"{cache.path} is not a folder of shards")
    names, shard = cache.places.table.names, cache.places.shard
    bad = {number for number, name in enumerate(names) if name in shards} | {int(shard[row]) for row in again}
    affected = np.flatnonzero(np.isin(shard, list(bad))).tolist()
    if not affected:
        return
    numbers = {row: number for number, row in enumerate(again)}
    refs = cache.refs()
    for row, ref in again.items():
        refs[row] = ref
    described: dict[str, Any] = {"class_names": cache.class_names, "layout": cache.layout, "info": cache.info}
    new = folder.path / f"{first_number(folder.path):020d}.h5"
    moved = [
        MergedRow(1, numbers[row], refs[row]) if row in numbers else MergedRow(0, row, refs[row]) for row in affected
    ]
    merge(new, sources=[cache, *([part] if part else [])], rows=moved, failures=(), **described)
    sources, rows = np.zeros(len(refs), np.int32), np.arange(len(refs))
    sources[affected], rows[affected] = 1, np.arange(len(affected))
    publish_shards(
        folder, sources=[cache, new], rows=MergedRows(sources, rows, ImageRefs.of(refs)), failures=cache.failures, **described
    )  # fmt: skip
