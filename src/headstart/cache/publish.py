"""A file appears whole or not at all: a temporary name beside it, flushed to the disk, then renamed."""

from __future__ import annotations

import io
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import h5py
from h5py import h5f, h5fd, h5p

from headstart.cache.sandbox import remember_written
from headstart.errors import CacheError, HeadstartError
from headstart.storage.replacement import sync_folder

#: End of the name of a file that is being written. One that nobody writes any more may be deleted.
PARTIAL_SUFFIX = ".partial"

#: Every structure of a file carries a checksum in the format of HDF5 1.10: that of a cache.
CACHE_VERSIONS = (h5f.LIBVER_V110, h5f.LIBVER_V110)

#: Object headers keep this many attributes inside, where HDF5 checksums them; beyond it they move to a heap.
MAX_COMPACT_ATTRIBUTES = 64


class PartialFile:
    """The file below HDF5 while it is written; a write to it never fails.

    HDF5 1.14 does not survive a failed write: what it could not flush stays in its tables, is tried again by every
    destructor, and ends in a segmentation fault when Python exits. So the first failure is kept for :meth:`check`, and what
    HDF5 still writes until it has closed the file goes to memory.

    Parameters
    ----------
    path : Path
        Created; it must not exist.
    """

    def __init__(self, path: Path) -> None:
        self._raw = io.FileIO(path, "x+")
        self._position = 0
        self._error: BaseException | None = None
        self._later: list[tuple[int, bytes]] = []

    def check(self) -> None:
        """Raise what went wrong in a write, if anything did."""
        if self._error is not None:
            raise self._error

    def write(self, data: bytes) -> int:
        """Write at the current position."""
        start, self._position = self._position, self._position + len(data)
        if self._error is None:
            try:
                self._raw.seek(start)
                view = memoryview(data)
                while view:
                    view = view[self._raw.write(view) :]
                return len(data)
            except BaseException as error:  # Ctrl-C too would be lost in HDF5
                self._error = error
        self._later.append((start, bytes(data)))
        return len(data)

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes from the current position; what was never written is zero."""
        start, self._position = self._position, self._position + size
        self._raw.seek(start)
        data = bytearray(size)
        view = memoryview(data)
        while view and (count := self._raw.readinto(view)):
            view = view[count:]
        for offset, later in self._later:
            first, last = max(start, offset), min(start + size, offset + len(later))
            if first < last:
                data[first - start : last - start] = later[first - offset : last - offset]
        return bytes(data)

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` from the current position."""
        view = memoryview(buffer).cast("B")
        view[:] = self.read(len(view))
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position; from the end, it is after everything that was written."""
        if whence == os.SEEK_END:
            offset += max([os.fstat(self._raw.fileno()).st_size, *(start + len(data) for start, data in self._later)])
        self._position = offset
        return offset

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def truncate(self, size: int) -> int:
        """Set the size."""
        if self._error is None:
            try:
                self._raw.truncate(size)
            except BaseException as error:
                self._error = error
        return size

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def sync(self) -> None:
        """Return when the bytes are on the disk."""
        os.fsync(self._raw.fileno())

    def close(self) -> None:
        """Close the file."""
        self._raw.close()


@contextmanager
def published(path: Path, versions: tuple[int, int] = CACHE_VERSIONS) -> Iterator[tuple[Any, PartialFile]]:
    """Yield a new HDF5 file, open for writing, that becomes ``path`` when the block ends without an exception.

    Beside it comes the file below, whose ``check`` raises what went wrong so far. Whatever was at ``path`` stays as it was
    until the end, and for those who have it open afterwards too. The temporary is removed on any exception, Ctrl-C included.

    Parameters
    ----------
    path : Path
        The file.
    versions : tuple of int
        Oldest and newest version of HDF5 whose structures are used, as ``h5py.h5f.LIBVER_*``.

    Raises
    ------
    CacheError
        If the file cannot be written: no such folder, no permission, no space …
    """
    partial = _partial_name(path)
    try:
        with writing(path):
            below = PartialFile(partial)
        try:
            with writing(path):
                file = _create(below, versions)
            try:
                yield file, below
            finally:
                with writing(path):
                    file.close()
            with writing(path):
                below.check()
                below.sync()
        finally:
            below.close()
        with writing(path):
            partial.replace(path)
            sync_folder(path.parent)
        remember_written(path)
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def published_bytes(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file, open for writing bytes, that becomes ``path`` when the block ends without an exception.

    Raises
    ------
    CacheError
        If the file cannot be written.
    """
    partial = _partial_name(path)
    try:
        with writing(path):
            with partial.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink()


def _partial_name(path: Path) -> Path:
    """Return the name under which a file is written before it is complete, in the same folder.

    Raises
    ------
    CacheError
        If the file would have the name of a folder.
    """
    if path.is_dir():
        raise CacheError(f"{path} is a folder; a file is to be written. Give another name.")
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL_SUFFIX}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what HDF5 and the operating system raise into a CacheError that says what cannot be written, and why."""
    try:
        yield
    except HeadstartError:
        raise
    except (OSError, RuntimeError) as error:
        raise CacheError(f"{path} cannot be written: {_reason(error)}") from error


def _create(below: PartialFile, versions: tuple[int, int]) -> Any:
    """Return a new HDF5 file of these versions of the format, no more, no less."""
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_libver_bounds(*versions)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    access.set_fileobj_driver(h5fd.fileobj_driver, below)
    creation = h5p.create(h5p.FILE_CREATE)
    creation.set_attr_phase_change(MAX_COMPACT_ATTRIBUTES, 0)
    creation.set_obj_track_times(False)
    return h5py.File(h5f.create(repr(below).encode(), h5f.ACC_EXCL, creation, access))


def _reason(error: BaseException) -> str:
    """Return what the operating system said, which HDF5 buries in its message, else the first line of the message."""
    number = re.search(r"errno = (\d+)", str(error))
    if number:
        return f"{os.strerror(int(number[1]))}."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}."
    return str(error).splitlines()[0] if str(error) else type(error).__name__
