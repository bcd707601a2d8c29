"""Several caches of one recipe → one; features move as they lie on the disk, without decompression."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstart.cache.descriptions import Descriptions
from headstart.cache.features import check_storage, create_features
from headstart.cache.format import FEATURES, POOLED
from headstart.cache.publish import published, writing
from headstart.cache.reading import filters
from headstart.cache.shard import write_descriptions
from headstart.cache.sources import check_recipe, check_shape, opened_sources
from headstart.cache.store import FeatureCache
from headstart.errors import CacheError
from headstart.images.refs import ImageRefs
from headstart.schema import Failure, ImageRef, Recipe

#: Rows that are copied between two looks at whether the disk still takes them.
CHECKED_ROWS = 1024


class MergedRow(NamedTuple):
    """Where a row of the new file comes from, and what is said of it there.

    Attributes
    ----------
    source, row : int
        Index of the cache among the sources, and row in it; the same row may be used several times.
    ref : ImageRef
        Path, label, split, group, size and time in the new file. Digests, size in pixels and notes come with the row.
    """

    source: int
    row: int
    ref: ImageRef


@dataclass(frozen=True, slots=True)
class MergedRows:
    """Many :class:`MergedRow`, as columns: of a million rows the objects alone would take 100 MB.

    Attributes
    ----------
    sources : ndarray of shape (n_rows,), int32
        Index of the cache among the sources.
    rows : ndarray of shape (n_rows,), int64
        Row in it.
    refs : ImageRefs
        What is said of it in the new file.
    """

    sources: NDArray[np.int32]
    rows: NDArray[np.int64]
    refs: ImageRefs

    @classmethod
    def of(cls, rows: Sequence[MergedRow]) -> MergedRows:
        """Return the columns of some rows."""
        sources = np.fromiter((row.source for row in rows), np.int32, len(rows))
        return cls(
            sources, np.fromiter((row.row for row in rows), np.int64, len(rows)), ImageRefs.of(row.ref for row in rows)
        )

    def __len__(self) -> int:
        return len(self.refs)


def merge(
    output: Path,
    *,
    sources: Sequence[Path | FeatureCache],
    rows: Sequence[MergedRow] | MergedRows,
    failures: Sequence[Failure],
    class_names: Sequence[str],
    layout: str,
    recipe: Recipe | None = None,
    info: Mapping[str, Any] | None = None,
    compression: str | None = None,
) -> None:
    """Write one cache from rows of others; it appears whole or not at all.

    Parameters
    ----------
    output : Path
        The new file; it may be one of the sources.
    sources : sequence of Path or FeatureCache
        Paths are opened one at a time.
    rows : sequence of MergedRow, or MergedRows
        The rows of the new file, in order.
    failures, class_names, layout, info
        Of the new file.
    recipe : Recipe, optional
        That all sources must have; by default that of the first one that is used.
    compression : str, optional
        Of the new file; by default that of the first source that is used. Rows of sources that are compressed otherwise
        are decompressed and compressed again.

    Raises
    ------
    RecipeMismatchError
        If the sources were not made by one recipe.
    CacheError
        If there is no row, a source cannot be read, or the file cannot be written.
    """
    if not len(rows):
        raise CacheError(f"There is no row to write to {output}.")
    columns = rows if isinstance(rows, MergedRows) else MergedRows.of(rows)
    with published(Path(output)) as (file, below), writing(Path(output)):
        merger = Merger(file, columns, recipe, compression)
        for source, places in opened_sources(sources, columns.sources):
            merger.take(source, places, below.check)
        merger.finish(failures, class_names, layout, info or {})
        if os.name == "nt":  # no file takes the place of one that is open
            close_those_at(Path(output), sources)


def close_those_at(path: Path, sources: Sequence[Path | FeatureCache]) -> None:
    """Close the open caches that are the file of this name."""
    for source in sources:
        if isinstance(source, FeatureCache) and source.path == path:
            source.close()


class Merger:
    """A merge under way: the features lie in the new file already, what belongs to them is still in memory."""

    def __init__(self, file: Any, rows: MergedRows, recipe: Recipe | None, compression: str | None) -> None:
        self.file, self.rows, self.recipe, self.compression = file, rows, recipe, compression
        self.first: FeatureCache | None = None
        self.descriptions = Descriptions(rows)

    def take(self, source: FeatureCache, places: NDArray[np.int64], check: Callable[[], None]) -> None:
        """Copy rows of one source to their places in the new file; ``check`` raises what the disk did not take."""
        self._check(source)
        self.descriptions.take(source, places)
        numbers = self.rows.rows[places]
        for start in range(0, len(places), CHECKED_ROWS):
            part = slice(start, start + CHECKED_ROWS)
            for name in (FEATURES, POOLED):
                copy_rows(self.file[name], source, name, numbers[part].tolist(), places[part].tolist())
            check()

    def _check(self, source: FeatureCache) -> None:
        self.recipe = self.recipe or source.recipe
        check_recipe(source, self.recipe)
        if self.first is not None:
            check_shape(source, self.first)
            return
        self.first, self.compression = source, self.compression or source.compression
        check_storage(source.recipe, self.compression)
        create_features(self.file, source.recipe, source.map_shape, source.n_pooled, self.compression, len(self.rows))

    def finish(
        self, failures: Sequence[Failure], class_names: Sequence[str], layout: str, info: Mapping[str, Any]
    ) -> None:
        """Write everything but the features."""
        if self.recipe is None:
            raise ValueError("no source was taken")
        values = self.descriptions.values(class_names)
        header = self.descriptions.header(self.recipe, failures, layout, info)
        write_descriptions(self.file, header, values, failures, class_names)


def copy_rows(target: Any, source: FeatureCache, name: str, numbers: Sequence[int], places: Sequence[int]) -> None:
    """Copy rows with their checksums; decompress and compress again only where the filters are not the same."""
    if 0 in target.shape:
        return
    offset, wanted = (0,) * len(target.shape[1:]), filters(target)
    for number, place in zip(numbers, places, strict=True):
        if source.filters(name, number) == wanted:
            mask, data = source.read_chunk(name, number)
            target.id.write_direct_chunk((place, *offset), data, mask)
        else:
            target[place] = source.read_rows(name, np.array([number]))[0]
