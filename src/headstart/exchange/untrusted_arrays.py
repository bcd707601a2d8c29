"""Read arrays of untrusted files: nothing is unpickled, and sizes, texts, numbers and labels are checked."""

from __future__ import annotations

import math
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from headstart.cache.format import MAX_DEFLATE_RATIO, MAX_ROW_BYTES, MAX_TEXT_BYTES
from headstart.cache.other_hdf5 import OtherArray
from headstart.errors import DataError, HeadstartError

#: Raised for damaged zip files and arrays.
ARCHIVE_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError, TypeError,
    KeyError, OverflowError, MemoryError, RecursionError, SyntaxError, SystemError, OSError,
)  # fmt: skip

#: Bytes of an array in memory at a time; at least one row.
BLOCK_BYTES = 2**22

#: Header version → reader; version 3 is for structured types only.
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array in an archive, with its size checked and its values not yet read."""

    archive: zipfile.ZipFile
    member: zipfile.ZipInfo
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    header_bytes: int

    @property
    def name(self) -> str:
        """Without the suffix ``.npy``."""
        return self.member.filename.removesuffix(".npy")

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield blocks of consecutive rows; the checksum is compared at the end."""
        row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        step = max(1, BLOCK_BYTES // max(1, row_bytes))
        with self.archive.open(self.member) as stream:
            _read_exactly(stream, self.header_bytes)
            for start in range(0, self.shape[0], step):
                n_rows = min(step, self.shape[0] - start)
                data = _read_exactly(stream, n_rows * row_bytes)
                yield np.frombuffer(data, self.dtype).reshape(n_rows, *self.shape[1:])
            if stream.read(1):
                raise ValueError(f"the array {self.name} is longer than its header says")

    def scalar(self) -> Any:
        """Return the value of a scalar array."""
        with self.archive.open(self.member) as stream:
            _read_exactly(stream, self.header_bytes)
            return np.frombuffer(_read_exactly(stream, self.dtype.itemsize), self.dtype)[0].item()


Array = OtherArray | StoredArray


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Yield the arrays of a file; raise DataError if it is no NumPy archive, is damaged, or declares more than it holds."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield Archive(archive, _members(archive, path.stat().st_size))
    except HeadstartError:
        raise
    except ARCHIVE_ERRORS as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read as a NumPy archive (.npz): {text}.") from error


@dataclass(frozen=True, slots=True)
class Archive:
    """The arrays of an open archive by name."""

    archive: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]

    def names(self) -> list[str]:
        """Return the names of the arrays."""
        return sorted(self.members)

    def array(self, *names: str) -> StoredArray | None:
        """Return the first array with one of these names, or None; raise an error for an invalid type or size."""
        name = next((name for name in names if name in self.members), None)
        return None if name is None else _stored_array(self.archive, self.members[name])


def _members(archive: zipfile.ZipFile, size_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Return the arrays of an archive by name; raise ValueError if its directory is invalid."""
    found: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name in found:
            raise ValueError(f"it holds two arrays of the name {name!r}")
        found[name] = member
        ratio = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: MAX_DEFLATE_RATIO}.get(member.compress_type)
        if ratio is None or member.flag_bits & 1:
            raise ValueError(f"{name!r} is encrypted, or compressed by something else than deflate")
        if member.file_size > ratio * member.compress_size:
            raise ValueError(f"{name!r} claims {member.file_size:,} bytes, more than what is stored can hold")
        archive.open(member).close()  # compares both copies of its name: a damaged one would hide an array
    if sum(member.compress_size for member in found.values()) > size_bytes:
        raise ValueError("its arrays overlap")
    return found


def _stored_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> StoredArray:
    """Return an array; raise DataError or ValueError if its header does not match its size, or it cannot be read in rows."""
    name = member.filename.removesuffix(".npy")
    with archive.open(member) as stream:
        version = npy.read_magic(stream)
        if version not in HEADERS:
            raise ValueError(f"the array {name} has a header of version {version}")
        shape, by_columns, dtype = HEADERS[version](stream)
        header_bytes = stream.tell()
    if dtype.hasobject:
        raise DataError(
            f"The array {name} holds Python objects, which are stored as pickle, and a pickle can run code: it is not "
            f"read. Save text as text: np.asarray({name}, dtype=str)."
        )
    if by_columns and len(shape) > 1:
        raise DataError(f"The array {name} is stored column by column. Save np.ascontiguousarray({name}).")
    if header_bytes + dtype.itemsize * math.prod(shape) != member.file_size:
        raise ValueError(
            f"the array {name} says it has the shape {shape}, which its {member.file_size:,} bytes do not hold"
        )
    longest = 4 * MAX_TEXT_BYTES if dtype.kind in "US" else MAX_ROW_BYTES
    if dtype.itemsize * math.prod(shape[1:]) > longest:
        raise DataError(f"One row of the array {name} has more than {longest:,} bytes (shape {shape}, {dtype}).")
    return StoredArray(archive, member, dtype, tuple(int(length) for length in shape), header_bytes)


def _read_exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError("an array ends before it should")
    return data


def check_unique(paths: Iterable[str], seen: set[str] | None = None) -> None:
    """Raise DataError at the first path that occurs twice, or is in ``seen``."""
    known = set() if seen is None else seen
    for path in paths:
        if path in known:
            raise DataError(f"The path {path!r} stands for two rows of X. Give each row a path of its own.")
        known.add(path)


def texts(array: Array, length: int | None = None, *, unique: bool = False) -> list[str]:
    """Return the strings of an array; with ``unique``, raise DataError at the first duplicate."""
    _check_array(array, "US", "text", length)
    found: list[str] = []
    seen: set[str] = set()
    for block in array.blocks():
        if array.dtype.kind == "U":
            code_points = block.view(np.dtype(np.uint32).newbyteorder(block.dtype.byteorder))
            if (code_points > sys.maxunicode).any():  # NumPy does not check them
                raise ValueError(f"the array {array.name} holds invalid code points")
        part = block.tolist()
        strings = [value.decode("utf-8", "surrogateescape") for value in part] if array.dtype.kind == "S" else part
        if unique:
            check_unique(strings, seen)
        found += strings
    return found


def optional_texts(array: Array | None, length: int | None = None) -> list[str] | None:
    """Return the strings of an array, or None if there is none."""
    return None if array is None else texts(array, length)


def integers(array: Array, length: int) -> list[int]:
    """Return the integers of an array."""
    _check_array(array, "iu", "whole numbers", length)
    return [int(value) for block in array.blocks() for value in block.tolist()]


def optional_numbers(array: Array | None, length: int) -> list[float] | None:
    """Return the numbers of an array, or None if there is none."""
    if array is None:
        return None
    _check_array(array, "iuf", "numbers", length)
    return [float(value) for block in array.blocks() for value in block.tolist()]


def labels(array: Array | None, length: int) -> list[int] | list[str] | None:
    """Return labels as numbers or names, or None if there are none.

    Numbers may be integers of any type, in one column, or one-hot rows. Raises DataError for anything else, e.g.
    measured values or probabilities.
    """
    if array is None:
        return None
    if array.dtype.kind in "US":
        _check_array(array, "US", "whole numbers or class names", length)
        return texts(array, length)
    if array.dtype.kind not in "biuf" or len(array.shape) not in {1, 2} or array.shape[0] != length:
        raise DataError(
            f"The array {array.name} must hold whole numbers, class names, or rows of 0 with a 1 for the class, one for "
            f"each of the {length:,} rows. Received: {array.dtype} of shape {array.shape}."
        )
    return [number for block in array.blocks() for number in _numbers_of(block, array.name)]


def _numbers_of(block: NDArray[Any], name: str) -> list[int]:
    """Return the class number of each row."""
    if block.ndim == 2 and block.shape[1] != 1:
        one_hot = ((block == 0) | (block == 1)).all(axis=1) & ((block == 1).sum(axis=1) == 1)
        if not one_hot.all():
            raise DataError(
                f"A row of {name} has {block.shape[1]} numbers that are not 0 with a single 1: "
                f"{block[~one_hot][0][:5].tolist()}. "
                "An image has one class. Write its number or its name."
            )
        return [int(number) for number in block.argmax(axis=1)]
    values = block.reshape(len(block))
    if values.dtype.kind == "f":
        wrong = values[~np.isfinite(values) | (values != np.floor(values))]
        if len(wrong):
            raise DataError(
                f"{name} holds {wrong[0]}, which is not a class: a measured quantity, or a missing label? Expected: whole "
                "numbers from 0, −1 for unlabelled; or names."
            )
    return [int(value) for value in values.tolist()]


def digests(array: Array | None, length: int) -> list[str] | None:
    """Return digests as hexadecimal strings, or None if there are none."""
    if array is None:
        return None
    if array.dtype.str == "|u1" and array.shape == (length, 32):
        return [row.tobytes().hex() for block in array.blocks() for row in block]
    return texts(array, length)


def _check_array(array: Array, kinds: str, what: str, length: int | None) -> None:
    """Raise DataError unless an array is one-dimensional, of this length and of one of these kinds."""
    if array.dtype.kind not in kinds or len(array.shape) != 1 or length not in {None, array.shape[0]}:
        expected = "one value each" if length is None else f"shape ({length},)"
        raise DataError(
            f"The array {array.name} must hold {what}, {expected}. Received: {array.dtype} of shape {array.shape}."
        )
