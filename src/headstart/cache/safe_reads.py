"""Checked reads of HDF5: the structure before any value is read, and each chunk before it is decoded.

Violations are raised as ValueError or KeyError with a clause that :func:`damage` completes to a sentence.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5g, h5l, h5o, h5s, h5t
from numpy.typing import NDArray

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
    PLACE_COLUMNS,
    POOLED,
    POOLED_COLUMN_LAYER,
    ROW_COLUMNS,
    ROWS,
    SHARD_COLUMNS,
    SHARDS,
    SHUFFLE,
    ZSTD,
    Column,
    Header,
)
from headstart.errors import CacheError
from headstart.storage.bucket import Location

#: Raised by h5py for damaged files.
H5PY_ERRORS = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
    MemoryError,
)

#: Advice for damaged files.
REMEDY = "Create it again: extract-features with `overwrite=True`."

#: Bytes added to a chunk by fletcher32.
CHECKSUM_BYTES = 4

#: Filters that a dataset may have, in the order of writing (docs/cache-format.md).
PIPELINES = tuple(
    (*shuffle, *compression, FLETCHER32) for shuffle in ((), (SHUFFLE,)) for compression in ((), (DEFLATE,), (ZSTD,))
)


@contextmanager
def damage(path: Location, what: str = "") -> Iterator[None]:
    """Turn the errors of a damaged file into a CacheError."""
    try:
        yield
    except CacheError:
        raise
    except PermissionError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror}.") from error
    except H5PY_ERRORS as error:
        raise CacheError(f"{path} is damaged or no feature cache: {what}{first_line(error)}. {REMEDY}") from error


def close_file(file: Any) -> None:
    """Close an HDF5 file; ignore errors, since damage has been reported on reading."""
    with suppress(*H5PY_ERRORS):
        file.close()


def first_line(error: BaseException) -> str:
    """Return the message of an error without HDF5's internal details."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return text.splitlines()[0] if text else type(error).__name__


def filters(dataset: Any) -> tuple[int, ...]:
    """Return the filter identifiers of a dataset, in write order."""
    properties = dataset.id.get_create_plist()
    return tuple(properties.get_filter(number)[0] for number in range(properties.get_nfilters()))


def read_rows(dataset: Any, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return rows of stored or sharded rows in the given order; raise one of H5PY_ERRORS on damage."""
    values = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    if values.size:
        dataset.read(rows, values)
    return values


class StoredRows:
    """A dataset of checked structure, chunked along its first axis, whose chunks are checked before HDF5 decodes them.

    HDF5 trusts the decoded size of a chunk: if it is too small, memory behind it is returned; if it is too large, it is
    allocated. So the size is determined first.
    """

    def __init__(self, dataset: Any) -> None:
        self.id = dataset.id
        self.shape, self.dtype, self.chunk_rows = tuple(dataset.shape), dataset.dtype, int(dataset.chunks[0])
        self.chunk_bytes = int(np.prod(dataset.chunks)) * self.dtype.itemsize
        self.filters = filters(dataset)
        self._memory_type = h5t.py_create(self.dtype)
        self._zeros = (0,) * (len(self.shape) - 1)

    def __len__(self) -> int:
        return int(self.shape[0])

    def filters_of(self, row: int) -> tuple[int, ...]:
        """Return the filters of a row."""
        return self.filters

    def read_chunk(self, first: int) -> tuple[int, bytes]:
        """Return filter mask and stored bytes of the chunk that begins at a row."""
        mask, data = self.id.read_direct_chunk((first, *self._zeros))
        return mask, data

    def read(self, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Read rows into ``values`` in the given order, consecutive rows at once; raise one of H5PY_ERRORS on damage."""
        # The low-level API, since selections of h5py's indexing take longer than reading a row.
        space = self.id.get_space()
        bounds = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
        for start, end in pairwise(bounds):
            first, block = int(rows[start]), values[start:end]
            for row in range(first - first % self.chunk_rows, first + len(block), self.chunk_rows):
                self._check_chunk(*self.read_chunk(row))
            space.select_hyperslab((first, *self._zeros), block.shape)
            self.id.read(h5s.create_simple(block.shape), space, block, self._memory_type)

    def _check_chunk(self, mask: int, data: bytes) -> None:
        if FLETCHER32 not in filters_used(self.filters, mask):
            raise ValueError("a chunk has no checksum")
        check_decoded_size(self.filters, mask, data, self.chunk_bytes)


def filters_used(kinds: Sequence[int], mask: int) -> list[int]:
    """Return the filters of a dataset that were applied to a chunk."""
    return [kind for number, kind in enumerate(kinds) if not mask >> number & 1]


def check_decoded_size(kinds: Sequence[int], mask: int, data: bytes, chunk_bytes: int) -> None:
    """Raise ValueError if a chunk decodes to another size, which HDF5 does not check."""
    used = filters_used(kinds, mask)
    stored = data[:-CHECKSUM_BYTES] if FLETCHER32 in used else data
    size = len(stored)
    if ZSTD in used:
        size = zstd_size(stored)
    elif DEFLATE in used:
        size = deflate_size(stored, chunk_bytes + 1)
    if size != chunk_bytes:
        raise ValueError(f"a chunk decodes to {size:,} bytes, not {chunk_bytes:,}")


def deflate_size(stream: bytes, limit: int) -> int:
    """Return the decoded size of a zlib stream, at most ``limit``."""
    try:
        return len(zlib.decompressobj().decompress(stream, limit))
    except zlib.error as error:
        raise ValueError(f"a chunk cannot be decompressed: {error}") from error


def zstd_size(frame: bytes) -> int:
    """Return the decoded size declared by a zstd frame; −1 if there is none (RFC 8878, 3.1.1.1)."""
    if frame[:4] != b"\x28\xb5\x2f\xfd" or len(frame) < 6:
        return -1
    single_segment = frame[4] >> 5 & 1
    n_bytes = (single_segment, 2, 4, 8)[frame[4] >> 6]
    start = 5 + (1 - single_segment) + (0, 1, 2, 4)[frame[4] & 3]
    if not n_bytes or len(frame) < start + n_bytes:
        return -1
    return int.from_bytes(frame[start : start + n_bytes], "little") + (256 if n_bytes == 2 else 0)


def checked_datasets(
    file: Any, header: Header, failed: Callable[[str, Exception], None] | None = None
) -> dict[str, StoredRows]:
    """Return the datasets of a cache by name (``rows/path``), with type and shape checked.

    ``failed`` is called with each name and error; without it the first error is raised.
    """
    found: dict[str, StoredRows] = {}
    for name in (FEATURES, POOLED):
        try:
            found[name] = checked_rows(file, name, header.recipe.storage, header.n_images)
        except H5PY_ERRORS as error:
            if failed is None:
                raise
            failed(name, error)
    n_pooled = found[POOLED].shape[1] if POOLED in found else None
    expected = expected_columns(file, header.n_images, header.n_failures, n_pooled)
    return found | checked_columns(file, expected, failed)


def checked_columns(
    file: Any,
    expected: Iterable[tuple[str, Column, int | None]],
    failed: Callable[[str, Exception], None] | None = None,
) -> dict[str, StoredRows]:
    """Return columns by name, with type and shape checked; ``failed`` as for :func:`checked_datasets`."""
    found: dict[str, StoredRows] = {}
    for name, column, n_rows in expected:
        try:
            found[name] = checked_column(file, name, column, n_rows)
        except H5PY_ERRORS as error:
            if failed is None:
                raise
            failed(name, error)
    return found


def expected_columns(
    file: Any, n_images: int, n_failures: int, n_pooled: int | None
) -> Iterator[tuple[str, Column, int | None]]:
    """Yield name, description and length of every required or present column; None is any length."""
    yield CLASS_NAMES, Column(CLASS_NAMES), None
    yield POOLED_COLUMN_LAYER, Column(POOLED_COLUMN_LAYER), n_pooled
    rows = [column for column in ROW_COLUMNS if not column.is_optional or _is_linked(file, ROWS, column.name)]
    yield from ((f"{ROWS}/{column.name}", column, n_images) for column in rows)
    yield from ((f"{FAILURES}/{column.name}", column, n_failures) for column in FAILURE_COLUMNS)


def manifest_columns(
    file: Any, n_images: int, n_failures: int, n_shards: int
) -> Iterator[tuple[str, Column, int | None]]:
    """Yield name, description and length of every required or present column of a manifest; None is any length."""
    yield from expected_columns(file, n_images, n_failures, None)
    yield from ((f"{ROWS}/{column.name}", column, n_images) for column in PLACE_COLUMNS)
    yield from ((f"{SHARDS}/{column.name}", column, n_shards) for column in SHARD_COLUMNS)


def _is_linked(file: Any, group: str, name: str) -> bool:
    """Return whether a group of this file has such a member, or cannot be read; reading it then gives the reason."""
    try:
        if not file.id.links.exists(group.encode()) or file.id.links.get_info(group.encode()).type != h5l.TYPE_HARD:
            return False
        parent = h5o.open(file.id, group.encode())
        return isinstance(parent, h5g.GroupID) and bool(parent.links.exists(name.encode()))
    except H5PY_ERRORS:
        return True


def row_dtype(name: str, storage: str) -> np.dtype[Any]:
    """Return the type of ``/features`` or ``/pooled`` in the file."""
    return np.dtype(storage if name == FEATURES else "float32").newbyteorder("<")


def checked_rows(file: Any, name: str, storage: str, n_images: int) -> StoredRows:
    """Return ``/features`` or ``/pooled``: one chunk per row, none missing."""
    dataset = plain_dataset(file, name)
    check_type(name, dataset, Column(name, row_dtype(name, storage).str))
    shape = dataset.shape
    if len(shape) != (4 if name == FEATURES else 2) or shape[0] != n_images:
        raise ValueError(f"/{name} has the shape {shape} where {n_images:,} images were announced")
    if dataset.chunks != (1, *(max(1, size) for size in shape[1:])):
        raise ValueError(f"/{name} has chunks of shape {dataset.chunks}, not of one row")
    if dataset.id.dtype.itemsize * np.prod(shape[1:], dtype=np.float64) > MAX_ROW_BYTES:
        raise ValueError(f"a row of /{name} has more than {MAX_ROW_BYTES:,} bytes (shape {shape[1:]})")
    check_chunks(name, dataset)
    return StoredRows(dataset)


def checked_column(file: Any, name: str, column: Column, n_rows: int | None) -> StoredRows:
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
    return StoredRows(dataset)


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
    expected = n_chunks(dataset)
    if dataset.id.get_num_chunks() != expected:
        raise ValueError(f"/{name} has {dataset.id.get_num_chunks():,} chunks, not {expected:,}")


def n_chunks(dataset: Any) -> int:
    """Return how many chunks the shape of a dataset needs."""
    return math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))


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


def check_labels(labels: NDArray[np.int32], class_names: Sequence[str]) -> None:
    """Raise ValueError if a label has no class name, or class names are empty or not unique."""
    if len(set(class_names)) < len(class_names) or "" in class_names:
        raise ValueError("a class name is empty or occurs twice")
    if len(labels) and not -1 <= labels.min() <= labels.max() < len(class_names):
        raise ValueError(f"a label lies outside of the {len(class_names)} classes")


def checked_numbers(name: str, values: Any) -> Any:
    """Return a column, e.g. ``rows/weight``; raise ValueError if it holds a number that it may not hold.

    A weight is finite and not negative; a target is finite, or NaN for none.
    """
    if name == f"{ROWS}/weight" and values is not None:
        wrong, rule = ~((values >= 0) & (values < np.inf)), "finite number from 0"
    elif name == f"{ROWS}/target" and values is not None:
        wrong, rule = np.isinf(values), "finite number"
    else:
        return values
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"row {row} has the {name.rpartition('/')[2]} {values[row]}, which is no {rule}")
    return np.asarray(values, np.float64)
