"""Cache format, version 1: names, types, attributes. The specification is docs/cache-format.md."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from headstart.errors import CacheError
from headstart.schema import POOLED_LAYERS, Recipe

FORMAT = "headstart-cache"

#: Raise it when a reader of the old version would misread the new one, and keep the old golden file.
FORMAT_VERSION = 1

#: From the first of these versions of HDF5 on, headers and chunk indexes carry checksums of their own.
LIBVER = ("v110", "v110")

#: Row columns with a number in each row, and their types.
NUMBERS = {
    "label": "<i4",
    "size_bytes": "<i8",
    "mtime_ns": "<i8",
    "width_px": "<i4",
    "height_px": "<i4",
}

#: Row columns with a text in each row.
TEXTS = ("path", "split", "group", "notes")

#: Columns of the failures.
FAILURE_TEXTS = ("path", "label", "split", "group", "reason")
FAILURE_NUMBERS = {"size_bytes": "<i8", "mtime_ns": "<i8"}

#: Rows per chunk of a column.
COLUMN_CHUNK = 4096

COMPRESSIONS = ("zstd", "gzip", "none")


def compression_filter(compression: str) -> Mapping[str, Any]:
    """Return h5py's options for a compression; level 3 of zstd and 4 of gzip are their makers' middle ways."""
    if compression == "zstd":
        return dict(hdf5plugin.Zstd(clevel=3))
    if compression == "gzip":
        return {"compression": "gzip", "compression_opts": 4, "shuffle": True}
    if compression == "none":
        return {}
    raise CacheError(f"Unknown compression {compression!r}. Expected one of: {', '.join(COMPRESSIONS)}.")


def create_features(file: h5py.File, map_shape: Sequence[int], recipe: Recipe, compression: str) -> None:
    """Create the datasets ``features`` and ``pooled``, empty; a row is a chunk, so that it can move without decompression."""
    n_pooled = sum(width for name, width in POOLED_LAYERS if name in recipe.pooled_layers)
    dtype = {"float16": "<f2", "float32": "<f4"}[recipe.storage]
    options = {"fletcher32": True, **compression_filter(compression)}
    file.create_dataset(
        "features", (0, *map_shape), dtype, maxshape=(None, *map_shape), chunks=(1, *map_shape), **options
    )
    file.create_dataset("pooled", (0, n_pooled), "<f4", maxshape=(None, n_pooled), chunks=(1, n_pooled), **options)
    columns = [name for name, width in POOLED_LAYERS if name in recipe.pooled_layers for _ in range(width)]
    write_texts(file, "pooled_columns", columns)


def write_texts(group: h5py.Group, name: str, texts: Sequence[str]) -> None:
    """Write texts as fixed-length UTF-8: unlike variable length, they lie in chunks with a checksum."""
    encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
    length = max((len(text) for text in encoded), default=1) or 1
    values = np.array(encoded, dtype=f"S{length}")
    dtype = h5py.string_dtype("utf-8", length)
    write_column(group, name, values.astype(dtype))


def write_column(group: h5py.Group, name: str, values: NDArray[Any]) -> None:
    """Write one value per row, compressed and with checksums."""
    chunk = (min(max(len(values), 1), COLUMN_CHUNK), *values.shape[1:])
    group.create_dataset(
        name, data=values, chunks=chunk, maxshape=(None, *values.shape[1:]), compression="gzip", fletcher32=True
    )


def read_texts(values: NDArray[Any]) -> list[str]:
    """Return texts as Python strings; bytes that are not UTF-8 become lone surrogates, as ``os.fsdecode`` makes them."""
    return [text.decode("utf-8", "surrogateescape") for text in values.tolist()]


def versions() -> dict[str, str]:
    """Return the versions of what made the file."""
    found = {"python": platform.python_version(), "hdf5": h5py.version.hdf5_version}
    for name in ("headstart", "tensorflow", "keras", "numpy", "h5py", "hdf5plugin", "pillow"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_attributes(
    file: h5py.File, *, recipe: Recipe, layout: str, n_images: int, n_failures: int, info: Mapping[str, str]
) -> None:
    """Write what holds for the whole file."""
    file.attrs["format"] = FORMAT
    file.attrs["format_version"] = FORMAT_VERSION
    file.attrs["recipe"] = recipe.to_json()
    file.attrs["recipe_fingerprint"] = recipe.fingerprint
    file.attrs["layout"] = layout
    file.attrs["n_images"] = n_images
    file.attrs["n_failures"] = n_failures
    file.attrs["created"] = datetime.now(UTC).isoformat(timespec="seconds")
    file.attrs["versions"] = json.dumps(versions(), sort_keys=True)
    file.attrs["info"] = json.dumps(dict(info), sort_keys=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[h5py.File]:
    """Yield a new HDF5 file that appears under ``path`` when it is complete and on disk, or not at all.

    Raises
    ------
    CacheError
        If it cannot be written; the message says why.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with h5py.File(partial, "w", libver=LIBVER, track_order=False) as file:
            yield file
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    except (OSError, RuntimeError) as error:
        if isinstance(error, CacheError):
            raise
        raise CacheError(f"{path} cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the system write a file or folder to the disk; folders cannot be synced on Windows."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
