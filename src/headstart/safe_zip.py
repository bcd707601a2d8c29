"""Checks of the files of a saved head before they are loaded."""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile
from pathlib import Path
from typing import Any

from headstart.errors import BundleError
from headstart.texts import reason_of

#: The metrics of a thousand classes, with their confusion matrix, take some megabytes.
MAX_JSON_BYTES = 64 * 1024**2


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raise BundleError if it is invalid, too large, or not a regular file."""
    check_regular(path)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise BundleError(f"{path} is larger than the {MAX_JSON_BYTES:,} bytes allowed in a saved head.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read: {reason_of(error)}") from error


def check_regular(path: Path) -> None:
    """Raise BundleError if a file is missing, or is a link, a pipe or a device."""
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {reason_of(error)}") from error
    if not stat.S_ISREG(mode):
        raise BundleError(f"{path} is not a regular file. Copy the saved head with its links resolved.")


def check_members(path: Path) -> None:
    """Raise BundleError if an archive could unpack to more than its own size, or outside its folder.

    skops and Keras write uncompressed archives, so the size of each member is known.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    for member in members:
        if member.filename.startswith(("/", "..")) or "/.." in member.filename or "\\" in member.orig_filename:
            raise BundleError(f"{path} contains an unexpected member: {member.orig_filename!r}.")
        if member.compress_type != zipfile.ZIP_STORED:
            raise BundleError(f"{path} contains a compressed member, which saved heads never do: {member.filename!r}.")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise BundleError(f"{path} declares members larger than the file itself.")


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
