"""Features as a plain HDF5 file readable without plug-ins; specified in docs/exchange.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5f, h5p, h5s, h5t
from numpy.typing import NDArray

from headstart.cache.datasets import encode, read_column, write_numbers
from headstart.cache.datasets import write_text as write_text_column
from headstart.cache.format import (
    COLUMN_CHUNK_BYTES,
    DIGEST,
    GZIP_LEVEL,
    MAX_DEFLATE_RATIO,
    MAX_ROW_BYTES,
    ZSTD,
    Column,
    read_text_attribute,
    write_text_attribute,
)
from headstart.cache.publish import published, writing
from headstart.cache.safe_reads import H5PY_ERRORS, StoredRows, filters, first_line
from headstart.cache.sandbox import open_hdf5
from headstart.cache.structure import check_chunks, check_type, checked_column, plain_dataset
from headstart.errors import CacheError, HeadstartError

#: HDF5 1.8 (2008): the oldest format with checksums in its headers, readable by all current software.
PORTABLE_VERSIONS = (h5f.LIBVER_V18, h5f.LIBVER_V18)

#: Superblock version of that format.
SUPERBLOCK_VERSION = 2

#: Bytes of X read at a time; at least one row.
BLOCK_BYTES = 2**22

Texts = Callable[[], Iterable[str]]


def write_portable(
    path: Path,
    *,
    blocks: Iterable[NDArray[np.float32]],
    shape: tuple[int, int],
    y: NDArray[np.integer[Any]],
    texts: Mapping[str, tuple[int, Texts]],
    attributes: Mapping[str, str],
) -> None:
    """Write a matrix and the description of its rows; the file appears completely or not at all.

    ``blocks`` are consecutive rows of X, float32; ``texts`` maps names of string datasets to their length and a
    callable that returns the strings. Raises CacheError if a text cannot be stored or the file cannot be written.
    """
    with published(path, PORTABLE_VERSIONS) as (file, below), writing(path):
        dataset, start = _create_matrix(file, shape), 0
        for block in blocks:
            dataset[start : start + len(block)] = block
            start += len(block)
            below.check()
        write_numbers(file, "y", np.asarray(y, "<i4"))
        for name, (length, strings) in texts.items():
            write_text_column(file, name, _encoded(strings, name), length)
        for name, value in attributes.items():
            write_text_attribute(file, name, value)


def _encoded(strings: Texts, name: str) -> Callable[[], Iterable[bytes]]:
    return lambda: (encode(text, name) for text in strings())


def _create_matrix(file: Any, shape: tuple[int, int]) -> Any:
    """Create ``/X``: float32 in checksummed deflate chunks, readable by every HDF5 library."""
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    properties.set_chunk((max(1, min(shape[0], COLUMN_CHUNK_BYTES // (4 * shape[1]))), shape[1]))
    properties.set_shuffle()
    properties.set_deflate(GZIP_LEVEL)
    properties.set_fletcher32()
    return h5py.Dataset(h5d.create(file.id, b"X", h5t.IEEE_F32LE, h5s.create_simple(shape), properties))


@contextmanager
def open_portable(path: Path) -> Iterator[PortableFile]:
    """Yield a file written by :func:`write_portable`; raise CacheError if it is damaged or something else."""
    try:
        with open_hdf5(path, SUPERBLOCK_VERSION) as file:
            yield PortableFile(file)
    except HeadstartError:
        raise
    except H5PY_ERRORS as error:
        raise CacheError(
            f"{path} is damaged, or no file that headstart convert --portable wrote: {first_line(error)}."
        ) from error


class PortableFile:
    """A plain HDF5 file of features, open for reading; ``shape`` is that of X."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._matrix = StoredRows(_checked_matrix(file))
        self.shape = self._matrix.shape

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield blocks of consecutive rows of X."""
        step = max(1, BLOCK_BYTES // (4 * self.shape[1]))
        for start in range(0, self.shape[0], step):
            block = np.empty((min(step, self.shape[0] - start), self.shape[1]), np.float32)
            self._matrix.read(np.arange(start, start + len(block)), block)
            yield block

    def column(self, name: str, length: int | None, dtype: str = "text") -> Any:
        """Return the values of a column: an array of numbers, or a sequence of str."""
        dataset = checked_column(self._file, name, Column(name, dtype), length)
        return read_column(StoredRows(dataset), read_text_attribute(dataset, DIGEST))

    def attribute(self, name: str) -> str:
        """Return a root attribute."""
        return read_text_attribute(self._file, name)


def _checked_matrix(file: Any) -> Any:
    """Return ``/X``, whose size in memory is bounded by its size in the file."""
    dataset = plain_dataset(file, "X")
    check_type("X", dataset, Column("X", "<f4"))
    if len(dataset.shape) != 2 or 0 in dataset.shape or dataset.chunks[1] != dataset.shape[1]:
        raise ValueError(f"/X has the shape {dataset.shape} and chunks of shape {dataset.chunks}")
    chunk_bytes = 4 * np.prod(dataset.chunks, dtype=np.float64)
    if chunk_bytes > MAX_ROW_BYTES or ZSTD in filters(dataset):
        raise ValueError(f"/X has chunks of {chunk_bytes:,.0f} bytes, or a filter that needs a plug-in")
    check_chunks("X", dataset)
    if 4 * np.prod(dataset.shape, dtype=np.float64) > MAX_DEFLATE_RATIO * dataset.id.get_storage_size():
        raise ValueError("/X claims more than what is stored can hold")
    return dataset
