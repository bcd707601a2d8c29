"""Which files this user's headstart has written or checked on this machine, so that each is checked once.

A file is known by what the operating system says of it, wherever it lies: device, inode, size, time of last change and, where
that cannot be set by a program, of the last change of its description. So a copy, and a file that was changed, is
another file. The record holds nothing else, is a convenience, and may be deleted, incomplete or not writable at any time.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path

import h5py

from headstart.storage.copies import home

#: Raise it when more is checked than before.
VERSION = 1

#: Name of the record in the user's cache folder: one identity a line.
RECORD = "checked-files.txt"

#: The record is cut to its newer half when it is larger: 30,000 files.
MAX_RECORD_BYTES = 2**20

#: What this process knows of: identities of files, and which state of the record it has read.
_known: set[str] = set()
_read: list[tuple[int, int]] = [(0, 0)]


def identity(path: Path) -> str:
    """Return what a file is known by, 32 hexadecimal digits."""
    found = path.stat()
    values = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return hashlib.sha256(f"{VERSION} {h5py.version.hdf5_version} {values}".encode()).hexdigest()[:32]


def is_known(file: str) -> bool:
    """Return whether a file, by its identity, was written or checked here."""
    if file not in _known:
        with suppress(OSError):
            path = home() / RECORD
            found = path.stat()
            if _read[0] != (state := (found.st_mtime_ns, found.st_size)):
                _known.update(path.read_text("ascii", errors="replace").split())
                _read[0] = state
    return file in _known


def remember(file: str) -> None:
    """Keep that a file, by its identity, was written or checked here: for this process, and if possible for later ones."""
    _known.add(file)
    with suppress(OSError):
        path = home() / RECORD
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="ascii") as record:
            record.write(f"{file}\n")
            size_bytes = record.tell()
        if size_bytes > MAX_RECORD_BYTES:
            forget_older_half(path)


def forget_older_half(path: Path) -> None:
    """Cut the record to its newer half."""
    lines = path.read_text("ascii", errors="replace").splitlines(keepends=True)
    shorter = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    shorter.write_text("".join(lines[len(lines) // 2 :]), "ascii")
    shorter.replace(path)


def remember_written(path: Path) -> None:
    """Keep that this process has written a file."""
    with suppress(OSError):
        remember(identity(path))
