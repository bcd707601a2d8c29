"""Merge caches of one recipe; features are copied without recompression."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstart.cache.datasets import check_storage, create_features
from headstart.cache.format import FEATURES, POOLED, ROWS, Header, now, versions
from headstart.cache.publish import published, writing
from headstart.cache.reader import FeatureCache, open_cache
from headstart.cache.rows import grouped
from headstart.cache.safe_reads import filters
from headstart.cache.writer import label_indices, ref_columns, tag_texts, write_descriptions
from headstart.errors import CacheError, RecipeMismatchError
from headstart.images.discovery.refs import ImageRefs, same_files, upper
from headstart.texts import TextColumn
from headstart.types import Failure, ImageRef, Recipe

#: Numeric columns copied with each row; other columns come from the refs of the merged rows.
INHERITED = {"sha256": ("|u1", 32), "features_sha256": ("|u1", 32), "width_px": ("<i4", 0), "height_px": ("<i4", 0)}

#: Index of an unknown class.
UNKNOWN = -2

#: Rows copied between checks for write errors.
CHECKED_ROWS = 1024


def opened_sources(
    sources: Sequence[Path | FeatureCache], numbers: NDArray[np.int32]
) -> Iterator[tuple[FeatureCache, NDArray[np.int64]]]:
    """Yield each source in use, opened one at a time if given as a path, and the positions of its rows.

    ``numbers`` is the index of each row's source. Raises CacheError if an index is out of range, or a source cannot be
    opened.
    """
    for number, places in grouped(numbers):
        if not 0 <= number < len(sources):
            raise CacheError(f"A row refers to source {number}; there are {len(sources)}.")
        with ExitStack() as stack:
            source = sources[number]
            opened = source if isinstance(source, FeatureCache) else stack.enter_context(open_cache(source))
            yield opened, places


def check_recipe(source: FeatureCache, wanted: Recipe) -> None:
    """Raise RecipeMismatchError if a source was made by another recipe."""
    differences = wanted.differences(source.recipe)
    if differences:
        raise RecipeMismatchError(
            f"{source.path} was made by another recipe (wanted ≠ there): {'; '.join(differences)}."
        )


def check_shape(source: FeatureCache, first: FeatureCache) -> None:
    """Raise CacheError if the rows of a source have other shapes than those of the first."""
    if (source.map_shape, source.n_pooled) != (first.map_shape, first.n_pooled):
        raise CacheError(
            f"{source.path} has rows of shape {source.map_shape} and {source.n_pooled} averages; {first.path} has "
            f"{first.map_shape} and {first.n_pooled}."
        )


class Descriptions:
    """Collects the descriptions of the rows of a new cache, source by source."""

    def __init__(self, rows: MergedRows) -> None:
        self.rows = rows
        self.versions: dict[str, str] = {}
        self.notes = [b""] * len(rows)
        self.columns: dict[str, NDArray[Any]] = {
            name: np.empty((len(rows), width) if width else len(rows), dtype)
            for name, (dtype, width) in INHERITED.items()
        }

    def take(self, source: FeatureCache, places: NDArray[np.int64]) -> None:
        """Copy the inherited columns of one source; raise CacheError if a row is out of range or a column damaged."""
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
        return {
            **ref_columns(refs),
            **self.columns,
            "notes": lambda: self.notes,
            "label": numbers,
        }

    def header(self, recipe: Recipe, failures: Sequence[Failure], layout: str, info: Mapping[str, Any]) -> Header:
        """Return the root attributes; versions are those of all sources and of the running software."""
        made_by = {**self.versions, **versions()}
        return Header(recipe, len(self.rows), len(failures), layout, made_by, info, created=now())


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
        and np.array_equal(rows.label, class_numbers(refs, cache.class_names))
        and rows.split == TextColumn.from_bytes(tag_texts(refs, 1, "split")())
        and rows.group == TextColumn.from_bytes(tag_texts(refs, 2, "group")())
    )


class MergedRow(NamedTuple):
    """The source of a row, and its description in the new file."""

    source: int  # index of the source, and row in it; a row may be used more than once
    row: int
    #: Path, label, split, group, size and time in the new file. Digests, size in pixels and notes are copied.
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
    """Write one cache from rows of others; it appears completely or not at all.

    Parameters
    ----------
    output : Path
        The new file; it may be one of the sources.
    sources : sequence of Path or FeatureCache
        Paths are opened one at a time.
    rows : sequence of MergedRow, or MergedRows
        The rows of the new file, in order.
    failures, class_names, layout, info
        See :class:`Header`.
    recipe : Recipe, optional
        Required of all sources; by default that of the first one in use.
    compression : str, optional
        Compression of the new file; by default that of the first source in use. Other rows are recompressed.

    Raises
    ------
    RecipeMismatchError
        If the sources were made by different recipes.
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
            _close_those_at(Path(output), sources)


def _close_those_at(path: Path, sources: Sequence[Path | FeatureCache]) -> None:
    """Close open caches that are this file."""
    for source in sources:
        if isinstance(source, FeatureCache) and source.path == path:
            source.close()


class Merger:
    """A merge in progress: features are written at once, descriptions collected until the end."""

    def __init__(self, file: Any, rows: MergedRows, recipe: Recipe | None, compression: str | None) -> None:
        self.file, self.rows, self.recipe, self.compression = file, rows, recipe, compression
        self.first: FeatureCache | None = None
        self.descriptions = Descriptions(rows)

    def take(self, source: FeatureCache, places: NDArray[np.int64], check: Callable[[], None]) -> None:
        """Copy the rows of one source; ``check`` raises write errors."""
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
        create_features(
            self.file, source.recipe, source.map_shape, source.pooled_column_layer, self.compression, len(self.rows)
        )

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
