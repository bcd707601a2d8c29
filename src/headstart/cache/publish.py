"""Write files atomically: under a temporary name beside the target, flushed to disk, then renamed."""

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

#: Suffix of incomplete files; those of dead writers may be deleted.
PARTIAL_SUFFIX = ".partial"

#: In the format of HDF5 1.10 every structure has a checksum.
CACHE_VERSIONS = (h5f.LIBVER_V110, h5f.LIBVER_V110)

#: Up to this many attributes stay in the object header, which has a checksum; more would move to a heap.
MAX_COMPACT_ATTRIBUTES = 64


class PartialFile:
    """The file object below HDF5 during writing; its writes never fail.

    HDF5 1.14 cannot handle a failed write: unflushed data is retried by every destructor and ends in a segmentation
    fault when Python exits. So the first error is kept for :meth:`check`, and later writes go to memory until HDF5 has
    closed the file.
    """

    def __init__(self, path: Path) -> None:
        self._raw = io.FileIO(path, "x+")
        self._position = 0
        self._error: BaseException | None = None
        self._later: list[tuple[int, bytes]] = []

    def check(self) -> None:
        """Raise the first error of a write, if any."""
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
        """Return ``size`` bytes from the current position; unwritten bytes are zero."""
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
        """Set the position; the end is after everything written."""
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
        """Flush the file to disk."""
        os.fsync(self._raw.fileno())

    def close(self) -> None:
        """Close the file."""
        self._raw.close()


@contextmanager
def published(path: Path, versions: tuple[int, int] = CACHE_VERSIONS) -> Iterator[tuple[Any, PartialFile]]:
    """Yield a new HDF5 file that becomes ``path`` when the block ends without an exception, and its :class:`PartialFile`.

    An existing file stays until then, and afterwards for processes that have it open. The temporary file is removed on
    any exception, Ctrl-C included. ``versions`` are the oldest and newest HDF5 version of the structures, as
    ``h5py.h5f.LIBVER_*``. Raises CacheError if the file cannot be written: no such folder, no permission, no space …
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
    """Yield a new binary file that becomes ``path`` when the block ends without an exception; raise CacheError on failure."""
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
    """Return a temporary name in the same folder; raise CacheError if ``path`` is a folder."""
    if path.is_dir():
        raise CacheError(f"{path} is a folder. Give the name of a file.")
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL_SUFFIX}")


def is_partial(name: str) -> bool:
    """Return whether a name is that of an incomplete file."""
    return name.startswith(".") and name.endswith(PARTIAL_SUFFIX)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of HDF5 and the operating system into a CacheError that says what cannot be written, and why."""
    try:
        yield
    except HeadstartError:
        raise
    except (OSError, RuntimeError) as error:
        raise CacheError(f"{path} cannot be written: {_reason(error)}") from error


def _create(below: PartialFile, versions: tuple[int, int]) -> Any:
    """Return a new HDF5 file that uses only the given versions of the format."""
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_libver_bounds(*versions)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    access.set_fileobj_driver(h5fd.fileobj_driver, below)
    creation = h5p.create(h5p.FILE_CREATE)
    creation.set_attr_phase_change(MAX_COMPACT_ATTRIBUTES, 0)
    creation.set_obj_track_times(False)
    return h5py.File(h5f.create(repr(below).encode(), h5f.ACC_EXCL, creation, access))


def _reason(error: BaseException) -> str:
    """Return the reason of the operating system, which HDF5 hides in its message, or the first line of the message."""
    number = re.search(r"errno = (\d+)", str(error))
    if number:
        return f"{os.strerror(int(number[1]))}."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}."
    return str(error).splitlines()[0] if str(error) else type(error).__name__
