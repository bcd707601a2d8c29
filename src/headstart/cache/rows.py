"""Columns of ``/rows``, read on demand, and an index of rows by path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.datasets import HexColumn
from headstart.texts import TextColumn


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
    stamp: NDArray[
        np.uint32
    ]  # bits of inode and status change time of the file (images/discovery/refs.py); 0 if unknown
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
