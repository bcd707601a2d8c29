"""Look at the files of a saved head before anything believes them."""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile
from pathlib import Path
from typing import Any

from headstart.errors import BundleError
from headstart.texts import reason_of

#: JSON beside a head is kilobytes; the metrics of a thousand classes, with their confusion matrix, are some megabytes.
MAX_JSON_BYTES = 64 * 1024**2


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; raise BundleError where it is none, too large, or no regular file."""
    check_regular(path)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise BundleError(f"{path} is larger than {MAX_JSON_BYTES:,} bytes, as no file of a saved head is.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read: {reason_of(error)}") from error


def check_regular(path: Path) -> None:
    """Raise BundleError where a file is missing, or is a link, a pipe or a device."""
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {reason_of(error)}") from error
    if not stat.S_ISREG(mode):
        raise BundleError(f"{path} is no regular file. A saved head holds no links; copy it with what they lead to.")


def check_members(path: Path) -> None:
    """Raise BundleError where an archive could unpack to more than its own size, or out of its place.

    skops and Keras write their archives without compression, so a member is as large as it looks.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    for member in members:
        if member.filename.startswith(("/", "..")) or "/.." in member.filename or "\\" in member.orig_filename:
            raise BundleError(f"{path} holds a member that no head needs: {member.orig_filename!r}.")
        if member.compress_type != zipfile.ZIP_STORED:
            raise BundleError(f"{path} is compressed, as no saved head is: {member.filename!r}.")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise BundleError(f"{path} says that it holds more than its own size.")


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
