"""Where a path is among the rows of some caches: an index of 16 bytes a row in place of a dict of strings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

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
