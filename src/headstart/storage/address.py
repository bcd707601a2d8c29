"""Addresses in cloud storage, e.g. ``s3://bucket/photos``, without credentials."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from headstart.errors import DataError

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
