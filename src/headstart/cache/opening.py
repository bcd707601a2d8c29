"""Open a cache (a file, a folder of shards or an object) and check its structure before any value is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.cache.datasets import compression_of
from headstart.cache.format import FEATURES, Header, read_header
from headstart.cache.other_hdf5 import refuse_other
from headstart.cache.safe_reads import StoredRows, checked_datasets, close_file, damage
from headstart.cache.sandbox import open_hdf5
from headstart.cache.shard_manifest import Places, check_files, read_manifest, sharded_rows
from headstart.cache.shards import MANIFEST, OpenShards, ShardedRows, ShardFolder, shard_folder
from headstart.errors import CacheError
from headstart.storage.address import Address, Location
from headstart.storage.bucket import GoneError
from headstart.storage.objects import copied


def open_path(path: Path) -> Opened:
    """Return the cache at a path; raise CacheError if there is none or it is damaged."""
    folder = shard_folder(path)
    return open_folder(folder) if folder else open_single(path)


@dataclass(frozen=True, slots=True)
class Opened:
    """A cache of checked structure."""

    path: Path  # the file, or the folder of shards
    file: Any  # the file with the columns
    header: Header
    #: By name, e.g. ``rows/path``; ``features`` and ``pooled`` of a folder are in its shards.
    datasets: Mapping[str, StoredRows | ShardedRows]
    size_bytes: int  # total size
    compression: str  # compression of the features
    shards: OpenShards | None = None  # the shards of a folder
    places: Places | None = None  # the location of each row in the shards

    def close(self) -> None:
        """Close all files."""
        close_file(self.file)
        if self.shards is not None:
            self.shards.close()


def open_single(path: Path) -> Opened:
    """Return a cache that is one file."""
    check_is_file(path)
    with damage(path):
        file = open_hdf5(path)
    try:
        with damage(path):
            header = read_header(file, path)
            datasets = checked_datasets(file, header)
            compression = compression_of(datasets[FEATURES].filters)
            return Opened(path, file, header, datasets, int(file.id.get_filesize()), compression)
    except BaseException:
        close_file(file)
        raise


def open_folder(folder: ShardFolder, *, check_shards: bool = True) -> Opened:
    """Return a cache that is a folder of shards; without ``check_shards`` even if some are missing."""
    with damage(folder.path):
        file = folder.open(MANIFEST)
    try:
        with damage(folder.path):
            manifest = read_manifest(file, folder.path / MANIFEST)
            if check_shards:
                check_files(folder, manifest.places.table)
            places = manifest.places
            shards, rows = sharded_rows(folder, manifest)
            size_bytes = int(file.id.get_filesize() + places.table.size_bytes.sum())
            datasets: dict[str, StoredRows | ShardedRows] = {**manifest.columns, **rows}
            return Opened(folder.path, file, manifest.header, datasets, size_bytes, places.compression, shards, places)
    except BaseException:
        close_file(file)
        raise


def check_is_file(path: Path) -> None:
    """Raise CacheError if there is no file, or it was written by another program."""
    if path.is_dir():
        raise CacheError(f"{path} is a folder. Expected: a cache, a file that extract-features wrote.")
    if not path.is_file():
        raise CacheError(f"There is no cache at {path}. Expected: a file that extract-features wrote.")
    refuse_other(path)


def on_this_machine(where: Location) -> Path:
    """Return a local path of a cache: its own, or that of a copy of the object at an address."""
    return copy_of(where) if isinstance(where, Address) else where


def copy_of(address: Address) -> Path:
    """Return a local copy of the cache at an address; raise CacheError if there is none, StorageError on failure."""
    try:
        return copied(address, check)
    except GoneError as error:
        raise CacheError(f"There is no cache at {address}. Expected: a file that extract-features wrote.") from error


def check(path: Path) -> None:
    """Raise CacheError if the structure of a cache is damaged; rows are checked on reading."""
    open_path(path).close()
