"""Folders that appear whole or not at all, and replace others in one step.

A new folder is made in a workspace beside its target: a hidden folder with a lock (which the system drops with the process),
the new folder, and, on systems that cannot exchange two folders in one step, for a moment the old one.
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
