"""Open a cache: a file, a folder of shards or an object. Its structure is checked first, then all that is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from headstart.cache.columns import Rows, compression_of, read_column
from headstart.cache.format import (
    CLASS_NAMES,
    FAILURE_COLUMNS,
    FAILURES,
    FEATURES,
    POOLED,
    POOLED_COLUMN_LAYER,
    ROW_COLUMNS,
    ROWS,
    Header,
    read_header,
)
from headstart.cache.other_hdf5 import check_is_file
from headstart.cache.safe_reads import (
    H5PY_ERRORS,
    REMEDY,
    StoredRows,
    check_labels,
    checked_datasets,
    checked_numbers,
    close_file,
    damage,
    first_line,
    read_rows,
)
from headstart.cache.sandbox import open_hdf5
from headstart.cache.shards import MANIFEST, OpenShards, Places, ShardedRows, ShardFolder, read_manifest, shard_folder
from headstart.errors import CacheError
from headstart.images.discovery.refs import given_target
from headstart.storage.bucket import Address, GoneError, Location, location
from headstart.storage.objects import copied
from headstart.texts import BLOCK_ROWS
from headstart.types import Failure, FeatureBatch, ImageRef


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
                folder.check(manifest.places.table)
            places = manifest.places
            shards, rows = manifest.opened(folder)
            size_bytes = int(file.id.get_filesize() + places.table.size_bytes.sum())
            datasets: dict[str, StoredRows | ShardedRows] = {**manifest.columns, **rows}
            return Opened(folder.path, file, manifest.header, datasets, size_bytes, places.compression, shards, places)
    except BaseException:
        close_file(file)
        raise


def on_this_machine(where: Location) -> Path:
    """Return a path, or that of a copy of the cache at an address; CacheError if there is none, StorageError on failure."""
    if not isinstance(where, Address):
        return where
    try:
        return copied(where, lambda path: open_path(path).close())  # rows are checked on reading
    except GoneError as error:
        raise CacheError(f"There is no cache at {where}. Expected: a file that extract-features wrote.") from error


#: Maximum size of a batch: rows of early layers take megabytes.
MAX_BATCH_BYTES = 256 * 2**20

#: Optional columns of ``/rows``.
OPTIONAL = {column.name: column for column in ROW_COLUMNS if column.is_optional}

RowIndices = Sequence[int] | NDArray[np.integer[Any]]


def open_cache(path: str | Location) -> FeatureCache:
    """Return a cache, open for reading; use it in a ``with`` block.

    An open file stays readable even if another process replaces it. A folder of shards that another process updates may
    have to be reopened; the error says so.

    Parameters
    ----------
    path : str, Path or Address
        A file; or a folder of shards, or its manifest. A file in a bucket, e.g. ``s3://bucket/features/photos.h5``, is
        copied to this machine; the copy is used for as long as the object stays the same.

    Raises
    ------
    CacheError
        If there is no such file, it is no cache, damaged, or of another format version.
    StorageError
        If a bucket cannot be read.

    Examples
    --------
    >>> with open_cache("features/data.h5") as cache:                                  # doctest: +SKIP
    ...     print(cache.n_images, cache.class_names)
    397 ('ants', 'bees')
    """
    where = location(path)
    opened = open_path(on_this_machine(where))
    try:
        return FeatureCache(opened, where)
    except BaseException:
        opened.close()
        raise


class FeatureCache:
    """A feature cache, open for reading.

    Attributes
    ----------
    path, file : Location, Path
        The file or folder of shards, as given, and on this machine.
    recipe : Recipe
        How the features were made.
    class_names : tuple[str, ...]
        Names indexed by the labels.
    n_images, n_pooled : int
        Rows, and averages per row.
    map_shape : tuple[int, ...]
        Height, width and channels of a row of features.
    layout, created, compression : str
        Layout of the folder of images; ISO 8601, UTC; ``zstd``, ``gzip`` or ``none``.
    info : Mapping[str, Any]
        Provenance.
    versions : Mapping[str, str]
        Of the software that wrote the file.
    size_bytes : int
    places : Places | None
        Location of the features in a folder of shards.
    rows : Rows
        Columns that describe the images.
    """

    def __init__(self, opened: Opened, path: Location | None = None) -> None:
        self._opened, self._file, self._datasets = opened, opened.file, opened.datasets
        self.file, self.size_bytes, self.compression = opened.path, opened.size_bytes, opened.compression
        self.path: Location = path if isinstance(path, Address) else opened.path
        self.places = opened.places
        header = opened.header
        self.recipe, self.n_images, self.layout = header.recipe, header.n_images, header.layout
        self.created, self.info, self.versions = header.created, header.info, header.versions
        self.map_shape = self._datasets[FEATURES].shape[1:]
        self.n_pooled = int(self._datasets[POOLED].shape[1])
        self.class_names = tuple(self.read_column(CLASS_NAMES))
        self.rows = Rows(self._row_column)
        with damage(self.path):
            check_labels(self.rows.label, self.class_names)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; columns already read stay available."""
        self._opened.close()

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class index per row, −1 if unlabelled, shape (n_images,), int64."""
        return self.rows.label.astype(np.int64)

    @property
    def paths(self) -> list[str]:
        """Path per row, relative to the scanned root."""
        return list(self.rows.path)

    @property
    def splits(self) -> list[str]:
        """Split per row; empty if there is none."""
        return list(self.rows.split)

    @property
    def groups(self) -> list[str]:
        """Group per row; empty if there is none."""
        return list(self.rows.group)

    @property
    def weights(self) -> NDArray[np.float64] | None:
        """Weight of each row in a fit, shape (n_images,), float64; None if all are 1."""
        return None if (self.rows.weight == 1).all() else self.rows.weight

    @property
    def targets(self) -> NDArray[np.float64] | None:
        """Number to predict for each row, NaN for none, shape (n_images,), float64; None if no row has one."""
        return None if np.isnan(self.rows.target).all() else self.rows.target

    @property
    def sha256(self) -> list[str]:
        """Digest of the image file per row, 64 hexadecimal digits."""
        return list(self.rows.sha256)

    @cached_property
    def pooled_column_layer(self) -> tuple[str, ...]:
        """Layer of each column of ``pooled``."""
        layers = tuple(self.read_column(POOLED_COLUMN_LAYER))
        found = tuple(name for name, _ in groupby(layers))
        if layers and found != self.recipe.pooled_layers:
            raise CacheError(
                f"{self.path} is damaged: the columns of /pooled are of the layers {', '.join(found)}, but its recipe names "
                f"{', '.join(self.recipe.pooled_layers) or 'none'}. {REMEDY}"
            )
        return layers

    @cached_property
    def failures(self) -> tuple[Failure, ...]:
        """Images that could not be read, with the reasons."""
        columns = {column.name: self.read_column(f"{FAILURES}/{column.name}") for column in FAILURE_COLUMNS}
        numbers = (columns[name].tolist() for name in ("size_bytes", "mtime_ns"))
        texts = (columns[name] for name in ("path", "label", "split", "group", "reason"))
        return tuple(
            Failure(ImageRef(path, label or None, split or None, group or None, size_bytes, mtime_ns), reason)
            for path, label, split, group, reason, size_bytes, mtime_ns in zip(*texts, *numbers, strict=True)
        )

    def refs(self) -> list[ImageRef]:
        """Return the scan results of all rows."""
        return list(self.iter_refs())

    def iter_refs(self, rows: RowIndices | None = None) -> Iterator[ImageRef]:
        """Yield the scan results of some rows; of all rows by default."""
        indices, columns = self._indices(rows), self.rows
        names = (*self.class_names, None)  # −1, unlabelled, is the last
        for start in range(0, len(indices), BLOCK_ROWS):
            part = indices[start : start + BLOCK_ROWS]
            texts = (column.take(part) for column in (columns.path, columns.split, columns.group))
            chosen = (
                columns.label,
                columns.size_bytes,
                columns.mtime_ns,
                columns.stamp,
                columns.weight,
                columns.target,
            )
            numbers = (column[part].tolist() for column in chosen)
            for path, split, group, label, size, time, stamp, weight, target in zip(*texts, *numbers, strict=True):
                state = size, time, stamp, weight, given_target(target)
                yield ImageRef(path, names[label], split or None, group or None, *state)

    def batches(
        self, rows: RowIndices | None = None, batch_rows: int = 256, *, finite: bool = False
    ) -> Iterator[FeatureBatch]:
        """Yield the features of some rows in the given order, repeats included; of all rows by default.

        Parameters
        ----------
        rows : sequence of int, optional
            Row numbers, 0 to ``n_images`` − 1.
        batch_rows : int
            Rows per batch; reduced if a batch would exceed 256 MiB.
        finite : bool
            Raise CacheError for values that are not finite.

        Raises
        ------
        CacheError
            If a row is damaged or not finite; the message names the image.
        IndexError
            If there is no such row.
        """
        indices, step = self._indices(rows), self.rows_per_batch(batch_rows)
        layers = self.pooled_column_layer
        for start in range(0, len(indices), step):
            part = indices[start : start + step]
            batch = FeatureBatch(self.read_rows(FEATURES, part), self.read_rows(POOLED, part), layers)
            if finite:
                self._check_finite(batch, part)
            yield batch

    def rows_per_batch(self, batch_rows: int) -> int:
        """Return how many rows a batch has at most; fewer than asked for if it would exceed 256 MiB."""
        row_bytes = self._datasets[FEATURES].dtype.itemsize * max(1, self.feature_values)
        return max(1, min(batch_rows, MAX_BATCH_BYTES // row_bytes))

    def _check_finite(self, batch: FeatureBatch, rows: NDArray[np.int64]) -> None:
        for name, values in ((FEATURES, batch.features), (POOLED, batch.pooled)):
            good = np.isfinite(values).reshape(len(rows), -1).all(axis=1)
            if not good.all():
                row = int(rows[np.argmin(good)])
                raise CacheError(
                    f"{self.path} is damaged: row {row} of /{name}, the image {self.rows.path[row]}, holds values that are "
                    f"not finite. {REMEDY}"
                )

    def pooled(self, rows: RowIndices | None = None) -> NDArray[np.float32]:
        """Return the averages of some rows, shape (n_rows, n_pooled), float32, without reading the features."""
        values: NDArray[np.float32] = self.read_rows(POOLED, self._indices(rows))
        return values

    def sparsity(self, sample: int = 64) -> float:
        """Return the fraction of zeros among the features of ``sample`` evenly spaced rows."""
        if not self.n_images:
            return 0.0
        rows = np.unique(np.linspace(0, self.n_images - 1, sample).astype(np.int64))
        return float(np.mean([np.mean(self.read_rows(FEATURES, rows[i : i + 1]) == 0) for i in range(len(rows))]))

    @property
    def feature_values(self) -> int:
        """Values per row of features."""
        return int(np.prod(self.map_shape))

    def filters(self, name: str, row: int) -> tuple[int, ...]:
        """Return the HDF5 filters of a row of ``features`` or ``pooled``; stored bytes can be copied if they are equal."""
        with damage(self.path, f"row {row} of /{name} cannot be read: "):
            return self._datasets[name].filters_of(row)

    def read_chunk(self, name: str, row: int) -> tuple[int, bytes]:
        """Return filter mask and stored bytes of a row of ``features`` or ``pooled``, unchecked."""
        with damage(self.path, f"row {row} of /{name} cannot be read: "):
            return self._datasets[name].read_chunk(row)

    def _indices(self, rows: RowIndices | None) -> NDArray[np.int64]:
        indices = np.arange(self.n_images) if rows is None else np.asarray(rows, np.int64)
        if len(indices) and not 0 <= indices.min() <= indices.max() < self.n_images:
            raise IndexError(
                f"{self.path} has the rows 0 to {self.n_images - 1}. Received: {indices.min()} to {indices.max()}."
            )
        return indices

    def read_rows(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows of ``features`` or ``pooled`` in the given order; raise CacheError if one is damaged."""
        try:
            return read_rows(self._datasets[name], rows)
        except H5PY_ERRORS as error:
            raise CacheError(self._damaged_row(name, rows)) from error

    def _damaged_row(self, name: str, rows: NDArray[np.int64]) -> str:
        if not self._file:
            return f"{self.path} has been closed. Read it inside its with block."
        for row in rows:
            try:
                read_rows(self._datasets[name], row[None])
            except H5PY_ERRORS as error:
                return (
                    f"{self.path} is damaged: row {row} of /{name}, the image {self.rows.path[row]}, cannot be read "
                    f"({first_line(error)}). {REMEDY}"
                )
        return f"{self.path}: reading /{name} failed once and then succeeded. Check the disk."

    def _row_column(self, name: str) -> Any:
        """Return a column of ``/rows``; the default for a missing optional one."""
        if f"{ROWS}/{name}" not in self._datasets and name in OPTIONAL:
            return np.full(self.n_images, OPTIONAL[name].default, OPTIONAL[name].dtype)
        return self.read_column(f"{ROWS}/{name}")

    def read_column(self, name: str) -> Any:
        """Return a column by its name in the file, e.g. ``rows/path``; raise CacheError if it is damaged."""
        if not self._file:
            raise CacheError(f"{self.path} has been closed. Read it inside its with block.")
        column = self._datasets[name]
        if isinstance(column, ShardedRows):
            raise ValueError(f"/{name} is not a column")
        with damage(self.path, f"/{name} cannot be read: "):
            values = read_column(column)
            return checked_numbers(name, values)
