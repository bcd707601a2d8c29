"""Check the structure of an HDF5 file before any value is read.

Violations are raised as ValueError or KeyError with a clause that safe_reads.py completes to a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5g, h5l, h5o, h5t

from headstart.cache.format import (
    CLASS_NAMES,
    DEFLATE,
    FAILURE_COLUMNS,
    FAILURES,
    FEATURES,
    FLETCHER32,
    MAX_CHUNK_BYTES,
    MAX_DEFLATE_RATIO,
    MAX_ROW_BYTES,
    MAX_TEXT_BYTES,
    POOLED,
    POOLED_COLUMN_LAYER,
    ROW_COLUMNS,
    ROWS,
    SHUFFLE,
    ZSTD,
    Column,
    Header,
)
from headstart.cache.safe_reads import H5PY_ERRORS, StoredRows, filters

#: Filters that a dataset may have, in the order of writing (docs/cache-format.md).
PIPELINES = tuple(
    (*shuffle, *compression, FLETCHER32) for shuffle in ((), (SHUFFLE,)) for compression in ((), (DEFLATE,), (ZSTD,))
)


def checked_datasets(file: Any, header: Header) -> dict[str, StoredRows]:
    """Return the datasets of a cache by name (``rows/path``), with type and shape checked."""
    n_images = header.n_images
    features = checked_rows(file, FEATURES, header.recipe.storage, n_images, 4)
    pooled = checked_rows(file, POOLED, "float32", n_images, 2)
    found = {FEATURES: features, POOLED: pooled}
    for name, column, n_rows in expected_columns(file, n_images, header.n_failures, pooled.shape[1]):
        found[name] = checked_column(file, name, column, n_rows)
    return {name: StoredRows(dataset) for name, dataset in found.items()}


def expected_columns(
    file: Any, n_images: int, n_failures: int, n_pooled: int | None
) -> Iterator[tuple[str, Column, int | None]]:
    """Yield name, description and length of every required or present column; None is any length."""
    yield CLASS_NAMES, Column(CLASS_NAMES), None
    yield POOLED_COLUMN_LAYER, Column(POOLED_COLUMN_LAYER), n_pooled
    rows = [column for column in ROW_COLUMNS if not column.is_optional or _is_linked(file, ROWS, column.name)]
    yield from ((f"{ROWS}/{column.name}", column, n_images) for column in rows)
    yield from ((f"{FAILURES}/{column.name}", column, n_failures) for column in FAILURE_COLUMNS)


def _is_linked(file: Any, group: str, name: str) -> bool:
    """Return whether a group of this file has such a member, or cannot be read; reading it then gives the reason."""
    try:
        if not file.id.links.exists(group.encode()) or file.id.links.get_info(group.encode()).type != h5l.TYPE_HARD:
            return False
        parent = h5o.open(file.id, group.encode())
        return isinstance(parent, h5g.GroupID) and bool(parent.links.exists(name.encode()))
    except H5PY_ERRORS:
        return True


def checked_rows(file: Any, name: str, dtype: str, n_images: int, n_dimensions: int) -> Any:
    """Return ``/features`` or ``/pooled``: one chunk per row, none missing."""
    dataset = plain_dataset(file, name)
    check_type(name, dataset, Column(name, np.dtype(dtype).newbyteorder("<").str))
    shape = dataset.shape
    if len(shape) != n_dimensions or shape[0] != n_images:
        raise ValueError(f"/{name} has the shape {shape} where {n_images:,} images were announced")
    if dataset.chunks != (1, *(max(1, size) for size in shape[1:])):
        raise ValueError(f"/{name} has chunks of shape {dataset.chunks}, not of one row")
    if dataset.id.dtype.itemsize * np.prod(shape[1:], dtype=np.float64) > MAX_ROW_BYTES:
        raise ValueError(f"a row of /{name} has more than {MAX_ROW_BYTES:,} bytes (shape {shape[1:]})")
    check_chunks(name, dataset)
    return dataset


def checked_column(file: Any, name: str, column: Column, n_rows: int | None) -> Any:
    """Return a column whose size in memory is bounded by its size in the file."""
    dataset = plain_dataset(file, name)
    check_type(name, dataset, column)
    expected = (len(dataset) if n_rows is None else n_rows, *([column.width] if column.width else []))
    if dataset.shape != expected:
        raise ValueError(f"/{name} has the shape {dataset.shape}, not {expected}")
    value_bytes = dataset.id.get_type().get_size()
    if value_bytes * np.prod(dataset.chunks, dtype=np.float64) > MAX_CHUNK_BYTES:
        raise ValueError(f"/{name} has chunks of more than {MAX_CHUNK_BYTES:,} bytes (shape {dataset.chunks})")
    if dataset.chunks[1:] != dataset.shape[1:]:
        raise ValueError(f"/{name} has chunks of shape {dataset.chunks}, not of whole rows")
    if ZSTD in filters(dataset):
        raise ValueError(f"/{name} is compressed by zstd; columns are for readers without a plug-in")
    check_chunks(name, dataset)
    raw_bytes = value_bytes * np.prod(dataset.shape, dtype=np.float64)
    if raw_bytes > MAX_DEFLATE_RATIO * dataset.id.get_storage_size():
        raise ValueError(f"/{name} claims {raw_bytes:,.0f} bytes, more than what is stored can hold")
    return dataset


def check_type(name: str, dataset: Any, column: Column) -> None:
    """Raise ValueError if the values are not of the type of a column."""
    kind = dataset.id.get_type()
    if column.is_text:
        right = isinstance(kind, h5t.TypeStringID) and not kind.is_variable_str() and kind.get_size() <= MAX_TEXT_BYTES
    else:
        right = bool(kind.equal(h5t.py_create(np.dtype(column.dtype))))
    if not right:
        expected = "strings of fixed length" if column.is_text else column.dtype
        raise ValueError(f"/{name} is not of the type {expected}")


def check_chunks(name: str, dataset: Any) -> None:
    """Raise ValueError if a chunk has no checksum, uses another filter, or is missing, which would read as zeros."""
    used = filters(dataset)
    if used not in PIPELINES:  # HDF5 believes whatever size a longer chain decodes to
        raise ValueError(f"/{name} has the filters {used}; expected: {', '.join(map(str, PIPELINES))}")
    per_axis = zip(dataset.shape, dataset.chunks, strict=True)
    expected = int(np.prod([-(-size // chunk) for size, chunk in per_axis], dtype=np.float64))
    if dataset.id.get_num_chunks() != expected:
        raise ValueError(f"/{name} has {dataset.id.get_num_chunks():,} chunks, not {expected:,}")


def plain_dataset(file: Any, name: str) -> Any:
    """Return a dataset stored in this file: no soft or external link, no external storage, not virtual."""
    parent = file.id
    for part in name.encode().split(b"/"):
        if not isinstance(parent, h5g.GroupID) and parent is not file.id:
            raise ValueError(f"/{name} lies in something that is not a group")
        if not parent.links.exists(part):
            raise KeyError(f"/{name} is missing")
        if parent.links.get_info(part).type != h5l.TYPE_HARD:
            raise ValueError(f"/{name} is a link to somewhere else")
        parent = h5o.open(parent, part)
    if not isinstance(parent, h5d.DatasetID):
        raise ValueError(f"/{name} is not a dataset")
    properties = parent.get_create_plist()
    if properties.get_layout() != h5d.CHUNKED or properties.get_external_count():
        raise ValueError(f"/{name} is not stored in chunks in this file")
    return h5py.Dataset(parent)


def check_labels(labels: np.ndarray[Any, np.dtype[np.int32]], class_names: Sequence[str]) -> None:
    """Raise ValueError if a label has no class name, or class names are empty or not unique."""
    if len(set(class_names)) < len(class_names) or "" in class_names:
        raise ValueError("a class name is empty or occurs twice")
    if len(labels) and not -1 <= labels.min() <= labels.max() < len(class_names):
        raise ValueError(f"a label lies outside of the {len(class_names)} classes")
