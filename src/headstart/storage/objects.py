"""Write objects whole or not at all, and keep verified copies in the user's cache folder."""

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
from headstart.storage.bucket import Address, Entry, GoneError, asking, existing, filesystem, stat

#: Attempts to read an object that is replaced meanwhile.
ATTEMPTS = 3

#: Environment variable with the folder for copies.
FOLDER_VARIABLE = "HEADSTART_CACHE_DIR"


def upload(path: Path, address: Address, *, new: bool = False) -> Entry:
    """Upload a file, and return the entry of the object.

    Readers see the old object or the new one: S3 shows an object once its PUT or multipart upload is complete, Cloud
    Storage once the upload is finalised. With ``new``, ExistsError is raised if the object exists, by the storage's own
    comparison (``If-None-Match``, ``ifGenerationMatch=0``). Raises StorageError if it cannot be written, or has another
    size afterwards.
    """
    with asking(address):
        filesystem(address.protocol).put_file(str(path), address.path, mode="create" if new else "overwrite")
    found = stat(address)
    if found is None or found.size_bytes != path.stat().st_size:
        received = "nothing" if found is None else f"{found.size_bytes:,} bytes"
        raise StorageError(
            f"{address} differs from what was written. Expected: {path.stat().st_size:,} bytes. Received: {received}. Does "
            "another program write there? Run again."
        )
    return found


def download(address: Address, path: Path) -> Entry:
    """Download an object, whole or not at all, and return its entry; the folder of ``path`` is created.

    Raises StorageError if it is gone, cannot be read, or is replaced repeatedly meanwhile.
    """
    with _whole(path) as partial:
        for _ in range(ATTEMPTS):
            before = existing(address)
            _get(address, partial)
            if stat(address) == before and partial.stat().st_size == before.size_bytes:
                return before
        raise StorageError(f"{address} was replaced while it was read, {ATTEMPTS} times. Run again later.")


def fetch(address: Address, path: Path) -> None:
    """Download an object that is never replaced, whole or not at all; raises as :func:`download`."""
    with _whole(path) as partial:
        _get(address, partial)


def _get(address: Address, path: Path) -> None:
    with asking(address):
        filesystem(address.protocol).get_file(address.path, str(path))


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Yield a temporary file that becomes ``path`` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()


def create(address: Address, data: bytes) -> None:
    """Create an object; raises ExistsError, by the storage's own comparison, if it exists."""
    with asking(address):
        filesystem(address.protocol).pipe_file(address.path, data, mode="create")


def replace(address: Address, data: bytes, known: Entry) -> None:
    """Overwrite an object that is still the known version; S3 compares (``If-Match``), Cloud Storage does not."""
    same = {"IfMatch": f'"{known.etag}"'} if address.protocol == "s3" else {}
    with asking(address):
        filesystem(address.protocol).pipe_file(address.path, data, **same)


def delete(addresses: Iterable[Address]) -> None:
    """Delete some objects, if they exist."""
    for address in addresses:
        with suppress(GoneError), asking(address):
            filesystem(address.protocol).rm_file(address.path)


def drop_unfinished(address: Address) -> None:
    """Remove the parts of interrupted uploads to this address, if allowed."""
    if address.protocol != "s3":  # Cloud Storage removes them itself after a week
        return
    with suppress(StorageError), asking(address):
        storage = filesystem("s3")
        for found in storage.list_multipart_uploads(address.bucket):
            if found["Key"] == address.key:
                storage.abort_mpu(address.bucket, address.key, found["UploadId"])


def user_home() -> Path:
    """Return the user's home folder; a temporary one for a user without, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:  # neither HOME nor an entry in the user database
        return _temporary_home()


@cache
def _temporary_home() -> Path:
    """Return a private folder that is removed when this process ends."""
    folder = tempfile.mkdtemp(prefix="headstart-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def home() -> Path:
    """Return the folder for copies (XDG Base Directory Specification 0.8; Windows: local application data)."""
    if own := os.environ.get(FOLDER_VARIABLE):
        return Path(own)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", user_home() / "AppData" / "Local")) / "headstart"
    return Path(os.environ.get("XDG_CACHE_HOME") or user_home() / ".cache") / "headstart"


def folder_of(address: Address) -> Path:
    """Return the folder for the files of an address."""
    return home() / "buckets" / hashlib.sha256(str(address).encode()).hexdigest()[:16]


def _place_of(address: Address, entry: Entry) -> Path:
    version = hashlib.sha256(f"{entry.etag} {entry.size_bytes} {entry.changed_ns}".encode()).hexdigest()[:16]
    return folder_of(address) / "copies" / version / address.name


def copied(address: Address, check: Callable[[Path], None]) -> Path:
    """Return a local copy of an object, which is downloaded if this machine has none of this version.

    ``check`` raises an exception if a new copy is damaged. Raises StorageError if there is no such object, it cannot be
    read, or the copy cannot be written.
    """
    place = _place_of(address, existing(address))
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
    """Move the file that an object was written from to the place of its copy, if possible."""
    place = _place_of(address, entry)
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
        _forget_others(address, place)


def _forget_others(address: Address, place: Path) -> None:
    """Delete copies of other versions, unless they are in use (Windows)."""
    with suppress(OSError):
        for version in (folder_of(address) / "copies").iterdir():
            if version != place.parent:
                shutil.rmtree(version, ignore_errors=True)
