"""Several files of one recipe → one, features copied as they lie on the disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py

from headstart.cache.format import atomic_file, create_features, write_attributes
from headstart.cache.shard import write_metadata
from headstart.cache.store import FeatureCache
from headstart.errors import CacheError, RecipeMismatchError
from headstart.schema import Failure, ImageRef, ImageRow, Recipe


@dataclass(frozen=True, slots=True)
class MergedRow:
    """Where a row of the new file comes from, and what is said of it there.

    Attributes
    ----------
    source, row : int
        Index of the file among the sources, and row in it; the same row may be used several times.
    ref : ImageRef
        Path, label, split, group, size and time in the new file; digest, size in pixels and notes come with the row.
    """

    source: int
    row: int
    ref: ImageRef


def merge(
    output: Path,
    *,
    sources: Sequence[FeatureCache],
    rows: Sequence[MergedRow],
    failures: Sequence[Failure],
    class_names: Sequence[str],
    layout: str,
    info: Mapping[str, str] | None = None,
) -> None:
    """Write one cache from rows of others; it appears whole or not at all.

    Raises
    ------
    RecipeMismatchError
        If the sources were not made by one recipe.
    CacheError
        If there is no row, a source is damaged, or the file cannot be written.
    """
    if not rows:
        raise CacheError(f"There is no row to write to {output}.")
    recipe = common_recipe(sources)
    with atomic_file(output) as file:
        create_features(file, sources[0].map_shape, recipe, sources[0].compression)
        for name in ("features", "pooled"):
            copy_chunks(file[name], name, sources, rows)
        write_metadata(file, [described(sources[row.source], row) for row in rows], failures, class_names)
        write_attributes(
            file, recipe=recipe, layout=layout, n_images=len(rows), n_failures=len(failures), info=info or {}
        )


def common_recipe(sources: Sequence[FeatureCache]) -> Recipe:
    """Return the recipe of all sources; raise where they differ in it, or in how they are stored."""
    first = sources[0]
    for other in sources[1:]:
        differences = first.recipe.differences(other.recipe)
        if differences:
            raise RecipeMismatchError(
                f"{other.path} was made by another recipe than {first.path}: {'; '.join(differences)}."
            )
        if (other.compression, other.map_shape) != (first.compression, first.map_shape):
            raise CacheError(
                f"{other.path} is stored otherwise than {first.path}: {other.compression}, {other.map_shape} "
                f"≠ {first.compression}, {first.map_shape}. Make it anew with --overwrite."
            )
    return first.recipe


def copy_chunks(target: h5py.Dataset, name: str, sources: Sequence[FeatureCache], rows: Sequence[MergedRow]) -> None:
    """Copy one chunk per row, with its checksum, without decompressing it."""
    target.resize(len(rows), axis=0)
    zeros = (0,) * (target.ndim - 1)
    for number, row in enumerate(rows):
        mask, data = sources[row.source].read_chunk(name, row.row)
        target.id.write_direct_chunk((number, *zeros), data, mask)


def described(source: FeatureCache, row: MergedRow) -> ImageRow:
    """Return what the new file says of a row."""
    columns = source.rows
    return ImageRow(
        row.ref,
        columns.sha256[row.row],
        int(columns.width_px[row.row]),
        int(columns.height_px[row.row]),
        columns.notes[row.row],
    )
