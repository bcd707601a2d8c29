"""A folder appears whole or not at all, and takes the place of another in one step.

It is made in a workspace beside its place, a hidden folder that holds a lock (which the system drops with the process), the
new folder, and, on systems that cannot exchange two folders in one step, for a moment the old one.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

#: End of the name of a workspace, and what lies in one.
WORKSPACE_SUFFIX = ".saving"
LOCK, NEW, OLD = "lock", "new", "old"

#: Of renameat2(2), from Linux' fcntl.h and fs.h.
AT_FDCWD, RENAME_EXCHANGE = -100, 2

#: What renameat2 says where the kernel, or the file system (NFS …), has no exchange.
NO_EXCHANGE = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})

#: Seconds that a reader waits for a living process that is putting a folder in its place.
EXCHANGE_SECONDS = 10.0


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``target`` when the block ends without an exception.

    What was there stays until then, and is deleted afterwards. What processes that were killed have left is cleared away
    first; that of living ones is not touched.

    Raises
    ------
    OSError
        If it cannot be written, or put in its place.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear_workspaces(target)
    with _workspace(target) as work:
        new = work / NEW
        new.mkdir()
        yield new
        for path in new.iterdir():
            _sync_file(path)
        sync_folder(new)
        _put_in_place(new, target, work / OLD)


@contextmanager
def _workspace(target: Path) -> Iterator[Path]:
    """Yield a folder beside ``target`` that other processes leave alone while the block runs."""
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
    """Return a new folder beside ``target``, and the lock on it, which is held."""
    while True:
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=WORKSPACE_SUFFIX, dir=target.parent))
        guard = FileLock(work / LOCK)
        with suppress(FileNotFoundError):
            guard.acquire()
            if (work / LOCK).exists():  # else it was cleared away before it was locked
                return work, guard
        guard.release()


def _clear_workspaces(target: Path, seconds: float = 0.0) -> None:
    """Clear away what dead processes have left beside ``target``, waiting so long for living ones to end."""
    for work in target.parent.glob(f".{glob.escape(target.name)}.*{WORKSPACE_SUFFIX}"):
        with suppress(OSError):  # Timeout is one too; what cannot be deleted is in nobody's way
            if {path.name for path in work.iterdir()} <= {LOCK, NEW, OLD}:
                with FileLock(work / LOCK, timeout=seconds):
                    _clear_away(work, target)
                _remove_lock(work)


def restore(target: Path) -> None:
    """Put a folder back that a process had moved away, and was killed before the new one stood in its place."""
    if not target.exists():
        _clear_workspaces(target, EXCHANGE_SECONDS)


def _clear_away(work: Path, target: Path) -> None:
    """Delete what is in a workspace; an old folder goes back to its place where none stands there."""
    if (work / OLD).exists() and not target.exists():
        (work / OLD).rename(target)
    shutil.rmtree(work, ignore_errors=True)


def _remove_lock(work: Path) -> None:
    """Delete what Windows keeps of a workspace while its lock is open."""
    with suppress(OSError):
        (work / LOCK).unlink(missing_ok=True)
        work.rmdir()


def _put_in_place(new: Path, target: Path, old: Path) -> None:
    """Move a finished folder to its name; ``old`` is where the one before it may wait for a moment."""
    if not target.exists():
        new.rename(target)
    elif not exchange(new, target):
        target.rename(old)
        new.rename(target)
    sync_folder(target.parent)


def exchange(one: Path, other: Path) -> bool:
    """Give two folders each other's name in one step; return False, and do nothing, where the system cannot.

    Raises
    ------
    OSError
        If it could, but may not.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    if rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))


def _sync_file(path: Path) -> None:
    """Return when the bytes of a file are on the disk."""
    with path.open("r+b") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on the disk; Windows does it by itself and cannot open folders."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
