"""One writer per address: an object beside it says who, and is renewed for as long as that process lives.

An object store has no locks that end with a process. So a claim that was not renewed for :data:`STALE_SECONDS` counts as
that of a dead one, and one of this machine whose process is gone at once. Whoever takes over writes the claim anew under a
token of its own; the former holder, should it live after all, finds that before it publishes.
"""

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

from headstart.errors import CacheError, StorageError
from headstart.storage import objects
from headstart.storage.address import Address
from headstart.storage.bucket import Entry, ExistsError, GoneError, read, stat

#: Seconds between two renewals, and without one until a claim counts as left behind. S3 refuses requests of a machine whose
#: clock is wrong by 15 minutes (RequestTimeTooSkewed), so that clocks do not matter here.
RENEW_SECONDS, STALE_SECONDS = 60.0, 1800.0


class Claim:
    """What a process holds while it writes at an address.

    Parameters
    ----------
    target : Address
        Where it writes.
    clock : callable
        Seconds since 1970.
    """

    def __init__(self, target: Address, clock: Callable[[], float] = time.time) -> None:
        self.target, self.at = target, target.with_name(f".{target.name}.lock")
        self._clock = clock
        self._token = secrets.token_hex(16)
        self._ended = threading.Event()

    def take(self) -> None:
        """Take it, or raise CacheError where another process holds it."""
        holder, entry = self._holder()  # first, for servers that ignore the condition of a creation
        if entry is None:
            try:
                objects.create(self.at, self._content())
                return
            except ExistsError:
                holder, entry = self._holder()
        if entry is not None and not self._is_dead(holder, entry):
            raise self._refusal(holder, entry)
        try:
            if entry is None:  # it was given back in this moment
                objects.create(self.at, self._content())
            else:
                objects.replace(self.at, self._content(), entry)
        except ExistsError:  # another one was quicker
            raise self._refusal(*self._holder()) from None
        self.check()

    def check(self) -> None:
        """Raise CacheError where another process has taken over."""
        holder, entry = self._holder()
        if holder.get("token") != self._token:
            raise self._refusal(holder, entry)

    def keep(self) -> None:
        """Renew the claim until it is given back; run it in a thread. Another one's is left alone."""
        while not self._ended.wait(RENEW_SECONDS):
            with suppress(StorageError, CacheError):  # the next time, or the check before publishing
                self.renew()

    def renew(self) -> None:
        """Say that this process is alive; raises as :meth:`check` does."""
        self.check()
        _, entry = self._holder()
        if entry is not None:
            objects.replace(self.at, self._content(), entry)

    def give_back(self) -> None:
        """Delete the claim, if it is still this one."""
        self._ended.set()
        with suppress(StorageError, CacheError):
            self.check()
            objects.delete([self.at])

    def _content(self) -> bytes:
        owner = {"token": self._token, "host": socket.gethostname(), "machine": machine(), "pid": os.getpid()}
        return json.dumps({**owner, "renewed": self._clock()}).encode()

    def _holder(self) -> tuple[Mapping[str, Any], Entry | None]:
        """Return what the claim says, and the object; nothing where it is not there (any more) or is no claim."""
        entry = stat(self.at)
        try:
            said = json.loads(read(self.at)) if entry else {}
        except (GoneError, ValueError):
            said = {}
        return (said if isinstance(said, dict) else {}), entry

    def _is_dead(self, holder: Mapping[str, Any], entry: Entry) -> bool:
        if self._clock() - entry.changed_ns / 1e9 > STALE_SECONDS:
            return True
        pid = holder.get("pid")
        same_machine = holder.get("host") == socket.gethostname() and holder.get("machine") == machine()
        return same_machine and isinstance(pid, int) and not _is_running(pid)

    def _refusal(self, holder: Mapping[str, Any], entry: Entry | None) -> CacheError:
        who = f"process {holder['pid']} on {holder['host']}" if {"pid", "host"} <= set(holder) else "another process"
        ago = "" if entry is None else f", which said so {max(0.0, self._clock() - entry.changed_ns / 1e9):.0f} s ago"
        return CacheError(
            f"{self.target} is being written by {who}{ago}. Wait for it to end, or write elsewhere with -o. A process that "
            f"was killed is taken over {STALE_SECONDS / 60:.0f} minutes after its last word, or when {self.at} is deleted."
        )


@contextmanager
def claimed(target: Address) -> Iterator[Claim]:
    """Hold the claim on an address while the block runs.

    Raises
    ------
    CacheError
        If another process holds it; the message names host and process.
    StorageError
        If nothing can be written there.
    """
    claim = Claim(target)
    claim.take()
    thread = threading.Thread(target=claim.keep, name="claim", daemon=True)
    thread.start()
    try:
        yield claim
    finally:
        claim.give_back()
        thread.join()


def machine() -> str:
    """Return what differs between two machines that have the same name, as containers may; nothing where it is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _is_running(pid: int) -> bool:
    """Return whether there may be a process of that number on this machine."""
    if os.name == "nt":  # os.kill would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
