"""Checked reads: return values or raise a CacheError."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import numpy as np
from h5py import h5s, h5t
from numpy.typing import NDArray

from headstart.cache.format import DEFLATE, FLETCHER32, ZSTD
from headstart.errors import CacheError
from headstart.storage.address import Location

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


class StoredRows:
    """A dataset of checked structure, whose chunks are checked before HDF5 decodes them.

    HDF5 trusts the decoded size of a chunk: if it is too small, memory behind it is returned; if it is too large, it is
    allocated. So the size is determined first.

    Parameters
    ----------
    dataset : h5py.Dataset
        Chunked along its first axis only.
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
        """Read rows into ``values`` in the given order; consecutive rows at once.

        Raises
        ------
        ValueError
            If a chunk has no checksum or does not decode to its size.
        OSError
            If HDF5 cannot read it, e.g. because its checksum differs.
        """
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
        used = [kind for number, kind in enumerate(self.filters) if not mask >> number & 1]
        if FLETCHER32 not in used:
            raise ValueError("a chunk has no checksum")
        stored = data[:-CHECKSUM_BYTES]
        if ZSTD in used:
            size = zstd_size(stored)
        elif DEFLATE in used:
            size = deflate_size(stored, self.chunk_bytes + 1)
        else:
            size = len(stored)
        if size != self.chunk_bytes:
            raise ValueError(f"a chunk decodes to {size:,} bytes, not {self.chunk_bytes:,}")


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
