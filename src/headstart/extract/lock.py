"""One writer per cache: the lock on a file or folder, and the one on an object in a bucket."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from headstart.errors import CacheError, StorageError
from headstart.storage import objects
from headstart.storage.bucket import Address, Entry, ExistsError, GoneError, read, stat
from headstart.storage.publishing import is_partial, writing

#: Seconds within which a process that has just taken a lock writes its name.
ANNOUNCE_SECONDS = 2.0

#: Seconds between two renewals, and after which a lock without one is stale. Wrong clocks do not matter: S3 refuses requests
#: if the clock is off by 15 minutes (RequestTimeTooSkewed).
RENEW_SECONDS, STALE_SECONDS = 60.0, 1800.0


@contextmanager
def lock(target: Path) -> Iterator[None]:
    """Hold the lock on a cache within the block, and delete what a dead writer of it has left.

    The operating system drops the lock with the process that holds it (NFS: from version 4 on), so a killed run never
    blocks the next one. Raises CacheError, naming host and process, if another process holds it.
    """
    guard = FileLock(beside(target, "lock"))
    owner = beside(target, "owner")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _acquire(guard, target, owner)
    try:
        with suppress(OSError):  # on a full disk nobody is named, and a run that has nothing to write continues
            owner.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}), encoding="utf-8")
        _delete_partial(target)
        yield
    finally:
        with suppress(OSError):
            owner.unlink()
        guard.release()


def _delete_partial(target: Path) -> None:
    with suppress(OSError):
        names = [path.name for path in target.parent.iterdir()]
        for name in names:
            if name.startswith(f".{target.name}.") and is_partial(name):
                target.with_name(name).unlink(missing_ok=True)


def _acquire(guard: FileLock, target: Path, owner: Path) -> None:
    """Take the lock, or raise CacheError once its holder has had time to write its name."""
    for seconds in (0.0, ANNOUNCE_SECONDS):
        try:
            guard.acquire(timeout=seconds)
        except Timeout as error:
            holder = _owner_of(owner)
            if holder or seconds:
                raise CacheError(
                    f"{target} is being written by {holder or 'another process'}.",
                    hint="Wait for it to end, or write elsewhere (`output`).",
                ) from error
        else:
            return


def beside(target: Path, suffix: str) -> Path:
    """Return the hidden file or folder of a cache with this suffix."""
    return target.with_name(f".{target.name}.{suffix}")


def _owner_of(owner: Path) -> str:
    try:
        holder = json.loads(owner.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


class Claim:
    """The lock of this process on an address: an object beside it that names the process, which renews it regularly.

    Object stores have no locks that end with a process. A lock that was not renewed for :data:`STALE_SECONDS`, or whose
    process on this machine is gone, is taken over: the new holder writes its own token, and the former one, if still running,
    finds that before it publishes. ``clock`` returns seconds since 1970.
    """

    def __init__(self, target: Address, clock: Callable[[], float] = time.time) -> None:
        self.target, self.at = target, target.with_name(f".{target.name}.lock")
        self._clock = clock
        self._token = secrets.token_hex(16)
        self._ended = threading.Event()

    def take(self) -> None:
        """Take the lock, or raise CacheError if another process holds it."""
        holder, entry = self._holder()  # first, for servers that ignore If-None-Match
        if entry is None:
            try:
                objects.create(self.at, self._content())
                return
            except ExistsError:
                holder, entry = self._holder()
        if entry is not None and not self._is_dead(holder, entry):
            raise self._refusal(holder, entry)
        try:
            if entry is None:  # it was just released
                objects.create(self.at, self._content())
            else:
                objects.replace(self.at, self._content(), entry)
        except ExistsError:  # another process was faster
            raise self._refusal(*self._holder()) from None
        self.check()

    def check(self) -> None:
        """Raise CacheError if another process has taken over."""
        holder, entry = self._holder()
        if holder.get("token") != self._token:
            raise self._refusal(holder, entry)

    def keep(self) -> None:
        """Renew the lock until it is released, unless another process has taken over; run it in a thread."""
        while not self._ended.wait(RENEW_SECONDS):
            with suppress(StorageError, CacheError):  # retried, and checked before publishing
                self.renew()

    def renew(self) -> None:
        """Renew the lock; raises as :meth:`check`."""
        self.check()
        _, entry = self._holder()
        if entry is not None:
            objects.replace(self.at, self._content(), entry)

    def release(self) -> None:
        """Delete the lock if this process still holds it."""
        self._ended.set()
        with suppress(StorageError, CacheError):
            self.check()
            objects.delete([self.at])

    def _content(self) -> bytes:
        owner = {"token": self._token, "host": socket.gethostname(), "machine": machine(), "pid": os.getpid()}
        return json.dumps({**owner, "renewed": self._clock()}).encode()

    def _holder(self) -> tuple[Mapping[str, Any], Entry | None]:
        """Return the content of the lock and its entry; empty and None if there is no lock."""
        entry = stat(self.at)
        try:
            holder = json.loads(read(self.at)) if entry else {}
        except (GoneError, ValueError):
            holder = {}
        return (holder if isinstance(holder, dict) else {}), entry

    def _is_dead(self, holder: Mapping[str, Any], entry: Entry) -> bool:
        if self._clock() - entry.changed_ns / 1e9 > STALE_SECONDS:
            return True
        pid = holder.get("pid")
        same_machine = holder.get("host") == socket.gethostname() and holder.get("machine") == machine()
        return same_machine and isinstance(pid, int) and not _is_running(pid)

    def _refusal(self, holder: Mapping[str, Any], entry: Entry | None) -> CacheError:
        who = f"process {holder['pid']} on {holder['host']}" if {"pid", "host"} <= set(holder) else "another process"
        age = "" if entry is None else f" (last seen {max(0.0, self._clock() - entry.changed_ns / 1e9):.0f} s ago)"
        return CacheError(
            f"{self.target} is being written by {who}{age}. Wait for it to end, or write elsewhere (`output`). The lock of a "
            f"process that was killed expires {STALE_SECONDS / 60:.0f} minutes after it was last seen, or delete {self.at}."
        )


@contextmanager
def claimed(target: Address) -> Iterator[Claim]:
    """Hold the lock on an address within the block; raise CacheError, naming the process, if another one holds it."""
    claim = Claim(target)
    claim.take()
    thread = threading.Thread(target=claim.keep, name="claim", daemon=True)
    thread.start()
    try:
        yield claim
    finally:
        claim.release()
        thread.join()


def machine() -> str:
    """Return an identifier that differs between machines of one name, e.g. containers; empty if unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _is_running(pid: int) -> bool:
    """Return whether a process with this number may exist on this machine."""
    if os.name == "nt":  # os.kill would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
