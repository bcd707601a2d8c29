"""List and read objects in a bucket; errors of cloud libraries become one sentence without secrets."""

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

#: Where a provider's library looks for credentials.
KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials, or the role of the machine",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, gcloud auth application-default login, or the account of the machine",
}

#: Words in the names of connection errors of botocore, aiohttp and google.auth.
UNREACHABLE = ("Connect", "Endpoint", "Timeout", "DNS", "SSL", "Proxy", "Disconnected", "HTTPClient", "Transport")

#: Characters shown of a library's message.
SHOWN = 200

#: Objects in a page of a listing, the maximum of S3.
PAGE = 1000

#: Options that read a whole object, and thus one version of it, in a single request.
WHOLE = {"s3": {"max_concurrency": 1}, "gs": {"concurrency": 1}}


class NotReachedError(StorageError):
    """The server does not answer, or there are no credentials: no object can be read."""


class GoneError(StorageError):
    """There is no such bucket or object."""


class DeniedError(StorageError):
    """The credentials do not allow it."""


class ExistsError(StorageError):
    """The object to be created exists."""


def _check_installed(protocol: str) -> None:
    missing = [name for name in ("fsspec", PROTOCOLS[protocol]) if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{protocol}:// needs {' and '.join(missing)}, which is not installed. Install it with: "
            'pip install "headstart[cloud]".'
        )


@contextmanager
def asking(address: Address) -> Iterator[None]:
    """Turn any exception into a StorageError without its cause, which may contain headers and signed URLs."""
    try:
        yield
    except HeadstartError:
        raise
    except Exception as error:
        raise explained(address, error) from None


def explained(address: Address, error: Exception) -> StorageError:
    """Return the StorageError for a library's error."""
    names = " ".join(kind.__name__ for kind in type(error).__mro__)
    message = redacted(" ".join(str(error).split()))[:SHOWN]
    if "NoCredentials" in names or "PartialCredentials" in names or "DefaultCredentials" in names:
        return NotReachedError(f"{address} cannot be read: no keys were found. Expected: {KEYS[address.protocol]}.")
    if isinstance(error, FileNotFoundError):
        return GoneError(f"There is nothing at {address}: no such bucket or object.")
    if isinstance(error, FileExistsError) or "PreconditionFailed" in message or "pre-conditions" in message:
        return ExistsError(f"There is an object at {address} already.")
    if isinstance(error, PermissionError) or "Forbidden" in message:
        return DeniedError(f"{address}: permission denied ({message}). Keys are taken from {KEYS[address.protocol]}.")
    if any(word in names for word in UNREACHABLE) or isinstance(error, ConnectionError | TimeoutError):
        return NotReachedError(f"The server of {address} does not answer ({message or type(error).__name__}).")
    return StorageError(f"{address} failed: {message or type(error).__name__}.")


@dataclass(frozen=True, slots=True)
class Entry:
    """An object in a listing."""

    path: str  # name relative to the listed address
    size_bytes: int
    #: Modification time, nanoseconds since 1970. Storages report whole seconds; the fraction is a hash of the ETag, so
    #: that two versions written in one second differ.
    changed_ns: int
    etag: str  # the provider's tag of the content


def filesystem(protocol: str) -> Any:
    """Return the filesystem of a protocol, shared by all threads of this process; listings are not cached."""
    return _filesystem(protocol, os.getpid())


@cache
def _filesystem(protocol: str, _process: int) -> Any:
    _check_installed(protocol)
    import fsspec

    with asking(Address(protocol, "")):
        return fsspec.filesystem(protocol, use_listings_cache=False)


def entries(folder: Address) -> Iterator[Entry]:
    """Yield every object below an address, page by page, without placeholders of folders; raises StorageError."""
    prefix = _prefix(folder)
    for page in _pages(folder):
        for info in page:
            name = info.get("Key") or info["name"]
            if not name.endswith("/"):
                yield _entry(name[len(prefix) :], info)


def _prefix(folder: Address) -> str:
    return f"{folder.key}/" if folder.key else ""


def _pages(folder: Address) -> Iterator[Sequence[Mapping[str, Any]]]:
    """Yield the objects below an address, page by page, at least one page."""
    list_page = {"s3": _s3_page, "gs": _gs_page}[folder.protocol]
    token: str | None = ""
    while token is not None:
        with asking(folder):
            objects, token = list_page(folder.bucket, _prefix(folder), token)
        yield objects


def _s3_page(bucket: str, prefix: str, token: str) -> tuple[Sequence[Mapping[str, Any]], str | None]:
    """Return the objects of a page, and the token of the next page."""
    more = {"ContinuationToken": token} if token else {}
    page = filesystem("s3").call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=PAGE, **more)
    return page.get("Contents", ()), page["NextContinuationToken"] if page.get("IsTruncated") else None


def _gs_page(bucket: str, prefix: str, token: str) -> tuple[Sequence[Mapping[str, Any]], str | None]:
    more = {"pageToken": token} if token else {}
    page = filesystem("gs").call("GET", "b/{}/o", bucket, prefix=prefix, maxResults=PAGE, json_out=True, **more)
    return page.get("items", ()), page.get("nextPageToken")


def _entry(path: str, info: Mapping[str, Any]) -> Entry:
    changed = info.get("LastModified") or info["updated"]
    if isinstance(changed, str):
        changed = datetime.fromisoformat(changed)
    etag = str(info.get("ETag") or info.get("md5Hash") or info.get("crc32c") or info.get("etag", "")).strip('"')
    fraction = int.from_bytes(hashlib.sha256(etag.encode()).digest()[:8]) % 10**9
    size = info["size"] if "size" in info else info["Size"]
    return Entry(path, int(size), int(changed.timestamp()) * 10**9 + fraction, etag)


def stat(address: Address) -> Entry | None:
    """Return the object at an address, or None; raise StorageError if it may not be read, or cannot be reached."""
    try:
        with asking(address):
            info = filesystem(address.protocol).info(address.path)
    except GoneError:
        return None
    return _entry(address.name, info) if info["type"] == "file" else None


def existing(address: Address) -> Entry:
    """Return the object at an address; raise GoneError if there is none."""
    entry = stat(address)
    if entry is None:
        raise explained(address, FileNotFoundError())
    return entry


def read(address: Address) -> bytes:
    """Return the bytes of an object, all of one version; raises StorageError."""
    with asking(address):
        data: bytes = filesystem(address.protocol).cat_file(address.path, **WHOLE[address.protocol])
    return data


def first_bytes(addresses: Sequence[Address], n_bytes: int) -> list[bytes]:
    """Return the first bytes of at most :data:`PAGE` objects of one storage; empty for those that cannot be read."""
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
        next(_pages(folder))
    except StorageError:
        return False
    return True
