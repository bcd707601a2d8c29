"""Files and folders that appear whole or not at all, and replace others in one step.

A new file is written under a temporary name beside its target, flushed to disk, and renamed. A new folder is made in a
workspace beside its target: a hidden folder with a lock (which the system drops with the process), the new folder, and, on
systems that cannot exchange two folders in one step, for a moment the old one.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import io
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from headstart.errors import CacheError, HeadstartError

#: Suffix of incomplete files; those of dead writers may be deleted.
PARTIAL_SUFFIX = ".partial"

#: Suffix of a workspace, and its contents.
WORKSPACE_SUFFIX = ".saving"
LOCK, NEW, OLD = "lock", "new", "old"

#: Constants of renameat2(2), from Linux' fcntl.h and fs.h.
AT_FDCWD, RENAME_EXCHANGE = -100, 2

#: Errors of renameat2 if the kernel or the file system (e.g. NFS) cannot exchange.
NO_EXCHANGE = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})

#: Seconds that a reader waits for a process that is replacing a folder.
EXCHANGE_SECONDS = 10.0


@contextmanager
def published_bytes(path: Path) -> Iterator[BinaryIO]:
    """Yield a new binary file that becomes ``path`` when the block ends without an exception; raise CacheError on failure."""
    partial = partial_name(path)
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


def partial_name(path: Path) -> Path:
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


def _reason(error: BaseException) -> str:
    """Return the reason of the operating system, which HDF5 hides in its message, or the first line of the message."""
    number = re.search(r"errno = (\d+)", str(error))
    if number:
        return f"{os.strerror(int(number[1]))}."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}."
    return str(error).splitlines()[0] if str(error) else type(error).__name__


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
def replacing(target: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces ``target`` if the block succeeds; raises OSError if that is impossible.

    Workspaces of processes that were killed are removed first; those of running ones are left alone.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear_workspaces(target)
    with _workspace(target) as work:
        new = work / NEW
        new.mkdir()
        yield new
        for path in new.iterdir():
            with path.open("r+b") as file:  # Windows flushes only what may be written
                os.fsync(file.fileno())
        sync_folder(new)
        _put_in_place(new, target, work / OLD)


@contextmanager
def _workspace(target: Path) -> Iterator[Path]:
    work, guard = _make_workspace(target)
    try:
        yield work
    finally:
        try:
            _clear_away(work, target)
        finally:
            guard.release()
            _remove_lock(work)


def _make_workspace(target: Path) -> tuple[Path, FileLock]:
    """Return a new folder beside ``target``, and its lock, which is held."""
    while True:
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=WORKSPACE_SUFFIX, dir=target.parent))
        guard = FileLock(work / LOCK)
        with suppress(FileNotFoundError):
            guard.acquire()
            if (work / LOCK).exists():  # else another process removed it before it was locked
                return work, guard
        guard.release()


def _clear_workspaces(target: Path, seconds: float = 0.0) -> None:
    """Remove the workspaces of dead processes beside ``target``, waiting up to ``seconds`` for each running one."""
    for work in target.parent.glob(f".{glob.escape(target.name)}.*{WORKSPACE_SUFFIX}"):
        with suppress(OSError):  # Timeout included; what cannot be deleted does no harm
            if {path.name for path in work.iterdir()} <= {LOCK, NEW, OLD}:
                with FileLock(work / LOCK, timeout=seconds):
                    _clear_away(work, target)
                _remove_lock(work)


def restore(target: Path) -> None:
    """Put a folder back that a killed process had moved away but not replaced."""
    if not target.exists():
        _clear_workspaces(target, EXCHANGE_SECONDS)


def _clear_away(work: Path, target: Path) -> None:
    """Empty a workspace; an old folder returns to its place if that is free."""
    if (work / OLD).exists() and not target.exists():
        (work / OLD).rename(target)
    shutil.rmtree(work, ignore_errors=True)


def _remove_lock(work: Path) -> None:
    """Delete the rest of a workspace, which Windows keeps while its lock is open."""
    with suppress(OSError):
        (work / LOCK).unlink(missing_ok=True)
        work.rmdir()


def _put_in_place(new: Path, target: Path, old: Path) -> None:
    """Move a finished folder to its name; ``old`` may hold the former one for a moment."""
    if not target.exists():
        new.rename(target)
    elif not exchange(new, target):
        target.rename(old)
        new.rename(target)
    sync_folder(target.parent)


def exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders in one step; return False if the system cannot. Raises OSError."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    if rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk; Windows does it by itself and cannot open folders."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
