"""HDF5 files of other layouts: those of other programs, and plain files of features readable without plug-ins.

The plain files are specified in docs/exchange.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5f, h5g, h5l, h5o
from numpy.typing import NDArray

from headstart.cache.columns import create_column, encode, read_column, write_numbers, write_text
from headstart.cache.format import (
    DEFLATE,
    FLETCHER32,
    MAX_DEFLATE_RATIO,
    MAX_ROW_BYTES,
    MAX_TEXT_BYTES,
    SHUFFLE,
    SIGNATURE,
    SUPERBLOCK_VERSION,
    ZSTD,
    Column,
    form_of,
    read_text_attribute,
    write_text_attribute,
)
from headstart.cache.safe_reads import (
    H5PY_ERRORS,
    StoredRows,
    check_chunks,
    check_decoded_size,
    check_type,
    checked_column,
    filters,
    first_line,
    n_chunks,
    plain_dataset,
    read_rows,
)
from headstart.cache.sandbox import open_hdf5, published
from headstart.errors import CacheError, HeadstartError
from headstart.storage.publishing import writing
from headstart.texts import listed

#: Identifier of LZF, which h5py brings (https://docs.h5py.org/en/stable/high/dataset.html#lossless-compression-filters).
LZF = 32000

#: Maximum number of objects read, and of datasets named in a message.
MAX_OBJECTS, LISTED = 1000, 8

#: Bytes of an array in memory at a time; at least one row.
BLOCK_BYTES = 2**22

#: Bytes of variable-length strings in memory at a time.
TEXT_BYTES = 2**28

#: ``OtherArray.dtype`` of variable-length strings.
TEXT = np.dtype("S")


@contextmanager
def open_other(path: Path) -> Iterator[OtherFile]:
    """Yield an HDF5 file of any layout; raise CacheError if it cannot be read."""
    try:
        with open_hdf5(path, superblock=None) as file:
            yield OtherFile(file, path)
    except HeadstartError:
        raise
    except H5PY_ERRORS as error:
        raise CacheError(f"{path} cannot be read as HDF5: {first_line(error)}.") from error


def check_is_file(path: Path) -> None:
    """Raise CacheError if there is no file, or it was written by another program."""
    if path.is_dir():
        raise CacheError(f"{path} is a folder. Expected: a cache, a file that extract-features wrote.")
    if not path.is_file():
        raise CacheError(f"There is no cache at {path}. Expected: a file that extract-features wrote.")
    refuse_other(path)


def refuse_other(path: Path) -> None:
    """Raise CacheError if a file is HDF5 with a superblock version that no cache has."""
    found = b""
    with suppress(OSError), path.open("rb") as start:  # errors are reported on opening
        found = start.read(len(SIGNATURE) + 1)
    if found[:-1] != SIGNATURE or found[-1] >= SUPERBLOCK_VERSION:
        return
    with open_other(path) as file:
        raise CacheError(
            f"{path} is an HDF5 file, but no feature cache. It holds {file.summary()}. Expected: a file that "
            "extract-features wrote. If it has features, make a cache of them: "
            f"headstart import {path} -o features/NAME.h5 --name NAME"
        )


class OtherFile:
    """An HDF5 file of any layout, open for reading; ``form`` is its attribute ``format``, empty if there is none."""

    def __init__(self, file: Any, path: Path) -> None:
        self._path, self._size_bytes = path, path.stat().st_size
        self._found = _datasets_below(file.id)
        self.form = form_of(file)

    def names(self) -> list[str]:
        """Return the names of the datasets; those in groups as ``group/name``."""
        return sorted(self._found)

    def summary(self) -> str:
        """Return a description of the datasets with shapes and types."""
        names = self.names()
        return listed((f"{name} ({_described(self._found[name])})" for name in names), LISTED) or "no dataset"

    def array(self, *names: str) -> OtherArray | None:
        """Return the first dataset with one of these names, or None.

        Raises CacheError if it cannot be read with bounded memory, or is not stored in this file.
        """
        name = next((name for name in names if name in self._found), None)
        if name is None:
            return None
        try:
            return OtherArray(name, h5py.Dataset(self._found[name]), self._size_bytes)
        except ValueError as error:
            raise CacheError(f"{self._path}: the dataset {name} {error}.") from error


def _datasets_below(group: Any, prefix: str = "") -> dict[str, Any]:
    """Return the datasets of a file and of the groups in its root, by name; links are skipped."""
    found: dict[str, Any] = {}
    for _, name in zip(range(MAX_OBJECTS), group, strict=False):
        if group.links.get_info(name).type != h5l.TYPE_HARD:
            continue
        below, text = h5o.open(group, name), prefix + name.decode("utf-8", "surrogateescape")
        if isinstance(below, h5d.DatasetID):
            found[text] = below
        elif isinstance(below, h5g.GroupID) and not prefix and len(found) < MAX_OBJECTS:
            found |= _datasets_below(below, f"{text}/")
    return found


def _described(dataset: Any) -> str:
    try:
        kind = "text" if h5py.check_string_dtype(dataset.dtype) else str(dataset.dtype)
    except H5PY_ERRORS:
        kind = "another type"
    return f"{' × '.join(f'{size:,}' for size in dataset.shape or ()) or 'one value'}, {kind}"


class OtherArray:
    """A dataset that can be read with bounded memory.

    Raises ValueError if it is not completely stored in the file, or of an unsupported type or compression.
    """

    def __init__(self, name: str, dataset: Any, file_bytes: int) -> None:
        self.name, self._dataset = name, dataset
        self.shape: tuple[int, ...] = tuple(dataset.shape or ())
        self._is_text = (info := h5py.check_string_dtype(dataset.dtype)) is not None and info.length is None
        self.dtype: np.dtype[Any] = TEXT if self._is_text else dataset.dtype
        self._file_bytes = file_bytes
        if dataset.shape is None or self.dtype.kind not in "biufS":
            raise ValueError(f"holds neither numbers nor text ({_described(dataset)})")
        _check_storage(dataset)

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the values in blocks of rows; strings of variable length as bytes."""
        row_bytes = max(1, self._dataset.dtype.itemsize * math.prod(self.shape[1:]))
        step = max(1, BLOCK_BYTES // row_bytes)
        if self._is_text:
            step = max(1, min(step, TEXT_BYTES // self._file_bytes))
        elif self._dataset.chunks and self._dataset.chunks[0] * row_bytes <= MAX_ROW_BYTES:
            step = -(-step // self._dataset.chunks[0]) * self._dataset.chunks[0]  # no chunk is decoded twice
        for start in range(0, self.shape[0], step):
            _check_chunks_of(self._dataset, start, min(start + step, self.shape[0]))
            block = self._dataset[start : start + step]
            yield _as_bytes(block) if self._is_text else block

    def scalar(self) -> Any:
        """Return the value of a scalar dataset."""
        value = self._dataset[()]
        return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _as_bytes(block: NDArray[Any]) -> NDArray[Any]:
    """Return strings of variable length as an array of fixed length."""
    values = [value if isinstance(value, bytes) else b"" for value in block.ravel().tolist()]
    if any(len(value) > MAX_TEXT_BYTES or b"\0" in value for value in values):
        raise ValueError(f"a string has a NUL or more than {MAX_TEXT_BYTES:,} bytes")
    return np.array(values, f"S{max(1, max(map(len, values), default=1))}").reshape(block.shape)


def _check_storage(dataset: Any) -> None:
    """Raise ValueError if values are not completely stored in the file, or a row or chunk is too large."""
    properties = dataset.id.get_create_plist()
    raw_bytes = dataset.dtype.itemsize * math.prod(dataset.shape)
    stored_bytes = dataset.id.get_storage_size()
    if properties.get_external_count() or properties.get_layout() == h5d.VIRTUAL:
        raise ValueError("lies in another file")
    if dataset.chunks is None:
        if stored_bytes < raw_bytes:
            raise ValueError(f"is not stored: {stored_bytes:,} bytes where its shape needs {raw_bytes:,}")
        chunk_bytes = dataset.dtype.itemsize * math.prod(dataset.shape[1:])
    else:
        unknown = set(filters(dataset)) - {DEFLATE, SHUFFLE, FLETCHER32, LZF}
        if unknown:
            raise ValueError(f"is compressed by the filters {sorted(unknown)}, which are not read: write it with gzip")
        if dataset.id.get_num_chunks() != n_chunks(dataset) or raw_bytes > MAX_DEFLATE_RATIO * stored_bytes:
            raise ValueError("is not stored as a whole: parts of it were never written")
        chunk_bytes = dataset.dtype.itemsize * max(math.prod(dataset.chunks), math.prod(dataset.shape[1:]))
    if chunk_bytes > MAX_ROW_BYTES:
        raise ValueError(f"has rows or chunks of {chunk_bytes:,} bytes; at most {MAX_ROW_BYTES:,} are possible")


def _check_chunks_of(dataset: Any, start: int, end: int) -> None:
    """Raise ValueError if a chunk of these rows decodes to another size, which HDF5 does not check."""
    kinds = filters(dataset)
    if not dataset.chunks or LZF in kinds:
        return
    chunk_bytes = dataset.dtype.itemsize * math.prod(dataset.chunks)
    steps = [range(0, size, chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
    steps[0] = range(start - start % dataset.chunks[0], end, dataset.chunks[0])
    for place in np.ndindex(*map(len, steps)):
        mask, data = dataset.id.read_direct_chunk(tuple(step[i] for step, i in zip(steps, place, strict=True)))
        check_decoded_size(kinds, mask, data, chunk_bytes)


#: HDF5 1.8 (2008): the oldest format with checksums in its headers, readable by all current software.
PORTABLE_VERSIONS = (h5f.LIBVER_V18, h5f.LIBVER_V18)

#: Superblock version of that format.
PORTABLE_SUPERBLOCK_VERSION = 2

Texts = Callable[[], Iterable[str]]


def write_portable(
    path: Path,
    *,
    blocks: Iterable[NDArray[np.float32]],
    shape: tuple[int, int],
    numbers: Mapping[str, NDArray[Any]],
    texts: Mapping[str, tuple[int, Texts]],
    attributes: Mapping[str, str],
) -> None:
    """Write a matrix and the description of its rows; the file appears completely or not at all.

    ``blocks`` are consecutive rows of X, float32; ``numbers`` are columns of numbers by name; ``texts`` maps names of
    string datasets to their length and a callable that returns the strings. Raises CacheError if a text cannot be stored
    or the file cannot be written.
    """
    with published(path, PORTABLE_VERSIONS) as (file, below), writing(path):
        dataset, start = create_column(file, "X", "<f4", shape), 0
        for block in blocks:
            dataset[start : start + len(block)] = block
            start += len(block)
            below.check()
        for name, values in numbers.items():
            write_numbers(file, name, values)
        for name, (length, strings) in texts.items():
            write_text(file, name, partial(_encoded, strings, name), length)
        for name, value in attributes.items():
            write_text_attribute(file, name, value)


def _encoded(strings: Texts, name: str) -> Iterator[bytes]:
    return (encode(text, name) for text in strings())


@contextmanager
def open_portable(path: Path) -> Iterator[PortableFile]:
    """Yield a file written by :func:`write_portable`; raise CacheError if it is damaged or something else."""
    try:
        with open_hdf5(path, PORTABLE_SUPERBLOCK_VERSION) as file:
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
        self._matrix = _checked_matrix(file)
        self.shape = self._matrix.shape

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield blocks of consecutive rows of X."""
        step = max(1, BLOCK_BYTES // (4 * self.shape[1]))
        for start in range(0, self.shape[0], step):
            yield read_rows(self._matrix, np.arange(start, min(start + step, self.shape[0])))

    def column(self, name: str, length: int | None, dtype: str = "text") -> Any:
        """Return the values of a column: an array of numbers, or a sequence of str."""
        return read_column(checked_column(self._file, name, Column(name, dtype), length))

    def has(self, name: str) -> bool:
        """Return whether there is a column of this name."""
        return name in self._file

    def attribute(self, name: str) -> str:
        """Return a root attribute."""
        return read_text_attribute(self._file, name)


def _checked_matrix(file: Any) -> StoredRows:
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
    return StoredRows(dataset)
