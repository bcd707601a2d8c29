"""Read a NumPy archive of unknown origin: nothing is unpickled, and nothing is believed that its size contradicts."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from headstart.cache.format import MAX_DEFLATE_RATIO, MAX_ROW_BYTES, MAX_TEXT_BYTES
from headstart.errors import DataError, HeadstartError

#: What is raised where a zip file or an array in it is not what it should be.
ARCHIVE_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError, TypeError,
    KeyError, OverflowError, MemoryError, RecursionError, SyntaxError, SystemError, OSError,
)  # fmt: skip

#: Bytes of an array that are in memory at a time, or one row where that is longer.
BLOCK_BYTES = 2**22

#: Readers of the versions of an array's header; version 3 is for structured types alone.
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the errors of a file that is not what it should be into a DataError that says so."""
    try:
        yield
    except HeadstartError:
        raise
    except ARCHIVE_ERRORS as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read as a NumPy archive (.npz): {text}.") from error


@dataclass(frozen=True, slots=True)
class StoredArray:
    """One array of an archive, its size checked, its values still in the file."""

    archive: zipfile.ZipFile
    member: zipfile.ZipInfo
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    header_bytes: int

    @property
    def name(self) -> str:
        """Name of the array."""
        return self.member.filename.removesuffix(".npy")

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the array from the top; the checksum of the whole is compared at the end."""
        row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        step = max(1, BLOCK_BYTES // max(1, row_bytes))
        with self.archive.open(self.member) as stream:
            read_exactly(stream, self.header_bytes)
            for start in range(0, self.shape[0], step):
                n_rows = min(step, self.shape[0] - start)
                data = read_exactly(stream, n_rows * row_bytes)
                yield np.frombuffer(data, self.dtype).reshape(n_rows, *self.shape[1:])
            if stream.read(1):
                raise ValueError(f"the array {self.name} is longer than it says")

    def scalar(self) -> Any:
        """Return the value of an array without dimensions."""
        with self.archive.open(self.member) as stream:
            read_exactly(stream, self.header_bytes)
            return np.frombuffer(read_exactly(stream, self.dtype.itemsize), self.dtype)[0].item()


class Archive:
    """The arrays of an archive by name; use it in a ``with`` block.

    Raises
    ------
    DataError
        If the file is no NumPy archive, or claims more than it holds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path):
            self._archive = zipfile.ZipFile(path)
        try:
            with reading(path):
                self._members = members(self._archive, path.stat().st_size)
        except BaseException:
            self._archive.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def names(self) -> list[str]:
        """Return the names of the arrays."""
        return sorted(self._members)

    def array(self, *names: str) -> StoredArray | None:
        """Return the first array that has one of these names, or None.

        Raises
        ------
        DataError
            If its type or its size cannot be true.
        """
        name = next((name for name in names if name in self._members), None)
        if name is None:
            return None
        with reading(self.path):
            return stored_array(self._archive, self._members[name])


def members(archive: zipfile.ZipFile, size_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Return the arrays of an archive by name; raise ValueError where the directory cannot be true."""
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
        archive.open(
            member
        ).close()  # its name stands twice in the file: a damaged one would pass for an array not given
    if sum(member.compress_size for member in found.values()) > size_bytes:
        raise ValueError("its arrays lie one upon the other")
    return found


def stored_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> StoredArray:
    """Return an array whose header agrees with its size.

    Raises
    ------
    DataError, ValueError
        If it does not, or the array holds Python objects or is stored by columns.
    """
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


def read_exactly(stream: IO[bytes], size: int) -> bytes:
    """Return so many bytes; raise EOFError where there are fewer."""
    data = stream.read(size)
    if len(data) != size:
        raise EOFError("an array ends before it should")
    return data
