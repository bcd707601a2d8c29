"""Objects as files of this machine, kept in the user's cache folder for as long as the object stays the same."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from headstart.errors import HeadstartError, StorageError
from headstart.storage.address import Address
from headstart.storage.bucket import Entry, stat
from headstart.storage.faults import GoneError
from headstart.storage.objects import download

#: Names another folder for copies than the user's own.
FOLDER_VARIABLE = "HEADSTART_CACHE_DIR"


def user_home() -> Path:
    """Return the user's home folder; a private one of this process for a user who has none, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:  # neither HOME nor an entry in the list of users
        return temporary_home()


@cache
def temporary_home() -> Path:
    """Return a folder that nobody else can write into, which is removed when this process ends."""
    folder = tempfile.mkdtemp(prefix="headstart-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def home() -> Path:
    """Return the folder in which copies are kept (XDG Base Directory Specification 0.8; Windows: local application data)."""
    if own := os.environ.get(FOLDER_VARIABLE):
        return Path(own)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", user_home() / "AppData" / "Local")) / "headstart"
    return Path(os.environ.get("XDG_CACHE_HOME") or user_home() / ".cache") / "headstart"


def folder_of(address: Address) -> Path:
    """Return the folder for what belongs to an address."""
    return home() / "buckets" / hashlib.sha256(str(address).encode()).hexdigest()[:16]


def place_of(address: Address, entry: Entry) -> Path:
    """Return the file that is the copy of one version of an object."""
    version = hashlib.sha256(f"{entry.etag} {entry.size_bytes} {entry.changed_ns}".encode()).hexdigest()[:16]
    return folder_of(address) / "copies" / version / address.name


def copied(address: Address, check: Callable[[Path], None]) -> Path:
    """Return a file with the bytes of an object; it is read from the bucket only where this machine has no copy of it.

    Parameters
    ----------
    address : Address
        The object.
    check : callable
        Raises where a copy that has just been made is not whole.

    Raises
    ------
    StorageError
        If there is no such object, it cannot be read, or there is no room for the copy.
    """
    entry = stat(address)
    if entry is None:
        raise GoneError(f"There is nothing at {address}: no such bucket or object.")
    place = place_of(address, entry)
    if place.is_file():
        return place
    try:
        place = place_of(address, download(address, place))
    except HeadstartError:
        raise
    except OSError as error:
        raise StorageError(
            f"{address} cannot be copied to {home()}: {error.strerror or error}. {FOLDER_VARIABLE} names another folder."
        ) from error
    try:
        check(place)
    except BaseException:
        place.unlink(missing_ok=True)
        raise
    forget_others(address, place)
    return place


def adopt(address: Address, entry: Entry, path: Path) -> None:
    """Make the copy of an object of the file that it was written from; where that is not possible, there is none."""
    place = place_of(address, entry)
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
        forget_others(address, place)


def forget_others(address: Address, place: Path) -> None:
    """Delete copies of other versions; one that somebody reads on a system that does not allow it stays."""
    with suppress(OSError):
        for version in (folder_of(address) / "copies").iterdir():
            if version != place.parent:
                shutil.rmtree(version, ignore_errors=True)
