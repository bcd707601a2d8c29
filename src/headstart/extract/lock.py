"""One writer per cache, and what a writer that was killed has left behind."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from headstart.cache.publish import PARTIAL_SUFFIX, writing
from headstart.errors import CacheError

#: Seconds in which a process that has just taken a lock writes down who it is.
ANNOUNCE_SECONDS = 2.0


@contextmanager
def lock(target: Path) -> Iterator[None]:
    """Hold the lock on a cache while the block runs, and clear away what a dead writer of it has left.

    The operating system drops the lock with the process that holds it, so a killed run never blocks the next one. On NFS
    that holds from version 4 on.

    Raises
    ------
    CacheError
        If another process holds it; the message names host and process.
    """
    guard = FileLock(beside(target, "lock"))
    owner = beside(target, "owner")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        acquire(guard, target, owner)
    try:
        with suppress(OSError):  # on a full disk nobody is named, and a run that has nothing to write goes on
            owner.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}), encoding="utf-8")
        clear_away(target)
        yield
    finally:
        with suppress(OSError):
            owner.unlink()
        guard.release()


def clear_away(target: Path) -> None:
    """Delete what a dead writer was writing; what cannot be deleted is in nobody's way."""
    with suppress(OSError):
        names = [path.name for path in target.parent.iterdir()]
        for name in names:
            if name.startswith(f".{target.name}.") and name.endswith(PARTIAL_SUFFIX):
                target.with_name(name).unlink(missing_ok=True)


def acquire(guard: FileLock, target: Path, owner: Path) -> None:
    """Take the lock, or raise CacheError once whoever holds it has had time to say who it is."""
    for seconds in (0.0, ANNOUNCE_SECONDS):
        try:
            guard.acquire(timeout=seconds)
        except Timeout as error:
            holder = owner_of(owner)
            if holder or seconds:
                raise CacheError(
                    f"{target} is being written by {holder or 'another process'}.",
                    hint="Wait for it to end, or write elsewhere (`output`).",
                ) from error
        else:
            return


def beside(target: Path, suffix: str) -> Path:
    """Return the hidden file or folder of a cache with that suffix."""
    return target.with_name(f".{target.name}.{suffix}")


def owner_of(owner: Path) -> str:
    """Return who holds the lock; nothing where that is not known (yet)."""
    try:
        holder = json.loads(owner.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
