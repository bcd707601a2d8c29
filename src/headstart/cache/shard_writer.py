"""Publish the manifest of a folder of shards, without moving features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.datasets import encode
from headstart.cache.merge import Descriptions, MergedRows, check_recipe, check_shape, opened_sources
from headstart.cache.reader import FeatureCache
from headstart.cache.rows import grouped
from headstart.cache.sharded.shard_folder import ShardFolder
from headstart.cache.sharded.shard_manifest import Places, write_manifest
from headstart.cache.sharded.shard_reader import ShardTable
from headstart.errors import CacheError
from headstart.texts import TextColumn
from headstart.types import Failure


def publish_shards(
    folder: ShardFolder,
    *,
    sources: Sequence[Path | FeatureCache],
    rows: MergedRows,
    failures: Sequence[Failure],
    class_names: Sequence[str],
    layout: str,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Make a folder of shards the cache of the given rows, then delete shards without any of them.

    ``sources`` are paths of shards in the folder, and the present cache of the folder, open; other arguments are those
    of :func:`headstart.cache.merge.merge`. Raises RecipeMismatchError if recipes differ, and CacheError if there is no
    row, a source cannot be read or is elsewhere, or the manifest cannot be written.
    """
    if not len(rows):
        raise CacheError(f"There is no row to write to {folder.path}.")
    publication = Publication(folder, rows)
    for source, places in opened_sources(sources, rows.sources):
        publication.take(source, places)
    publication.finish(failures, class_names, layout, info or {})


class Publication:
    """A manifest in preparation."""

    def __init__(self, folder: ShardFolder, rows: MergedRows) -> None:
        self.folder, self.rows, self.descriptions = folder, rows, Descriptions(rows)
        self.first: FeatureCache | None = None
        self.shards: dict[str, tuple[int, int, int, bytes]] = {}
        self.shard = np.empty(len(rows), np.int32)
        self.shard_row = np.empty(len(rows), np.int32)

    def take(self, source: FeatureCache, places: NDArray[np.int64]) -> None:
        """Add the rows of one source."""
        self._check(source)
        self.descriptions.take(source, places)
        numbers = self.rows.rows[places]
        if source.places is None:
            self.shard[places] = self._add(source.path.name, source.n_images, source.size_bytes, None)
            self.shard_row[places] = numbers
            return
        table, shard = source.places.table, source.places.shard[numbers]
        self.shard_row[places] = source.places.shard_row[numbers]
        for old, which in grouped(shard):
            known = int(table.n_images[old]), int(table.size_bytes[old]), table.sha256[old].tobytes()
            self.shard[places[which]] = self._add(table.names[old], *known)

    def _add(self, name: str, n_images: int, size_bytes: int, digest: bytes | None) -> int:
        """Return the number of a shard in the new manifest; compute its digest if unknown."""
        if name not in self.shards:
            self.shards[name] = len(self.shards), n_images, size_bytes, digest or self.folder.digest(name)
        return self.shards[name][0]

    def _check(self, source: FeatureCache) -> None:
        home = source.path if source.places else source.path.parent
        if home != self.folder.path:
            raise CacheError(
                f"{source.path} does not lie in {self.folder.path}: its rows cannot be a part of that cache."
            )
        if self.first is None:
            self.first, self.column_layers = source, source.pooled_column_layer  # read now: it is closed at the end
        check_recipe(source, self.first.recipe)
        check_shape(source, self.first)

    def finish(
        self, failures: Sequence[Failure], class_names: Sequence[str], layout: str, info: Mapping[str, Any]
    ) -> None:
        """Publish the manifest and delete unused shards."""
        if self.first is None:
            raise ValueError("no source was taken")
        _, n_images, sizes, digests = zip(*self.shards.values(), strict=True)
        table = ShardTable(
            TextColumn.from_bytes(encode(name, "name of a shard") for name in self.shards),
            np.array(n_images, np.int64),
            np.array(sizes, np.int64),
            np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32),
        )
        write_manifest(
            self.folder,
            self.descriptions.header(self.first.recipe, failures, layout, info),
            self.descriptions.values(class_names),
            Places(table, self.shard, self.shard_row, self.first.map_shape, self.first.compression),
            self.column_layers,
            failures,
            class_names,
        )
        self.folder.remove(name for name in self.folder.sizes() if name not in self.shards)
