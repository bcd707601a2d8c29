"""The columns of a cache: written and read with a digest each, on demand by row, and found by path.

Features have one checksummed chunk per row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, overload

import h5py
import hdf5plugin  # noqa: F401  (registers the zstd filter)
import numpy as np
from h5py import h5d, h5g, h5p, h5s, h5t, h5z
from numpy.typing import NDArray

from headstart.cache.format import (
    COLUMN_CHUNK_BYTES,
    COMPRESSIONS,
    DEFLATE,
    DIGEST,
    FEATURES,
    FORMAT_VERSION,
    GZIP_LEVEL,
    MAX_ROW_BYTES,
    MAX_TEXT_BYTES,
    POOLED,
    POOLED_COLUMN_LAYER,
    STORAGES,
    ZSTD,
    ZSTD_LEVEL,
    Column,
    read_text_attribute,
)
from headstart.cache.safe_reads import StoredRows, read_rows
from headstart.errors import CacheError
from headstart.texts import TextColumn
from headstart.types import ImageRow, Recipe

#: Returns the encoded values of a text column; called twice, first to find the longest.
Texts = Callable[[], Iterable[bytes]]


def encode(text: str, what: str) -> bytes:
    """Return text as UTF-8, or the original bytes of a path that was not UTF-8; raise CacheError if it cannot be stored."""
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise CacheError(f"The {what} {text!r} is not text that a cache can hold: {error.reason}.") from error
    if len(data) > MAX_TEXT_BYTES or b"\0" in data:
        size = f"has {len(data):,} bytes; at most {MAX_TEXT_BYTES:,} are possible"
        problem = "holds a NUL" if b"\0" in data else size
        raise CacheError(f"The {what} {text[:80]!r} cannot be stored: it {problem}.")
    return data


class HexColumn(Sequence[str]):
    """Digests as hexadecimal strings; ``array`` has shape (n_rows, 32), uint8."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [row.tobytes().hex() for row in self.array[index]]
        return bytes(self.array[index]).hex()


def write_table(parent: Any, name: str, columns: Sequence[Column], values: Mapping[str, Any], n_rows: int) -> None:
    """Write a group with one dataset per column; ``values`` maps names to arrays, or to :data:`Texts` for text."""
    properties = h5p.create(h5p.GROUP_CREATE)
    properties.set_obj_track_times(False)  # equal content gives equal bytes
    group = h5py.Group(h5g.create(parent.id, name.encode(), gcpl=properties))
    for column in columns:
        if column.is_text:
            write_text(group, column.name, values[column.name], n_rows)
            continue
        numbers = np.asarray(values[column.name], column.dtype)
        default = np.full_like(numbers, column.default)
        if not column.is_optional or not np.array_equal(numbers, default, equal_nan=numbers.dtype.kind == "f"):
            write_numbers(group, column.name, numbers)


def write_numbers(group: Any, name: str, values: NDArray[Any]) -> None:
    """Write a dataset of numbers and its digest."""
    dataset = create_column(group, name, values.dtype, values.shape)
    if len(values):
        dataset[...] = values
    _write_digest(dataset, hashlib.sha256(np.ascontiguousarray(values).data))


def write_text(group: Any, name: str, texts: Texts, n_rows: int) -> None:
    """Write a dataset of fixed-length strings and its digest."""
    length = max(map(len, texts()), default=1) or 1
    dtype = h5py.string_dtype("utf-8", length)
    dataset = create_column(group, name, dtype, (n_rows,))
    digest, remaining, start = hashlib.sha256(), iter(texts()), 0
    while block := list(islice(remaining, dataset.chunks[0])):
        values = np.array(block, dtype)
        dataset[start : start + len(block)] = values
        digest.update(values.tobytes())
        start += len(block)
    if start != n_rows:
        raise ValueError(f"{name} needs {n_rows} values. Received: {start}")
    _write_digest(dataset, digest)


def create_column(group: Any, name: str, dtype: Any, shape: tuple[int, ...]) -> Any:
    """Return a new dataset with checksummed deflate chunks, readable by every HDF5 library."""
    row_bytes = np.dtype(dtype).itemsize * int(np.prod(shape[1:], dtype=np.int64))
    rows = max(1, min(shape[0], COLUMN_CHUNK_BYTES // row_bytes))
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_obj_track_times(False)
    plist.set_chunk((rows, *shape[1:]))
    plist.set_shuffle()
    plist.set_deflate(GZIP_LEVEL)
    plist.set_fletcher32()
    # HDF5 wants a growing dimension where the chunk is longer than the dataset.
    space = h5s.create_simple(shape, None if shape[0] else (h5s.UNLIMITED, *shape[1:]))
    return h5py.Dataset(
        h5d.create(group.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype), logical=True), space, plist)
    )


def _write_digest(dataset: Any, digest: Any) -> None:
    dataset.attrs.create(DIGEST, np.bytes_(digest.hexdigest()), dtype=h5py.string_dtype("utf-8", 64))


def read_column(column: StoredRows) -> NDArray[Any] | TextColumn:
    """Return all values of a column; raise ValueError if they do not match the digest, OSError if HDF5 cannot read them."""
    digest = hashlib.sha256()
    values: NDArray[Any] | TextColumn
    if column.dtype.kind == "S":
        values = _read_text(column, digest)
    else:
        values = read_rows(column, np.arange(len(column)))
        digest.update(values.data)
    if digest.hexdigest() != read_text_attribute(column, DIGEST):
        raise ValueError("its values are not those that were written (the SHA-256 differs)")
    return values


def _read_text(column: StoredRows, digest: Any) -> TextColumn:
    """Return strings, read chunk by chunk so that the padding is never in memory at once."""
    parts, lengths = [], np.empty(len(column), np.int64)
    for start in range(0, len(column), column.chunk_rows):
        block = read_rows(column, np.arange(start, min(start + column.chunk_rows, len(column))))
        digest.update(block.tobytes())
        lengths[start : start + len(block)] = np.char.str_len(block)
        parts.append(b"".join(block.tolist()))
    data = b"".join(parts)
    if b"\0" in data:
        raise ValueError("it holds a string with a NUL")
    return TextColumn(data, np.cumsum(lengths))


def create_features(
    file: Any,
    recipe: Recipe,
    map_shape: Sequence[int],
    column_layers: Sequence[str],
    compression: str,
    n_images: int | None = None,
) -> None:
    """Create ``/features``, ``/pooled`` and ``/pooled_column_layer``; resizable without ``n_images``.

    ``/pooled`` is not compressed: a row would shrink by a sixth and take five times as long to read, and so it can be
    read without a plug-in (docs/adr/0001-cache-format.md). Raises CacheError if a row is larger than a cache can hold.
    """
    _create_rows(file, FEATURES, map_shape, recipe.storage, compression, n_images)
    _create_rows(file, POOLED, (len(column_layers),), "float32", "none", n_images)
    write_column_layers(file, column_layers)


def stored_bytes(features: NDArray[Any], recipe: Recipe, compression: str) -> float:
    """Return the mean size in bytes of some maps, shape (n_images, height, width, channels), as a cache would store them."""
    with h5py.File("features", "w", driver="core", backing_store=False) as file:
        _create_rows(file, FEATURES, features.shape[1:], recipe.storage, compression, len(features))
        file[FEATURES][...] = features
        return float(file[FEATURES].id.get_storage_size() / len(features))


def write_column_layers(file: Any, layers: Sequence[str]) -> None:
    """Write ``/pooled_column_layer``."""
    write_text(file, POOLED_COLUMN_LAYER, lambda: (encode(name, "layer") for name in layers), len(layers))


def _create_rows(
    file: Any, name: str, row_shape: Sequence[int], dtype: str, compression: str, n_images: int | None
) -> None:
    row_bytes = np.dtype(dtype).itemsize * int(np.prod(row_shape, dtype=np.int64))
    if row_bytes > MAX_ROW_BYTES:
        raise CacheError(
            f"One row of /{name} would have {row_bytes:,} bytes (shape {tuple(row_shape)}); at most {MAX_ROW_BYTES:,} are "
            "possible. Choose a deeper layer or a smaller input."
        )
    shape = (n_images or 0, *row_shape)
    # A chunk may only be longer than its dataset where the dataset can grow.
    maximum = tuple(size or h5s.UNLIMITED for size in shape)
    stored = h5t.IEEE_F16LE if dtype == "float16" else h5t.IEEE_F32LE
    h5d.create(file.id, name.encode(), stored, h5s.create_simple(shape, maximum), pipeline(row_shape, compression))


def pipeline(row_shape: Sequence[int], compression: str) -> Any:
    """Return the HDF5 creation properties; the checksum comes last, over the compressed bytes."""
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    properties.set_fill_time(h5d.FILL_TIME_NEVER)
    properties.set_chunk((1, *(max(1, size) for size in row_shape)))
    if compression == "zstd":
        properties.set_filter(ZSTD, h5z.FLAG_MANDATORY, (ZSTD_LEVEL,))
    elif compression == "gzip":
        properties.set_deflate(GZIP_LEVEL)
    properties.set_fletcher32()
    return properties


def compression_of(used: Sequence[int]) -> str:
    """Return ``zstd``, ``gzip`` or ``none`` for the filters of a dataset."""
    return "zstd" if ZSTD in used else "gzip" if DEFLATE in used else "none"


def check_storage(recipe: Recipe, compression: str) -> None:
    """Raise CacheError if storage type, compression or format version are not supported."""
    if recipe.storage not in STORAGES:
        raise CacheError(f"Features are stored as {' or '.join(STORAGES)}. Received: {recipe.storage!r}.")
    if compression not in COMPRESSIONS:
        raise CacheError(f"Features are compressed by {', '.join(COMPRESSIONS)}. Received: {compression!r}.")
    if recipe.format_version != FORMAT_VERSION:
        raise CacheError(f"This headstart writes format version {FORMAT_VERSION}, not {recipe.format_version}.")


def stored(values: NDArray[Any], dtype: str, rows: Sequence[ImageRow]) -> NDArray[Any]:
    """Return the values in their storage type; raise CacheError, naming the image, if one is not finite there."""
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(values, dtype=np.dtype(dtype).newbyteorder("<"))
    largest = float(np.finfo(dtype).max)
    if not values.size or (values.min() >= -largest and values.max() <= largest):  # false where a value is NaN
        return cast
    good = np.isfinite(cast)
    if not good.all():
        row = int(np.argmin(good.reshape(len(cast), -1).all(axis=1)))
        value = values[row][~good[row]].flat[0]
        remedy = (
            "Store float32 (`storage='float32'`)." if np.isfinite(value) else "The network computed no number there."
        )
        raise CacheError(f"{rows[row].ref.path}: a feature is {value}, which {dtype} cannot hold. {remedy}")
    return cast


def row_digest(features: NDArray[Any], pooled: NDArray[np.float32]) -> bytes:
    """Return the SHA-256 of a row as stored: features, then averages, little-endian, C order."""
    digest = hashlib.sha256(features.data)
    digest.update(pooled.data)
    return digest.digest()


class PathIndex:
    """Row numbers by path, consecutive over several caches; the first row of a path that occurs more than once.

    Only hashes of the paths are stored; rows with equal hashes are distinguished by comparing paths.
    """

    def __init__(self, columns: Sequence[TextColumn]) -> None:
        self._paths = TextColumn.joined(columns)
        keys = hashes(self._paths)
        self._rows = np.argsort(keys, kind="stable")
        self._keys = keys[self._rows]
        self._starts = np.cumsum([0, *map(len, columns)])

    def find(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each path, −1 if there is none, shape (n_paths,), int64."""
        keys = hashes(paths)
        place = np.searchsorted(self._keys, keys)
        found = np.full(len(keys), -1, np.int64)
        pending = np.arange(len(keys))
        while len(pending):
            pending = pending[place[pending] < len(self._keys)]
            pending = pending[self._keys[place[pending]] == keys[pending]]
            rows = self._rows[place[pending]]
            same = np.fromiter(
                (paths[number] == path for number, path in zip(pending, self._paths.take(rows), strict=True)),
                bool, len(pending),
            )  # fmt: skip
            found[pending[same]] = rows[same]
            pending = pending[~same]  # another path of the same hash: is it the next row of that hash?
            place[pending] += 1
        return found

    def split(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the cache of each row and its row number there; both −1 where ``rows`` is."""
        caches = np.searchsorted(self._starts, rows, side="right") - 1
        numbers = np.where(rows < 0, -1, rows - self._starts[caches])
        return caches.astype(np.int32), numbers


def hashes(paths: Sequence[str]) -> NDArray[np.int64]:
    """Return the 64-bit Python hash of each path; differs between processes."""
    return np.fromiter(map(hash, paths), np.int64, len(paths))


def grouped(numbers: NDArray[np.int32]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each distinct number and the positions where it occurs, both ascending."""
    order = np.argsort(numbers, kind="stable")
    found, starts = np.unique(numbers[order], return_index=True)
    yield from zip(found.tolist(), np.split(order, starts[1:]), strict=True)


class NotesColumn:
    """Notes as tuples of str, created on access."""

    def __init__(self, texts: TextColumn) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, row: int) -> tuple[str, ...]:
        return _split_notes(self.texts[row])

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return map(_split_notes, self.texts)


def _split_notes(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


#: Columns that have another form in memory than in the file.
FORMS: dict[str, Callable[[Any], Any]] = {"notes": NotesColumn, "sha256": HexColumn, "features_sha256": HexColumn}


class Rows:
    """The columns of ``/rows``; each is read and its digest compared on first access, which raises CacheError on damage.

    Text columns are sequences of str that create Python strings on access; arrays have shape (n_images,).
    """

    path: TextColumn  # relative to the scanned root; bytes that are not UTF-8 are lone surrogates (``os.fsdecode``)
    split: TextColumn  # ``train``, ``validation``, ``test``, or empty
    group: TextColumn  # name of the group, or empty
    notes: NotesColumn  # of the decoder: tuples of str
    sha256: HexColumn  # digest of the image file, 64 hexadecimal digits; ``.array`` has shape (n_images, 32), uint8
    features_sha256: HexColumn  # digest of the stored row of ``/features`` followed by that of ``/pooled``
    label: NDArray[np.int32]  # class index, −1 if unlabelled
    size_bytes: NDArray[np.int64]  # of the image file
    mtime_ns: NDArray[np.int64]  # modification time of the image file, nanoseconds since 1970
    #: Bits of inode and status change time of the file (images/discovery/refs.py); 0 if unknown
    stamp: NDArray[np.uint32]
    weight: NDArray[np.float64]  # of the image in a fit, 0 or more, finite
    target: NDArray[np.float64]  # number to predict for the image, finite; NaN for none
    width_px: NDArray[np.int32]  # size of the image after EXIF rotation, before the resize
    height_px: NDArray[np.int32]

    def __init__(self, read: Callable[[str], Any]) -> None:
        self._read = read

    def __getattr__(self, name: str) -> Any:
        if name not in COLUMNS:
            raise AttributeError(f"there is no column {name!r}")
        column = FORMS.get(name, lambda values: values)(self._read(name))
        setattr(self, name, column)  # found before the next call of this method
        return column

    def kept(self, *names: str) -> Rows:
        """Return rows with the given columns only, read now, for use after the file is closed."""
        return Rows({name: self._read(name) for name in names}.__getitem__)


#: Names of the columns.
COLUMNS = tuple(Rows.__annotations__)
