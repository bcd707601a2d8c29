"""What a cache stores of each image beside its features, read when it is asked for, and the row of a path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.datasets import HexColumn
from headstart.texts import TextColumn


class PathIndex:
    """Numbers of rows by path; where several rows have one path, the first.

    What is kept of a path is its hash; rows with the same hash are told apart by the paths themselves.

    Parameters
    ----------
    columns : sequence of TextColumn
        The paths of some caches; their rows are numbered through, from 0.
    """

    def __init__(self, columns: Sequence[TextColumn]) -> None:
        self._paths = TextColumn.joined(columns)
        keys = hashes(self._paths)
        self._rows = np.argsort(keys, kind="stable")
        self._keys = keys[self._rows]
        self._starts = np.cumsum([0, *map(len, columns)])

    def find(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each path, −1 where there is none, shape (n_paths,), int64."""
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
        """Return the cache of each row, and its number there; both −1 where ``rows`` is."""
        caches = np.searchsorted(self._starts, rows, side="right") - 1
        numbers = np.where(rows < 0, -1, rows - self._starts[caches])
        return caches.astype(np.int32), numbers


def hashes(paths: Sequence[str]) -> NDArray[np.int64]:
    """Return Python's hash of each path: 64 bits, others in every process."""
    return np.fromiter(map(hash, paths), np.int64, len(paths))


def grouped(numbers: NDArray[np.int32]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each number that occurs, and where it does, both in ascending order."""
    order = np.argsort(numbers, kind="stable")
    found, starts = np.unique(numbers[order], return_index=True)
    yield from zip(found.tolist(), np.split(order, starts[1:]), strict=True)


class Rows:
    """The columns of ``/rows``; each is read, and its digest compared, when it is first asked for.

    Text takes its own length in memory, and a Python string is made only for a value that is looked at: a sequence of
    str, not a list.

    Parameters
    ----------
    read : callable
        Returns the column of a name; raises CacheError where it is damaged.
    """

    def __init__(self, read: Callable[[str], Any]) -> None:
        self._read = read

    @cached_property
    def path(self) -> TextColumn:
        """Relative to the root of the scan; bytes that are not UTF-8 are lone surrogates (``os.fsdecode``)."""
        return self._text("path")

    @cached_property
    def split(self) -> TextColumn:
        """``train``, ``validation``, ``test``, or empty."""
        return self._text("split")

    @cached_property
    def group(self) -> TextColumn:
        """Name of the group, or empty."""
        return self._text("group")

    @cached_property
    def notes(self) -> NotesColumn:
        """What was done to each image: tuples of str."""
        return NotesColumn(self._text("notes"))

    @cached_property
    def sha256(self) -> HexColumn:
        """Digest of the image's bytes, 64 hexadecimal digits; ``.array`` has shape (n_images, 32), uint8."""
        return HexColumn(self._read("sha256"))

    @cached_property
    def features_sha256(self) -> HexColumn:
        """Digest of the stored row of ``/features`` followed by that of ``/pooled``."""
        return HexColumn(self._read("features_sha256"))

    @cached_property
    def label(self) -> NDArray[np.int32]:
        """Index of the class, −1 where unlabelled, shape (n_images,)."""
        return self._numbers("label")

    @cached_property
    def size_bytes(self) -> NDArray[np.int64]:
        """Size of the image file."""
        return self._numbers("size_bytes")

    @cached_property
    def mtime_ns(self) -> NDArray[np.int64]:
        """Time of last change of the image file, nanoseconds since 1970."""
        return self._numbers("mtime_ns")

    @cached_property
    def stamp(self) -> NDArray[np.uint32]:
        """Bits of inode and time of status change of each image file (images/discovery/refs.py); 0 if unknown."""
        return self._numbers("stamp")

    @cached_property
    def width_px(self) -> NDArray[np.int32]:
        """Width of the image as it is seen, before the resize."""
        return self._numbers("width_px")

    @cached_property
    def height_px(self) -> NDArray[np.int32]:
        """Height of the image as it is seen, before the resize."""
        return self._numbers("height_px")

    def kept(self, *names: str) -> Rows:
        """Return some columns, read now, for when the file is closed; there are no others then."""
        return Rows({name: self._read(name) for name in names}.__getitem__)

    def _text(self, name: str) -> TextColumn:
        column: TextColumn = self._read(name)
        return column

    def _numbers(self, name: str) -> NDArray[Any]:
        column: NDArray[Any] = self._read(name)
        return column


class NotesColumn:
    """Notes as tuples of str, made when they are looked at."""

    def __init__(self, texts: TextColumn) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, row: int) -> tuple[str, ...]:
        return _split_notes(self.texts[row])

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return map(_split_notes, self.texts)


def _split_notes(text: str) -> tuple[str, ...]:
    """Return the notes that were joined by commas."""
    return tuple(text.split(",")) if text else ()
