"""Objects written whole or not at all, and kept as verified copies in the cache folder of the user."""

from __future__ import annotations

import atexit
import hashlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from headstart.errors import HeadstartError, StorageError
from headstart.storage.address import Address
from headstart.storage.bucket import Entry, GoneError, asking, filesystem, stat

#: Times that an object which is replaced while it is read is read anew.
ATTEMPTS = 3


def upload(path: Path, address: Address, *, new: bool = False) -> Entry:
    """Make an object of a file, and return what the storage says of it.

    Readers see the old object or the new one: S3 shows an object once its PUT or the completion of its parts has succeeded,
    Cloud Storage once the upload is finalised. Parts of an upload that fails are removed.

    Parameters
    ----------
    path : Path
        The file.
    address : Address
        The object; replaced, where it is there.
    new : bool
        Raise ExistsError where it is there: the storage itself compares (``If-None-Match``, ``ifGenerationMatch=0``).

    Raises
    ------
    StorageError
        If it cannot be written, or has another size than the file afterwards.
    """
    with asking(address):
        filesystem(address.protocol).put_file(str(path), address.path, mode="create" if new else "overwrite")
    found = stat(address)
    if found is None or found.size_bytes != path.stat().st_size:
        received = "nothing" if found is None else f"{found.size_bytes:,} bytes"
        raise StorageError(
            f"{address} is not what was written. Expected: {path.stat().st_size:,} bytes. Received: {received}. Does another "
            "program write there? Run again."
        )
    return found


def download(address: Address, path: Path) -> Entry:
    """Make a file of an object, whole or not at all, and return what the storage says of it.

    Parameters
    ----------
    address : Address
        The object.
    path : Path
        The file; its folder is made.

    Raises
    ------
    StorageError
        If it is gone, cannot be read, or is replaced again and again meanwhile.
    """
    with _whole(path) as partial:
        for _ in range(ATTEMPTS):
            before = stat(address)
            if before is None:
                raise GoneError(f"There is nothing at {address}: no such bucket or object.")
            get(address, partial)
            if stat(address) == before and partial.stat().st_size == before.size_bytes:
                return before
        raise StorageError(f"{address} was replaced while it was read, {ATTEMPTS} times. Run again when it stays.")


def fetch(address: Address, path: Path) -> None:
    """Make a file of an object that is never replaced, whole or not at all; raises as :func:`download` does."""
    with _whole(path) as partial:
        get(address, partial)


def get(address: Address, path: Path) -> None:
    """Write the bytes of an object to a file."""
    with asking(address):
        filesystem(address.protocol).get_file(address.path, str(path))


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Yield the name of a file that becomes ``path`` when the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()


def create(address: Address, data: bytes) -> None:
    """Write an object that is not there yet; raises ExistsError where it is, by the storage's own comparison."""
    with asking(address):
        filesystem(address.protocol).pipe_file(address.path, data, mode="create")


def replace(address: Address, data: bytes, known: Entry) -> None:
    """Write over an object that is still the one that is known; S3 compares (``If-Match``), Cloud Storage does not."""
    same = {"IfMatch": f'"{known.etag}"'} if address.protocol == "s3" else {}
    with asking(address):
        filesystem(address.protocol).pipe_file(address.path, data, **same)


def delete(addresses: Iterable[Address]) -> None:
    """Delete some objects; one that is gone already is no error."""
    for address in addresses:
        with suppress(GoneError), asking(address):
            filesystem(address.protocol).rm_file(address.path)


def drop_unfinished(address: Address) -> None:
    """Remove the parts of uploads to this address that were killed; where that is not allowed, they stay."""
    if address.protocol != "s3":  # Cloud Storage drops them by itself after a week
        return
    with suppress(StorageError), asking(address):
        storage = filesystem("s3")
        for found in storage.list_multipart_uploads(address.bucket):
            if found["Key"] == address.key:
                storage.abort_mpu(address.bucket, address.key, found["UploadId"])


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


def _place_of(address: Address, entry: Entry) -> Path:
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
    place = _place_of(address, entry)
    if place.is_file():
        return place
    try:
        place = _place_of(address, download(address, place))
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
    _forget_others(address, place)
    return place


def adopt(address: Address, entry: Entry, path: Path) -> None:
    """Make the copy of an object of the file that it was written from; where that is not possible, there is none."""
    place = _place_of(address, entry)
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
        _forget_others(address, place)


def _forget_others(address: Address, place: Path) -> None:
    """Delete copies of other versions; one that somebody reads on a system that does not allow it stays."""
    with suppress(OSError):
        for version in (folder_of(address) / "copies").iterdir():
            if version != place.parent:
                shutil.rmtree(version, ignore_errors=True)
