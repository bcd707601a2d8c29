"""The two large datasets of a cache: one row, one chunk, one checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import hdf5plugin  # noqa: F401  (registers the zstd filter)
import numpy as np
from h5py import h5d, h5p, h5s, h5t, h5z
from numpy.typing import NDArray

from headstart.cache.columns import encode, write_text
from headstart.cache.format import (
    COMPRESSIONS,
    DEFLATE,
    FEATURES,
    FORMAT_VERSION,
    GZIP_LEVEL,
    MAX_ROW_BYTES,
    POOLED,
    POOLED_COLUMN_LAYER,
    STORAGES,
    ZSTD,
    ZSTD_LEVEL,
    column_layers,
)
from headstart.errors import CacheError
from headstart.schema import ImageRow, Recipe


def create_features(
    file: Any,
    recipe: Recipe,
    map_shape: Sequence[int],
    n_pooled: int,
    compression: str,
    n_images: int | None = None,
) -> None:
    """Create ``/features``, ``/pooled`` and ``/pooled_column_layer``; without ``n_images`` they grow.

    ``/pooled`` is never compressed: a row of it would shrink by a sixth and take five times as long to read, and so it
    can be read without any plug-in (docs/adr/0001-cache-format.md).

    Raises
    ------
    CacheError
        If a row is larger than a cache can hold, or the pooled layers do not have ``n_pooled`` columns.
    """
    layers = column_layers(recipe.pooled_layers, n_pooled) if n_pooled else []
    create_rows(file, FEATURES, map_shape, recipe.storage, compression, n_images)
    create_rows(file, POOLED, (n_pooled,), "float32", "none", n_images)
    write_text(file, POOLED_COLUMN_LAYER, lambda: (encode(name, "layer") for name in layers), n_pooled)


def create_rows(
    file: Any, name: str, row_shape: Sequence[int], dtype: str, compression: str, n_images: int | None
) -> None:
    """Create a dataset with one chunk per row."""
    row_bytes = np.dtype(dtype).itemsize * int(np.prod(row_shape, dtype=np.int64))
    if row_bytes > MAX_ROW_BYTES:
        raise CacheError(
            f"One row of /{name} would have {row_bytes:,} bytes (shape {tuple(row_shape)}); at most {MAX_ROW_BYTES:,} are "
            "possible. Choose a deeper layer or a smaller input."
        )
    shape = (n_images or 0, *row_shape)
    # A chunk may only be longer than its dataset where the dataset can grow.
    maximum = tuple(size or h5s.UNLIMITED for size in shape)
    stored = h5t.IEEE_F16LE if dtype == "float16" else h5t.IEEE_F32LE
    h5d.create(file.id, name.encode(), stored, h5s.create_simple(shape, maximum), pipeline(row_shape, compression))


def pipeline(row_shape: Sequence[int], compression: str) -> Any:
    """Return the HDF5 properties of one row per chunk; the checksum comes last, over what lies on the disk."""
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    properties.set_fill_time(h5d.FILL_TIME_NEVER)
    properties.set_chunk((1, *(max(1, size) for size in row_shape)))
    if compression == "zstd":
        properties.set_filter(ZSTD, h5z.FLAG_MANDATORY, (ZSTD_LEVEL,))
    elif compression == "gzip":
        properties.set_deflate(GZIP_LEVEL)
    properties.set_fletcher32()
    return properties


def compression_of(used: Sequence[int]) -> str:
    """Return ``zstd``, ``gzip`` or ``none`` for the filters of a dataset."""
    return "zstd" if ZSTD in used else "gzip" if DEFLATE in used else "none"


def check_storage(recipe: Recipe, compression: str) -> None:
    """Raise CacheError where this version cannot store what is asked for."""
    if recipe.storage not in STORAGES:
        raise CacheError(f"Features are stored as {' or '.join(STORAGES)}. Received: {recipe.storage!r}.")
    if compression not in COMPRESSIONS:
        raise CacheError(f"Features are compressed by {', '.join(COMPRESSIONS)}. Received: {compression!r}.")
    if recipe.format_version != FORMAT_VERSION:
        raise CacheError(f"This headstart writes format version {FORMAT_VERSION}, not {recipe.format_version}.")


def stored(values: NDArray[Any], dtype: str, rows: Sequence[ImageRow]) -> NDArray[Any]:
    """Return the values in their storage type.

    Raises
    ------
    CacheError
        If one is not finite there; the message names the image.
    """
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(values, dtype=np.dtype(dtype).newbyteorder("<"))
    largest = float(np.finfo(dtype).max)
    if not values.size or (values.min() >= -largest and values.max() <= largest):  # false where a value is NaN
        return cast
    good = np.isfinite(cast)
    if not good.all():
        row = int(np.argmin(good.reshape(len(cast), -1).all(axis=1)))
        value = values[row][~good[row]].flat[0]
        remedy = "Store float32 (--storage float32)." if np.isfinite(value) else "The network computed no number there."
        raise CacheError(f"{rows[row].ref.path}: a feature is {value}, which {dtype} cannot hold. {remedy}")
    return cast


def row_digest(features: NDArray[Any], pooled: NDArray[np.float32]) -> bytes:
    """Return the SHA-256 of a row as it is stored: features, then averages, little-endian, C order."""
    digest = hashlib.sha256(features.data)
    digest.update(pooled.data)
    return digest.digest()
