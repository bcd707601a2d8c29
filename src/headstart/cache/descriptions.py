"""What is said of rows that come from several caches: some is said anew, the rest comes with the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.format import ROWS
from headstart.cache.header import Header, now, versions
from headstart.cache.shard import label_indices, ref_columns, tag_texts
from headstart.errors import CacheError
from headstart.images.refs import same_files, upper
from headstart.schema import Failure, Recipe
from headstart.texts import TextColumn

if TYPE_CHECKING:
    from headstart.cache.merge import MergedRows
    from headstart.cache.store import FeatureCache
    from headstart.images.refs import ImageRefs

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
