"""Several caches of one recipe → one; features are copied as they are stored, without decompression."""

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


#: Numeric columns that come with a row of a source; everything else is said anew.
INHERITED = {"sha256": ("|u1", 32), "features_sha256": ("|u1", 32), "width_px": ("<i4", 0), "height_px": ("<i4", 0)}

#: In place of the index of a class that there is not.
UNKNOWN = -2


class Descriptions:
    """The descriptions of the rows of a new cache, collected source by source.

    Parameters
    ----------
    rows : MergedRows
        The rows of the new cache.
    """

    def __init__(self, rows: MergedRows) -> None:
        self.rows = rows
        self.versions: dict[str, str] = {}
        self.notes = [b""] * len(rows)
        self.columns: dict[str, NDArray[Any]] = {
            name: np.empty((len(rows), width) if width else len(rows), dtype)
            for name, (dtype, width) in INHERITED.items()
        }

    def take(self, source: FeatureCache, places: NDArray[np.int64]) -> None:
        """Take what comes with the rows of one source.

        Raises
        ------
        CacheError
            If it has not so many rows, or a column of it is damaged.
        """
        numbers = self.rows.rows[places]
        if not 0 <= numbers.min() <= numbers.max() < source.n_images:
            raise CacheError(f"{source.path} has {source.n_images} rows. A row was asked for that is not among them.")
        self.versions |= source.versions
        for name, column in self.columns.items():
            column[places] = source.read_column(f"{ROWS}/{name}")[numbers]
        notes: TextColumn = source.read_column(f"{ROWS}/notes")
        for place, number in zip(places, numbers, strict=True):
            self.notes[place] = notes.raw(number)

    def values(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return the columns of ``/rows``.

        Raises
        ------
        CacheError
            If a label is not among the classes.
        """
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
        """Return the root attributes of the new cache; its versions are those of all sources, and of now."""
        made_by = {**self.versions, **versions()}
        return Header(recipe, len(self.rows), len(failures), layout, made_by, info, created=now())


def class_numbers(refs: ImageRefs, class_names: Sequence[str]) -> NDArray[np.int32]:
    """Return the index of each image's class, −1 where it is unlabelled, :data:`UNKNOWN` where there is no such class."""
    labels = label_indices(class_names)
    return np.array([labels.get(label, UNKNOWN) for label, _, _ in refs.tags], np.int32)[refs.codes]


def says(cache: FeatureCache, refs: ImageRefs) -> bool:
    """Return whether the rows of a cache say this of their images, but for parts of a second."""
    rows = cache.rows
    return (
        rows.path == refs.paths
        and np.array_equal(rows.size_bytes, refs.sizes)
        and bool(same_files(rows.mtime_ns, upper(rows.stamp), refs.times, upper(refs.stamps)).all())
        and np.array_equal(rows.label, class_numbers(refs, cache.class_names))
        and rows.split == TextColumn.from_bytes(tag_texts(refs, 1, "split")())
        and rows.group == TextColumn.from_bytes(tag_texts(refs, 2, "group")())
    )


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
            _close_those_at(Path(output), sources)


def _close_those_at(path: Path, sources: Sequence[Path | FeatureCache]) -> None:
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
