"""Addresses in cloud storage, e.g. ``s3://bucket/photos``, without credentials; objects in a bucket are listed and read.

Errors of cloud libraries become one sentence without secrets.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from headstart.errors import DataError, HeadstartError, MissingExtraError, StorageError

#: Protocol → package that implements it.
PROTOCOLS = {"s3": "s3fs", "gs": "gcsfs"}

#: Scheme and rest of an address (RFC 3986, section 3.1).
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)

#: Names of buckets, including legacy ones (Amazon S3 user guide, "Bucket naming rules"; Cloud Storage, "Buckets").
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")

#: Parts of URLs that may contain secrets: user information and query.
_USER, _QUERY = re.compile(r"(?<=://)[^/\s]*@"), re.compile(r"(https?://[^\s?\"']*)\?[^\s\"']*")


@dataclass(frozen=True, slots=True)
class Address:
    """An object, or all objects below a name."""

    protocol: str  # one of :data:`PROTOCOLS`
    bucket: str
    key: str = ""  # name within the bucket, without leading or trailing slash; empty for the whole bucket

    def __str__(self) -> str:
        return f"{self.protocol}://{self.path}"

    def __truediv__(self, name: str) -> Address:
        return replace(self, key=f"{self.key}/{name}" if self.key else name)

    @property
    def path(self) -> str:
        """Bucket and key, in fsspec's form."""
        return f"{self.bucket}/{self.key}" if self.key else self.bucket

    @property
    def name(self) -> str:
        """The last part of the key, or the bucket's name."""
        return self.key.rpartition("/")[2] or self.bucket

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        """The suffix of the name, with its dot."""
        return Path(self.name).suffix

    @property
    def parent(self) -> Address:
        """The address one level up."""
        return replace(self, key=self.key.rpartition("/")[0])

    def with_name(self, name: str) -> Address:
        """Return the address with another last part."""
        return self.parent / name


#: A place on a disk, or in a bucket.
Location: TypeAlias = Path | Address


def location(text: str | Path | Address) -> Location:
    """Return a path, or an address if the text is one; DataError, without its secret, if the address is invalid."""
    if not isinstance(text, str):
        return text
    found = _PROTOCOL.fullmatch(text)
    if not found:
        return Path(text)
    protocol, rest = found[1].lower(), found[2]
    bucket, _, key = rest.partition("/")
    if "@" in bucket or ":" in bucket or "?" in rest:
        raise DataError(
            f"{protocol}:// addresses with a user, a password, a port or a query string are refused, since they would be "
            "stored and printed. Expected: s3://bucket/folder. Give keys in the environment or in the provider's own "
            "configuration file (AWS_ACCESS_KEY_ID …, ~/.aws/credentials, GOOGLE_APPLICATION_CREDENTIALS), another server in "
            "AWS_ENDPOINT_URL."
        )
    if protocol not in PROTOCOLS:
        raise DataError(f"{protocol}:// addresses are not supported. Expected: a path, s3://bucket/… or gs://bucket/…")
    if not _BUCKET.fullmatch(bucket):
        raise DataError(f"{protocol}://{rest} names no bucket. Expected: {protocol}://bucket/folder.")
    return Address(protocol, bucket, key.strip("/"))


def redacted(text: str) -> str:
    """Return a text without users, passwords and query strings in its URLs."""
    return _QUERY.sub(r"\1", _USER.sub("", text))


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
