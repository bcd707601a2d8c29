"""Look into an archive before anything unpacks it."""

from __future__ import annotations

import zipfile
from pathlib import Path

from headstart.errors import BundleError

#: A head is megabytes; larger members are refused before they are unpacked.
MAX_MEMBER_BYTES = 4 * 1024**3


def check_members(path: Path) -> None:
    """Raise BundleError where an archive holds a member that is too large or leads out of it."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if (
                member.file_size > MAX_MEMBER_BYTES
                or member.filename.startswith(("/", ".."))
                or "/../" in member.filename
            ):
                raise BundleError(f"{path} holds a member that no head needs: {member.filename!r}.")
