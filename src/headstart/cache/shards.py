"""A folder of shards: its files, which only this module accesses, its manifest, and rows that are distributed over the files.

Violations are raised as ValueError or KeyError with a clause that safe_reads.py completes to a sentence.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.columns import grouped, read_column
from headstart.cache.format import (
    COMPRESSIONS,
    FEATURES,
    MAX_ROW_BYTES,
    PLACE_COLUMNS,
    POOLED,
    POOLED_COLUMN_LAYER,
    ROWS,
    SHARD_COLUMNS,
    SHARDS,
    SHARDS_FORMAT,
    Column,
    Header,
    read_header,
    read_integer_attribute,
    read_text_attribute,
)
from headstart.cache.safe_reads import (
    H5PY_ERRORS,
    StoredRows,
    checked_columns,
    checked_rows,
    close_file,
    first_line,
    manifest_columns,
    row_dtype,
)
from headstart.cache.sandbox import open_hdf5, published
from headstart.errors import CacheError
from headstart.storage.bucket import Location
from headstart.storage.publishing import PartialFile, is_partial, sync_folder, writing
from headstart.texts import TextColumn
from headstart.types import Recipe

#: Name of the manifest. It does not end in .h5, unlike caches.
MANIFEST = "cache.manifest"

#: Valid names of shards: none leaves the folder or is hidden.
SHARD_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}\.h5")

#: Names of shards written by extraction; no other file is ever deleted.
OWN_SHARD_NAME = re.compile(r"[0-9]{20}(-[0-9]+)*\.h5")


class ShardFolder:
    """The shards in a folder by name, and the manifest, which is written last; the folder need not exist yet."""

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

    def check(self, table: ShardTable) -> None:
        """Raise ValueError if a shard is missing or of another size; its content is checked on reading."""
        sizes = self.sizes()
        for name, expected in zip(table.names, table.size_bytes.tolist(), strict=True):
            if name not in sizes:
                raise ValueError(f"the shard {name} is missing (headstart repair computes its rows again)")
            if sizes[name] != expected:
                raise ValueError(
                    f"the shard {name} has {sizes[name]:,} bytes, not the {expected:,} that the manifest says"
                )

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
        return sorted(name for name in names if not (OWN_SHARD_NAME.fullmatch(name) or is_partial(name)))

    def remove_partial(self) -> None:
        """Delete incomplete files of dead writers, ignoring errors."""
        with suppress(OSError):
            for path in list(self.path.iterdir()):
                if is_partial(path.name):
                    path.unlink(missing_ok=True)

    def remove(self, names: Iterable[str]) -> None:
        """Delete shards written by extraction, ignoring errors."""
        for name in names:
            if OWN_SHARD_NAME.fullmatch(name):
                with suppress(OSError):
                    (self.path / name).unlink(missing_ok=True)


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


def most_open() -> int:
    """Return the maximum number of open shards: half of the process's file limit; 128 of them take 90 MB of memory."""
    try:
        import resource
    except ImportError:  # Windows: 512 files in all
        return 128
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 128 if soft == resource.RLIM_INFINITY else max(16, min(128, soft // 2))


#: Maximum number of open shards.
MAX_OPEN = most_open()


@dataclass(frozen=True, slots=True)
class ShardTable:
    """The shards of a manifest, one value per shard."""

    names: TextColumn
    n_images: NDArray[np.int64]  # rows in the file, including unused ones; and its size; shape (n_shards,)
    size_bytes: NDArray[np.int64]
    sha256: NDArray[np.uint8]  # digest of the file; shape (n_shards, 32)

    def __len__(self) -> int:
        return len(self.n_images)


class OpenShards:
    """The shards of a cache, opened on demand; the least recently used are closed. Thread-safe.

    ``row_shapes`` are the shapes of a row of ``features`` and of ``pooled``.
    """

    def __init__(
        self, folder: ShardFolder, table: ShardTable, recipe: Recipe, row_shapes: dict[str, tuple[int, ...]]
    ) -> None:
        self.folder, self.table, self.recipe, self.row_shapes = folder, table, recipe, row_shapes
        self._lock, self._version = threading.RLock(), folder.version()
        self._closed = False
        self._open: OrderedDict[int, tuple[Any, dict[str, StoredRows]]] = OrderedDict()

    @contextmanager
    def at(self, number: int, name: str) -> Iterator[StoredRows]:
        """Yield ``features`` or ``pooled`` of a shard, which stays open in the block.

        Raises ValueError, naming the shard, if the file is not the one in the manifest, or is damaged.
        """
        with self._lock:
            try:
                yield self._rows(number, name)
            except H5PY_ERRORS as error:
                gone = isinstance(error, FileNotFoundError) and self.folder.version() != self._version
                what = "gone, since the cache was brought up to date meanwhile: open it again" if gone else "missing"
                said = f"it is {what}" if isinstance(error, FileNotFoundError) else first_line(error)
                raise ValueError(f"shard {self.table.names[number]}: {said}") from error

    def _rows(self, number: int, name: str) -> StoredRows:
        if self._closed:
            raise ValueError("it has been closed")
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number][1][name]
        size_bytes, expected = self.folder.size(self.table.names[number]), int(self.table.size_bytes[number])
        if size_bytes != expected:
            raise ValueError(f"it has {size_bytes:,} bytes, not the {expected:,} that the manifest says")
        file = self.folder.open(self.table.names[number])
        try:
            found = self._checked(file, number)
        except BaseException:
            close_file(file)
            raise
        self._open[number] = file, found
        if len(self._open) > MAX_OPEN:
            close_file(self._open.popitem(last=False)[1][0])
        return found[name]

    def _checked(self, file: Any, number: int) -> dict[str, StoredRows]:
        """Return the rows of an open shard; raise ValueError if they are not those that the manifest says."""
        header = read_header(file, self.folder.path / self.table.names[number])
        differences = self.recipe.differences(header.recipe)
        if differences:
            raise ValueError(f"it was made by another recipe (manifest ≠ shard): {'; '.join(differences)}")
        n_images = int(self.table.n_images[number])
        if header.n_images != n_images:
            raise ValueError(f"it has {header.n_images:,} rows, not the {n_images:,} that the manifest says")
        found = {name: checked_rows(file, name, self.recipe.storage, n_images) for name in (FEATURES, POOLED)}
        for name, rows in found.items():
            if rows.shape[1:] != self.row_shapes[name]:
                raise ValueError(f"it has rows of shape {rows.shape[1:]} in /{name}, not {self.row_shapes[name]}")
        return found

    def open_first(self, groups: Iterable[tuple[int, NDArray[np.int64]]]) -> list[tuple[int, NDArray[np.int64]]]:
        """Return the groups, open shards first, since opening others may close them."""
        return sorted(groups, key=lambda group: group[0] not in self._open)

    def close(self) -> None:
        """Close all shards."""
        with self._lock:
            self._closed = True
            while self._open:
                close_file(self._open.popitem()[1][0])


class ShardedRows:
    """``features`` or ``pooled`` of a folder of shards, with the interface of :class:`StoredRows`.

    ``shard`` and ``shard_row`` are the shard of each row, and its row there.
    """

    chunk_rows = 1

    def __init__(self, shards: OpenShards, name: str, shard: NDArray[np.int32], shard_row: NDArray[np.int32]) -> None:
        self._shards, self._name, self._shard, self._shard_row = shards, name, shard, shard_row
        row_shape = shards.row_shapes[name]
        self.dtype = row_dtype(name, shards.recipe.storage)
        self.shape = (len(shard), *row_shape)
        self.chunk_bytes = int(np.prod(row_shape)) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self._shard)

    def filters_of(self, row: int) -> tuple[int, ...]:
        """Return the HDF5 filters of a row, which may differ between shards."""
        with self._shards.at(int(self._shard[row]), self._name) as stored:
            return stored.filters_of(0)

    def read_chunk(self, first: int) -> tuple[int, bytes]:
        """Return filter mask and stored bytes of a row."""
        with self._shards.at(int(self._shard[first]), self._name) as stored:
            return stored.read_chunk(int(self._shard_row[first]))

    def read(self, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Read rows into ``values`` in the given order, shard by shard; raise ValueError, naming the shard, on failure."""
        numbers, places = self._shard[rows], self._shard_row[rows].astype(np.int64)
        for number, which in self._shards.open_first(grouped(numbers)):
            with self._shards.at(number, self._name) as stored:
                if which[-1] - which[0] == len(which) - 1:  # contiguous: no intermediate copy
                    stored.read(places[which], values[which[0] : which[-1] + 1])
                    continue
                part = np.empty((len(which), *values.shape[1:]), values.dtype)
                stored.read(places[which], part)
                values[which] = part


@dataclass(frozen=True, slots=True)
class Places:
    """The location of the features of a cache."""

    table: ShardTable
    shard: NDArray[np.int32]  # file of each row, and row in it; shape (n_images,)
    shard_row: NDArray[np.int32]
    map_shape: tuple[int, ...]  # height, width and channels of a row of features
    compression: str  # compression of new shards: ``zstd``, ``gzip`` or ``none``. Existing shards may differ.


@dataclass(frozen=True, slots=True)
class Manifest:
    """An open, checked manifest; the shards are not checked."""

    header: Header
    columns: dict[str, StoredRows]  # its columns by name, e.g. ``rows/path``.
    places: Places  # the location of the features
    n_pooled: int  # averages per row

    def opened(self, folder: ShardFolder) -> tuple[OpenShards, dict[str, ShardedRows]]:
        """Return the shards, and their rows as ``features`` and ``pooled``; none is opened yet."""
        places = self.places
        shapes: dict[str, tuple[int, ...]] = {FEATURES: places.map_shape, POOLED: (self.n_pooled,)}
        shards = OpenShards(folder, places.table, self.header.recipe, shapes)
        return shards, {name: ShardedRows(shards, name, places.shard, places.shard_row) for name in shapes}


def read_manifest(file: Any, path: Path) -> Manifest:
    """Return the content of an open manifest.

    Raises CacheError if it is no manifest, or of another version, and one of H5PY_ERRORS if it is damaged or inconsistent.
    """
    header = read_header(file, path, SHARDS_FORMAT)
    n_shards = read_integer_attribute(file, "n_shards")
    columns = checked_columns(file, manifest_columns(file, header.n_images, header.n_failures, n_shards))

    def read(group: str, described: Sequence[Column]) -> list[Any]:
        return [read_column(columns[f"{group}/{column.name}"]) for column in described]

    table = ShardTable(*read(SHARDS, SHARD_COLUMNS))
    shard, shard_row = read(ROWS, PLACE_COLUMNS)
    places = Places(table, shard, shard_row, _read_map_shape(file), read_text_attribute(file, "compression"))
    _check_places(places, header)
    return Manifest(header, columns, places, len(columns[POOLED_COLUMN_LAYER]))


def _read_map_shape(file: Any) -> tuple[int, ...]:
    """Return the shape of a row of features."""
    shape = json.loads(read_text_attribute(file, "map_shape"))
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"the attribute map_shape is {shape!r}, not height, width and channels")
    return tuple(shape)


def _check_places(places: Places, header: Header) -> None:
    """Raise ValueError if a manifest names files outside its folder, or rows that its shards do not have."""
    table = places.table
    bad = next((name for name in table.names if not SHARD_NAME.fullmatch(name)), None)
    if bad is not None:
        raise ValueError(f"it names the shard {bad!r}, which is not the name of an .h5 file in its folder")
    if len(set(table.names)) < len(table):
        raise ValueError("it names a shard twice")
    if len(table) and min(table.n_images.min(), table.size_bytes.min()) < 0:
        raise ValueError("it names a shard with a negative number of rows or bytes")
    if places.compression not in COMPRESSIONS:
        raise ValueError(f"the attribute compression is {places.compression!r}")
    value_bytes = np.dtype(header.recipe.storage).itemsize
    if np.prod(places.map_shape, dtype=np.float64) * value_bytes > MAX_ROW_BYTES:
        raise ValueError(f"a row of features has more than {MAX_ROW_BYTES:,} bytes (shape {places.map_shape})")
    if not len(places.shard):
        return
    if not 0 <= places.shard.min() <= places.shard.max() < len(table):
        raise ValueError(f"a row lies in a shard that is not among the {len(table):,}")
    outside = (places.shard_row < 0) | (places.shard_row >= table.n_images[places.shard])
    if outside.any():
        row = int(np.argmax(outside))
        number = int(places.shard[row])
        raise ValueError(
            f"row {row} is to be row {int(places.shard_row[row])} of the shard {table.names[number]}, which has "
            f"{int(table.n_images[number])}"
        )
