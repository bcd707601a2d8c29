"""A folder of shards: the files in it, and the one that makes them a cache. Nothing else touches such a folder."""

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

#: Name of the manifest in its folder. It does not end in .h5, as the caches do that lie beside each other in a folder.
MANIFEST = "cache.manifest"

#: Names that a manifest may give to shards: none leads out of the folder, or to something hidden.
SHARD_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}\.h5")

#: Names of the shards that extraction writes; nothing else in a folder is ever deleted.
OWN_SHARD_NAME = re.compile(r"[0-9]{20}(-[0-9]+)*\.h5")


class ShardFolder:
    """The files of a folder of shards by name, and the manifest, which is written last.

    Parameters
    ----------
    path : Path
        The folder; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def sizes(self) -> dict[str, int]:
        """Return name → size in bytes of the files that can be shards; links are none."""
        with os.scandir(self.path) as entries:
            return {
                entry.name: entry.stat(follow_symlinks=False).st_size
                for entry in entries
                if SHARD_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            }

    def size(self, name: str) -> int:
        """Return the size of a file in bytes.

        Raises
        ------
        FileNotFoundError
            If it is not there, or is something else than a file.
        """
        path = self.path / name
        if path.is_symlink() or not path.is_file():
            raise FileNotFoundError(f"there is no file {name}")
        return path.stat().st_size

    def open(self, name: str) -> Any:
        """Return a file, open for reading as HDF5; what it holds has not been looked at."""
        # No chunk is read twice, so none is kept: HDF5 would hold a megabyte of them for each dataset.
        return open_hdf5(self.path / name, rdcc_nbytes=0)

    def digest(self, name: str) -> bytes:
        """Return the SHA-256 of a file, 32 bytes."""
        with (self.path / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()

    def has_manifest(self) -> bool:
        """Return whether the folder is a cache."""
        return (self.path / MANIFEST).is_file()

    def version(self) -> object:
        """Return a value that is another one once the manifest has been replaced; None where there is none."""
        try:
            found = (self.path / MANIFEST).stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    @contextmanager
    def published(self) -> Iterator[tuple[Any, PartialFile]]:
        """Yield a new manifest, open for writing, that takes the place of the old one when the block ends.

        Raises
        ------
        CacheError
            If it cannot be written.
        """
        with writing(self.path):
            sync_folder(self.path)  # the names of the shards are on the disk before a manifest says so
        with published(self.path / MANIFEST) as opened:
            yield opened

    def strange(self) -> list[str]:
        """Return the names of what is in a folder that is no cache and that extraction did not leave there, sorted."""
        if self.has_manifest() or not self.path.is_dir():
            return []
        names = (path.name for path in self.path.iterdir())
        return sorted(name for name in names if not (OWN_SHARD_NAME.fullmatch(name) or _is_partial(name)))

    def remove_partial(self) -> None:
        """Delete what a dead writer was writing; what cannot be deleted is in nobody's way."""
        with suppress(OSError):
            for path in list(self.path.iterdir()):
                if _is_partial(path.name):
                    path.unlink(missing_ok=True)

    def remove(self, names: Iterable[str]) -> None:
        """Delete shards that extraction has written; what cannot be deleted is in nobody's way."""
        for name in names:
            if OWN_SHARD_NAME.fullmatch(name):
                with suppress(OSError):
                    (self.path / name).unlink(missing_ok=True)


def _is_partial(name: str) -> bool:
    """Return whether a file is one that is being written, or was when its writer died."""
    return name.startswith(".") and name.endswith(PARTIAL_SUFFIX)


def shard_folder(path: Path) -> ShardFolder | None:
    """Return the folder of shards that a path stands for, by its own name or its manifest's; None for a file.

    Raises
    ------
    CacheError
        If it is a folder without a manifest.
    """
    if path.name == MANIFEST:
        path = path.parent
    elif not path.is_dir():
        return None
    folder = ShardFolder(path)
    if not folder.has_manifest():
        raise CacheError(
            f"{path} is a folder without a {MANIFEST}. Expected: a cache, which is a file that extract-features wrote, or a "
            "folder that extract-features --layout shards wrote to its end."
        )
    return folder


def is_cache(path: str | Location) -> bool:
    """Return whether a path is meant as a cache, by its name alone; a folder, by its manifest."""
    path = Path(str(path))
    return path.suffix == ".h5" or path.name == MANIFEST or ShardFolder(path).has_manifest()
