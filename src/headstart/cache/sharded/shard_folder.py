"""The files of a folder of shards; only this module accesses them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from headstart.cache.publish import PARTIAL_SUFFIX, PartialFile, published, writing
from headstart.cache.sandbox import open_hdf5
from headstart.errors import CacheError
from headstart.storage.address import Location
from headstart.storage.replacement import sync_folder

#: Name of the manifest. It does not end in .h5, unlike caches.
MANIFEST = "cache.manifest"

#: Valid names of shards: none leaves the folder or is hidden.
SHARD_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}\.h5")

#: Names of shards written by extraction; no other file is ever deleted.
OWN_SHARD_NAME = re.compile(r"[0-9]{20}(-[0-9]+)*\.h5")


class ShardFolder:
    """The shards in a folder by name, and the manifest, which is written last.

    Parameters
    ----------
    path : Path
        The folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def sizes(self) -> dict[str, int]:
        """Return name → size in bytes of possible shards; links are ignored."""
        with os.scandir(self.path) as entries:
            return {
                entry.name: entry.stat(follow_symlinks=False).st_size
                for entry in entries
                if SHARD_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            }

    def size(self, name: str) -> int:
        """Return the size of a file in bytes; raise FileNotFoundError if there is no such regular file."""
        path = self.path / name
        if path.is_symlink() or not path.is_file():
            raise FileNotFoundError(f"there is no file {name}")
        return path.stat().st_size

    def open(self, name: str) -> Any:
        """Return an HDF5 file, open for reading; its content is not checked."""
        # No chunk is read twice; the chunk cache would take a megabyte per dataset.
        return open_hdf5(self.path / name, rdcc_nbytes=0)

    def digest(self, name: str) -> bytes:
        """Return the SHA-256 of a file, 32 bytes."""
        with (self.path / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()

    def has_manifest(self) -> bool:
        """Return whether the folder is a cache."""
        return (self.path / MANIFEST).is_file()

    def version(self) -> object:
        """Return a value that changes when the manifest is replaced; None if there is none."""
        try:
            found = (self.path / MANIFEST).stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    @contextmanager
    def published(self) -> Iterator[tuple[Any, PartialFile]]:
        """Yield a new manifest that replaces the old one when the block ends; raise CacheError if it cannot be written."""
        with writing(self.path):
            sync_folder(self.path)  # the shards are on disk before the manifest names them
        with published(self.path / MANIFEST) as opened:
            yield opened

    def unexpected_files(self) -> list[str]:
        """Return the sorted names of files not written by extraction in a folder without a manifest."""
        if self.has_manifest() or not self.path.is_dir():
            return []
        names = (path.name for path in self.path.iterdir())
        return sorted(name for name in names if not (OWN_SHARD_NAME.fullmatch(name) or _is_partial(name)))

    def remove_partial(self) -> None:
        """Delete incomplete files of dead writers, ignoring errors."""
        with suppress(OSError):
            for path in list(self.path.iterdir()):
                if _is_partial(path.name):
                    path.unlink(missing_ok=True)

    def remove(self, names: Iterable[str]) -> None:
        """Delete shards written by extraction, ignoring errors."""
        for name in names:
            if OWN_SHARD_NAME.fullmatch(name):
                with suppress(OSError):
                    (self.path / name).unlink(missing_ok=True)


def _is_partial(name: str) -> bool:
    return name.startswith(".") and name.endswith(PARTIAL_SUFFIX)


def shard_folder(path: Path) -> ShardFolder | None:
    """Return the folder of shards at a path, or of a manifest; None for a file; raise CacheError for any other folder."""
    if path.name == MANIFEST:
        path = path.parent
    elif not path.is_dir():
        return None
    folder = ShardFolder(path)
    if not folder.has_manifest():
        raise CacheError(
            f"{path} is a folder without a {MANIFEST}. Expected: a cache, which is a file that extract-features wrote, or a "
            "complete folder of shards."
        )
    return folder


def is_cache(path: str | Location) -> bool:
    """Return whether a path denotes a cache, judged by its name; a folder by its manifest."""
    path = Path(str(path))
    return path.suffix == ".h5" or path.name == MANIFEST or ShardFolder(path).has_manifest()
