"""Make a cache of rows of others: a file, into which features are copied as stored, or the manifest of a folder of shards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstart.cache.columns import check_storage, create_features, encode, grouped
from headstart.cache.format import FEATURES, POOLED, ROWS, Header, now, versions
from headstart.cache.reader import FeatureCache, open_cache
from headstart.cache.safe_reads import filters
from headstart.cache.sandbox import published
from headstart.cache.shards import Places, ShardFolder, ShardTable
from headstart.cache.writer import label_indices, ref_columns, tag_texts, write_descriptions, write_manifest
from headstart.errors import CacheError, RecipeMismatchError
from headstart.images.discovery.refs import ImageRefs, same_files, upper
from headstart.storage.publishing import writing
from headstart.texts import TextColumn
from headstart.types import Failure, ImageRef, Recipe

#: Numeric columns copied with each row; other columns come from the refs of the merged rows.
INHERITED = {"sha256": ("|u1", 32), "features_sha256": ("|u1", 32), "width_px": ("<i4", 0), "height_px": ("<i4", 0)}

#: Index of an unknown class.
UNKNOWN = -2

#: Rows copied between checks for write errors.
CHECKED_ROWS = 1024


class Descriptions:
    """Collects the descriptions of the rows of a new cache, source by source."""

    def __init__(self, rows: MergedRows, recipe: Recipe | None = None) -> None:
        self.rows, self.recipe = rows, recipe
        self.first: FeatureCache | None = None
        self.versions: dict[str, str] = {}
        self.notes = [b""] * len(rows)
        self.columns: dict[str, NDArray[Any]] = {
            name: np.empty((len(rows), width) if width else len(rows), dtype)
            for name, (dtype, width) in INHERITED.items()
        }

    def take_all(self, sources: Sequence[Path | FeatureCache]) -> Iterator[tuple[FeatureCache, NDArray[np.int64]]]:
        """Yield each source in use, opened one at a time if given as a path, and the positions of its rows.

        Raises RecipeMismatchError if sources were made by different recipes, and CacheError if one cannot be opened, its rows
        have another shape, or there is no such source or row.
        """
        for number, places in grouped(self.rows.sources):
            if not 0 <= number < len(sources):
                raise CacheError(f"A row refers to source {number}; there are {len(sources)}.")
            with ExitStack() as stack:
                source = sources[number]
                opened = source if isinstance(source, FeatureCache) else stack.enter_context(open_cache(source))
                self._check(opened)
                self._take(opened, places)
                yield opened, places

    def _check(self, source: FeatureCache) -> None:
        self.recipe = self.recipe or source.recipe
        if self.first is None:
            self.first = source
        first = self.first
        differences = self.recipe.differences(source.recipe)
        if differences:
            raise RecipeMismatchError(
                f"{source.path} was made by another recipe (wanted ≠ there): {'; '.join(differences)}."
            )
        if (source.map_shape, source.n_pooled) != (first.map_shape, first.n_pooled):
            raise CacheError(
                f"{source.path} has rows of shape {source.map_shape} and {source.n_pooled} averages; {first.path} has "
                f"{first.map_shape} and {first.n_pooled}."
            )

    def _take(self, source: FeatureCache, places: NDArray[np.int64]) -> None:
        numbers = self.rows.rows[places]
        if not 0 <= numbers.min() <= numbers.max() < source.n_images:
            raise CacheError(f"{source.path} has {source.n_images} rows. A requested row is out of range.")
        self.versions |= source.versions
        for name, column in self.columns.items():
            column[places] = source.read_column(f"{ROWS}/{name}")[numbers]
        notes: TextColumn = source.read_column(f"{ROWS}/notes")
        for place, number in zip(places, numbers, strict=True):
            self.notes[place] = notes.raw(number)

    def values(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return the columns of ``/rows``; raise CacheError if a label is not among the classes."""
        refs = self.rows.refs
        numbers = class_numbers(refs, class_names)
        if UNKNOWN in numbers:
            unknown = refs[int(np.argmax(numbers == UNKNOWN))]
            raise CacheError(f"{unknown.path} has the label {unknown.label!r}, which is not among the classes.")
        return {**ref_columns(refs), **self.columns, "notes": lambda: self.notes, "label": numbers}

    def header(self, failures: Sequence[Failure], layout: str, info: Mapping[str, Any]) -> Header:
        """Return the root attributes; versions are those of all sources and of the running software."""
        if self.recipe is None:
            raise ValueError("no source was taken")
        made_by = {**self.versions, **versions()}
        return Header(self.recipe, len(self.rows), len(failures), layout, made_by, info, created=now())


def class_numbers(refs: ImageRefs, class_names: Sequence[str]) -> NDArray[np.int32]:
    """Return the class index of each image, −1 if unlabelled, :data:`UNKNOWN` if there is no such class."""
    labels = label_indices(class_names)
    return np.array([labels.get(label, UNKNOWN) for label, _, _ in refs.tags], np.int32)[refs.codes]


def has_descriptions(cache: FeatureCache, refs: ImageRefs) -> bool:
    """Return whether a cache describes its images by exactly these refs, apart from fractions of a second."""
    rows = cache.rows
    return (
        rows.path == refs.paths
        and np.array_equal(rows.size_bytes, refs.sizes)
        and bool(same_files(rows.mtime_ns, upper(rows.stamp), refs.times, upper(refs.stamps)).all())
        and np.array_equal(rows.weight, refs.weights)
        and np.array_equal(rows.target, refs.targets, equal_nan=True)
        and np.array_equal(rows.label, class_numbers(refs, cache.class_names))
        and rows.split == TextColumn.from_bytes(tag_texts(refs, 1, "split")())
        and rows.group == TextColumn.from_bytes(tag_texts(refs, 2, "group")())
    )


class MergedRow(NamedTuple):
    """The source of a row, and its description in the new file."""

    source: int  # index of the source, and row in it; a row may be used more than once
    row: int
    #: Path, label, split, group, weight, target, size and time in the new file. Digests, size in pixels and notes are copied.
    ref: ImageRef


@dataclass(frozen=True, slots=True)
class MergedRows:
    """Columns of many :class:`MergedRow`; objects would take 100 MB for a million rows."""

    sources: NDArray[np.int32]  # index of each row's source; shape (n_rows,)
    rows: NDArray[np.int64]  # row in the source; shape (n_rows,)
    refs: ImageRefs  # descriptions in the new file

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
    """Write one cache from rows of others, in order; it appears completely or not at all, and may replace a source.

    ``recipe`` is required of all sources, by default that of the first one in use; so is ``compression`` of the new file,
    but rows that are compressed otherwise are recompressed. Paths of sources are opened one at a time. Raises
    RecipeMismatchError if recipes differ, and CacheError if there is no row, a source cannot be read, or the file cannot be
    written.
    """
    if not len(rows):
        raise CacheError(f"There is no row to write to {output}.")
    descriptions = Descriptions(rows if isinstance(rows, MergedRows) else MergedRows.of(rows), recipe)
    with published(Path(output)) as (file, below), writing(Path(output)):
        for source, places in descriptions.take_all(sources):
            if FEATURES not in file:
                compression = compression or source.compression
                check_storage(source.recipe, compression)
                create_features(
                    file,
                    source.recipe,
                    source.map_shape,
                    source.pooled_column_layer,
                    compression,
                    len(descriptions.rows),
                )
            _copy_features(file, source, descriptions.rows.rows[places], places, below.check)
        header = descriptions.header(failures, layout, info or {})
        write_descriptions(file, header, descriptions.values(class_names), failures, class_names)
        if os.name == "nt":  # no file takes the place of one that is open
            for given in sources:
                if isinstance(given, FeatureCache) and given.path == Path(output):
                    given.close()


def _copy_features(
    file: Any, source: FeatureCache, rows: NDArray[np.int64], places: NDArray[np.int64], check: Callable[[], None]
) -> None:
    """Copy rows of a source to places in a new file; ``check`` raises write errors."""
    for start in range(0, len(places), CHECKED_ROWS):
        part = slice(start, start + CHECKED_ROWS)
        for name in (FEATURES, POOLED):
            copy_rows(file[name], source, name, rows[part].tolist(), places[part].tolist())
        check()


def copy_rows(target: Any, source: FeatureCache, name: str, numbers: Sequence[int], places: Sequence[int]) -> None:
    """Copy stored rows with their checksums; recompress only if the filters differ."""
    if 0 in target.shape:
        return
    offset, wanted = (0,) * len(target.shape[1:]), filters(target)
    for number, place in zip(numbers, places, strict=True):
        if source.filters(name, number) == wanted:
            mask, data = source.read_chunk(name, number)
            target.id.write_direct_chunk((place, *offset), data, mask)
        else:
            target[place] = source.read_rows(name, np.array([number]))[0]


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
    of :func:`merge`. Raises RecipeMismatchError if recipes differ, and CacheError if there is no
    row, a source cannot be read or is elsewhere, or the manifest cannot be written.
    """
    if not len(rows):
        raise CacheError(f"There is no row to write to {folder.path}.")
    descriptions, table = Descriptions(rows), NewTable(folder)
    shard, shard_row = np.empty(len(rows), np.int32), np.empty(len(rows), np.int32)
    column_layers: tuple[str, ...] = ()
    for source, places in descriptions.take_all(sources):
        home = source.path if source.places else source.path.parent
        if home != folder.path:
            raise CacheError(f"{source.path} does not lie in {folder.path}: its rows cannot be a part of that cache.")
        column_layers = column_layers or source.pooled_column_layer  # read now: the source is closed at the end
        shard[places], shard_row[places] = table.place(source, rows.rows[places])
    first = descriptions.first
    if first is None:
        raise ValueError("no source was taken")
    write_manifest(
        folder,
        descriptions.header(failures, layout, info or {}),
        descriptions.values(class_names),
        Places(table.table(), shard, shard_row, first.map_shape, first.compression),
        column_layers,
        failures,
        class_names,
    )
    folder.remove(name for name in folder.sizes() if name not in table.shards)


class NewTable:
    """The shards of a new manifest, by name: number, rows, bytes and digest."""

    def __init__(self, folder: ShardFolder) -> None:
        self.folder = folder
        self.shards: dict[str, tuple[int, int, int, bytes]] = {}

    def place(self, source: FeatureCache, rows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the shard of each row of a source in the new manifest, and the row there."""
        if source.places is None:
            number = self._add(source.path.name, source.n_images, source.size_bytes, None)
            return np.full(len(rows), number, np.int32), rows.astype(np.int32)
        old, shard = source.places.table, np.empty(len(rows), np.int32)
        for number, which in grouped(source.places.shard[rows]):
            known = int(old.n_images[number]), int(old.size_bytes[number]), old.sha256[number].tobytes()
            shard[which] = self._add(old.names[number], *known)
        return shard, source.places.shard_row[rows]

    def _add(self, name: str, n_images: int, size_bytes: int, digest: bytes | None) -> int:
        if name not in self.shards:
            self.shards[name] = len(self.shards), n_images, size_bytes, digest or self.folder.digest(name)
        return self.shards[name][0]

    def table(self) -> ShardTable:
        """Return the shards in columns."""
        _, n_images, sizes, digests = zip(*self.shards.values(), strict=True)
        return ShardTable(
            TextColumn.from_bytes(encode(name, "name of a shard") for name in self.shards),
            np.array(n_images, np.int64),
            np.array(sizes, np.int64),
            np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32),
        )
