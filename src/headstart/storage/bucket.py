"""List, read, write and delete objects in a bucket; errors of cloud libraries become one sentence without secrets."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from headstart.errors import HeadstartError, MissingExtraError, StorageError
from headstart.storage.address import PROTOCOLS, Address, redacted

#: Where a provider's library looks for keys.
KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials, or the role of the machine",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, gcloud auth application-default login, or the account of the machine",
}

#: Words in the names of exceptions, from botocore, aiohttp and google.auth, that say that nobody answered.
UNREACHABLE = ("Connect", "Endpoint", "Timeout", "DNS", "SSL", "Proxy", "Disconnected", "HTTPClient", "Transport")

#: Characters of a library's message that are shown.
SHOWN = 200


class NotReachedError(StorageError):
    """The server does not answer, or there are no keys to ask it with: no object of it can be read at all."""


class GoneError(StorageError):
    """There is no such bucket or object."""


class DeniedError(StorageError):
    """The keys do not allow it."""


class ExistsError(StorageError):
    """There is an object where a new one was to be."""


def _check_installed(protocol: str) -> None:
    """Raise MissingExtraError where what speaks a protocol is missing."""
    missing = [name for name in ("fsspec", PROTOCOLS[protocol]) if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{protocol}:// needs {' and '.join(missing)}, which is not installed. Install it with: "
            'pip install "headstart[cloud]".'
        )


@contextmanager
def asking(address: Address) -> Iterator[None]:
    """Turn whatever a library raises in the block into a StorageError; there is nothing but its call in it.

    What it raised is not kept as the cause: it may hold headers and signed URLs, and a worker's log would show it.
    """
    try:
        yield
    except HeadstartError:
        raise
    except Exception as error:
        raise explained(address, error) from None


def explained(address: Address, error: Exception) -> StorageError:
    """Return what a library's error means."""
    names = " ".join(kind.__name__ for kind in type(error).__mro__)
    said = redacted(" ".join(str(error).split()))[:SHOWN]
    if "NoCredentials" in names or "PartialCredentials" in names or "DefaultCredentials" in names:
        return NotReachedError(f"{address} cannot be read: no keys were found. Expected: {KEYS[address.protocol]}.")
    if isinstance(error, FileNotFoundError):
        return GoneError(f"There is nothing at {address}: no such bucket or object.")
    if isinstance(error, FileExistsError) or "PreconditionFailed" in said or "pre-conditions" in said:
        return ExistsError(f"There is an object at {address} already.")
    if isinstance(error, PermissionError) or "Forbidden" in said:
        return DeniedError(f"{address}: permission denied ({said}). Keys are taken from {KEYS[address.protocol]}.")
    if any(word in names for word in UNREACHABLE) or isinstance(error, ConnectionError | TimeoutError):
        return NotReachedError(f"The storage of {address} does not answer ({said or type(error).__name__}).")
    return StorageError(f"{address} failed: {said or type(error).__name__}.")


#: Objects of a page of a listing: the most that S3 gives at once.
PAGE = 1000

#: One request for a whole object, which is then one version of it; by default large ones are read in several.
WHOLE = {"s3": {"max_concurrency": 1}, "gs": {"concurrency": 1}}


@dataclass(frozen=True, slots=True)
class Entry:
    """An object as a listing tells of it.

    Attributes
    ----------
    path : str
        Its name below what was listed.
    size_bytes : int
        Its size.
    changed_ns : int
        Nanoseconds since 1970: the second in which it was written, and in place of a fraction, which storages do not give, a
        number made of its ETag. Two versions of one second differ in it, but for one case in 10⁹.
    etag : str
        What the provider says of the content: another one for other bytes.
    """

    path: str
    size_bytes: int
    changed_ns: int
    etag: str


def filesystem(protocol: str) -> Any:
    """Return what speaks a protocol, one for all threads of this process; listings are never remembered."""
    return _filesystem(protocol, os.getpid())


@cache
def _filesystem(protocol: str, _process: int) -> Any:
    _check_installed(protocol)
    import fsspec

    with asking(Address(protocol, "")):
        return fsspec.filesystem(protocol, use_listings_cache=False)


def entries(folder: Address) -> Iterator[Entry]:
    """Yield every object below a name, page by page; what stands for a folder is none.

    Raises
    ------
    StorageError
        If there is no such bucket, it may not be listed, or it cannot be reached.
    """
    prefix = f"{folder.key}/" if folder.key else ""
    for page in _PAGES[folder.protocol](folder, prefix):
        for facts in page:
            name = facts.get("Key") or facts["name"]
            if not name.endswith("/"):
                yield _entry(name[len(prefix) :], facts)


def _pages_s3(folder: Address, prefix: str) -> Iterator[Sequence[Mapping[str, Any]]]:
    more: dict[str, str] = {}
    while True:
        with asking(folder):
            page = filesystem("s3").call_s3(
                "list_objects_v2", Bucket=folder.bucket, Prefix=prefix, MaxKeys=PAGE, **more
            )
        yield page.get("Contents", ())
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def _pages_gs(folder: Address, prefix: str) -> Iterator[Sequence[Mapping[str, Any]]]:
    more: dict[str, str] = {}
    while True:
        with asking(folder):
            page = filesystem("gs").call(
                "GET", "b/{}/o", folder.bucket, prefix=prefix, maxResults=PAGE, json_out=True, **more
            )
        yield page.get("items", ())
        if "nextPageToken" not in page:
            return
        more = {"pageToken": page["nextPageToken"]}


_PAGES = {"s3": _pages_s3, "gs": _pages_gs}


def _entry(path: str, facts: Mapping[str, Any]) -> Entry:
    """Return an object of that name, from what S3 or Cloud Storage tells of it."""
    changed = facts.get("LastModified") or facts["updated"]
    if isinstance(changed, str):
        changed = datetime.fromisoformat(changed)
    etag = str(facts.get("ETag") or facts.get("md5Hash") or facts.get("crc32c") or facts.get("etag", "")).strip('"')
    fraction = int.from_bytes(hashlib.sha256(etag.encode()).digest()[:8]) % 10**9
    size = facts["size"] if "size" in facts else facts["Size"]
    return Entry(path, int(size), int(changed.timestamp()) * 10**9 + fraction, etag)


def stat(address: Address) -> Entry | None:
    """Return the object at an address; None where there is none.

    Raises
    ------
    StorageError
        If it may not be looked at, or cannot be reached.
    """
    try:
        with asking(address):
            facts = filesystem(address.protocol).info(address.path)
    except GoneError:
        return None
    return _entry(address.name, facts) if facts["type"] == "file" else None


def read(address: Address) -> bytes:
    """Return the bytes of an object, all of one version.

    Raises
    ------
    StorageError
        If it is gone, may not be read, or cannot be reached.
    """
    with asking(address):
        data: bytes = filesystem(address.protocol).cat_file(address.path, **WHOLE[address.protocol])
    return data


def first_bytes(addresses: Sequence[Address], n_bytes: int) -> list[bytes]:
    """Return the first bytes of some objects of one storage, at most :data:`PAGE`; nothing of what cannot be read."""
    if not addresses:
        return []
    with asking(addresses[0]):
        found = filesystem(addresses[0].protocol).cat_ranges(
            [address.path for address in addresses], 0, n_bytes, on_error="return"
        )
    return [data if isinstance(data, bytes) else b"" for data in found]


def is_there(folder: Address) -> bool:
    """Return whether a bucket can be listed."""
    try:
        for page in _PAGES[folder.protocol](folder, f"{folder.key}/" if folder.key else ""):
            return page is not None
    except StorageError:
        return False
    return False
