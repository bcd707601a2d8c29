"""The manifest of a folder of shards: everything but the features, and the location of each row's features.

Violations are raised as ValueError or KeyError with a clause that safe_reads.py completes to a sentence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.columns import encode, read_column, write_column_layers, write_table
from headstart.cache.format import (
    COMPRESSIONS,
    FEATURES,
    MAX_ROW_BYTES,
    PLACE_COLUMNS,
    POOLED,
    POOLED_COLUMN_LAYER,
    ROWS,
    SHARD_COLUMNS,
    SHARDS,
    SHARDS_FORMAT,
    Column,
    Header,
    read_header,
    read_integer_attribute,
    read_text_attribute,
    write_text_attribute,
)
from headstart.cache.safe_reads import StoredRows, checked_columns, expected_columns
from headstart.cache.shards import SHARD_NAME, OpenShards, ShardedRows, ShardFolder, ShardTable
from headstart.cache.writer import write_descriptions
from headstart.types import Failure


@dataclass(frozen=True, slots=True)
class Places:
    """The location of the features of a cache."""

    table: ShardTable
    shard: NDArray[np.int32]  # file of each row, and row in it; shape (n_images,)
    shard_row: NDArray[np.int32]
    map_shape: tuple[int, ...]  # height, width and channels of a row of features
    compression: str  # compression of new shards: ``zstd``, ``gzip`` or ``none``. Existing shards may differ.


@dataclass(frozen=True, slots=True)
class Manifest:
    """An open, checked manifest; the shards are not checked."""

    header: Header
    columns: dict[str, StoredRows]  # its columns by name, e.g. ``rows/path``.
    places: Places  # the location of the features
    n_pooled: int  # averages per row


def manifest_columns(
    file: Any, n_images: int, n_failures: int, n_shards: int
) -> Iterator[tuple[str, Column, int | None]]:
    """Yield name, description and length of every required or present column of a manifest; None is any length."""
    yield from expected_columns(file, n_images, n_failures, None)
    yield from ((f"{ROWS}/{column.name}", column, n_images) for column in PLACE_COLUMNS)
    yield from ((f"{SHARDS}/{column.name}", column, n_shards) for column in SHARD_COLUMNS)


def read_manifest(file: Any, path: Path) -> Manifest:
    """Return the content of an open manifest.

    Raises CacheError if it is no manifest, or of another version, and one of H5PY_ERRORS if it is damaged or inconsistent.
    """
    header = read_header(file, path, SHARDS_FORMAT)
    n_shards = read_integer_attribute(file, "n_shards")
    columns = checked_columns(file, manifest_columns(file, header.n_images, header.n_failures, n_shards))

    def read(group: str, described: Sequence[Column]) -> list[Any]:
        return [read_column(columns[f"{group}/{column.name}"]) for column in described]

    table = ShardTable(*read(SHARDS, SHARD_COLUMNS))
    shard, shard_row = read(ROWS, PLACE_COLUMNS)
    places = Places(table, shard, shard_row, _read_map_shape(file), read_text_attribute(file, "compression"))
    _check_places(places, header)
    return Manifest(header, columns, places, len(columns[POOLED_COLUMN_LAYER]))


def _read_map_shape(file: Any) -> tuple[int, ...]:
    """Return the shape of a row of features."""
    shape = json.loads(read_text_attribute(file, "map_shape"))
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"the attribute map_shape is {shape!r}, not height, width and channels")
    return tuple(shape)


def _check_places(places: Places, header: Header) -> None:
    """Raise ValueError if a manifest names files outside its folder, or rows that its shards do not have."""
    table = places.table
    bad = next((name for name in table.names if not SHARD_NAME.fullmatch(name)), None)
    if bad is not None:
        raise ValueError(f"it names the shard {bad!r}, which is not the name of an .h5 file in its folder")
    if len(set(table.names)) < len(table):
        raise ValueError("it names a shard twice")
    if len(table) and min(table.n_images.min(), table.size_bytes.min()) < 0:
        raise ValueError("it names a shard with a negative number of rows or bytes")
    if places.compression not in COMPRESSIONS:
        raise ValueError(f"the attribute compression is {places.compression!r}")
    value_bytes = np.dtype(header.recipe.storage).itemsize
    if np.prod(places.map_shape, dtype=np.float64) * value_bytes > MAX_ROW_BYTES:
        raise ValueError(f"a row of features has more than {MAX_ROW_BYTES:,} bytes (shape {places.map_shape})")
    if not len(places.shard):
        return
    if not 0 <= places.shard.min() <= places.shard.max() < len(table):
        raise ValueError(f"a row lies in a shard that is not among the {len(table):,}")
    outside = (places.shard_row < 0) | (places.shard_row >= table.n_images[places.shard])
    if outside.any():
        row = int(np.argmax(outside))
        number = int(places.shard[row])
        raise ValueError(
            f"row {row} is to be row {int(places.shard_row[row])} of the shard {table.names[number]}, which has "
            f"{int(table.n_images[number])}"
        )


def check_files(folder: ShardFolder, table: ShardTable) -> None:
    """Raise ValueError if a shard is missing or of another size; its content is checked on reading."""
    sizes = folder.sizes()
    for name, expected in zip(table.names, table.size_bytes.tolist(), strict=True):
        if name not in sizes:
            raise ValueError(f"the shard {name} is missing (headstart repair computes its rows again)")
        if sizes[name] != expected:
            raise ValueError(f"the shard {name} has {sizes[name]:,} bytes, not the {expected:,} that the manifest says")


def sharded_rows(folder: ShardFolder, manifest: Manifest) -> tuple[OpenShards, dict[str, ShardedRows]]:
    """Return the shards of a manifest, and their rows as ``features`` and ``pooled``; none is opened yet."""
    places = manifest.places
    shapes: dict[str, tuple[int, ...]] = {FEATURES: places.map_shape, POOLED: (manifest.n_pooled,)}
    shards = OpenShards(folder, places.table, manifest.header.recipe, shapes)
    return shards, {name: ShardedRows(shards, name, places.shard, places.shard_row) for name in shapes}


def write_manifest(
    folder: ShardFolder,
    header: Header,
    values: Mapping[str, Any],
    places: Places,
    column_layers: Sequence[str],
    failures: Sequence[Failure],
    class_names: Sequence[str],
) -> None:
    """Publish a manifest, which makes the folder this cache; its shards must be complete.

    ``values`` are the columns of ``/rows`` (cache/writer.py). Raises CacheError if the manifest cannot be written.
    """
    table = places.table
    shards = {
        "name": lambda: (encode(name, "name of a shard") for name in table.names),
        "n_images": table.n_images,
        "size_bytes": table.size_bytes,
        "sha256": table.sha256,
    }
    rows = {**values, "shard": places.shard, "shard_row": places.shard_row}
    with folder.published() as (file, _):
        write_column_layers(file, column_layers)
        write_table(file, SHARDS, SHARD_COLUMNS, shards, len(table))
        write_descriptions(file, header, rows, failures, class_names, form=SHARDS_FORMAT, more_columns=PLACE_COLUMNS)
        file.attrs.create("n_shards", len(table), dtype="<i8")
        write_text_attribute(file, "map_shape", json.dumps(list(places.map_shape)))
        write_text_attribute(file, "compression", places.compression)
