"""Rows of features that are taken some at a time: from wherever they lie, or from a compact copy in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Indices = NDArray[np.int64]
    PackedBlock = tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Rows that are packed together at most; fewer where they are more than ``BLOCK_VALUES`` numbers.
PACKED_ROWS = 512

#: Numbers in a block of rows in float32: 16 MiB.
BLOCK_VALUES = 2**22

#: Blocks that are worked on at a time; each takes its share of the memory.
N_THREADS = min(4, os.cpu_count() or 1)

#: A file is read by one thread at a time.
READING = Lock()


@dataclass(frozen=True, slots=True)
class ReadRows:
    """Rows that are read whenever they are taken."""

    read: Callable[[Indices], NDArray[np.float32]]  # row numbers, int64 → rows of shape (n_rows, n_features), float32
    shape: tuple[int, int]

    def take(self, rows: Indices) -> NDArray[np.float32]:
        """Return some rows in the order asked for."""
        with READING:
            return self.read(rows)


@dataclass(frozen=True, slots=True)
class ScaledRows:
    """Rows that a fitted scaler transforms whenever they are taken."""

    rows: Rows  # rows, unchanged
    scaler: Any  # fitted

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns there are."""
        return self.rows.shape

    def take(self, rows: Indices) -> Any:
        """Return some rows in the order asked for."""
        block = self.rows.take(rows)
        if getattr(self.scaler, "with_mean", False):  # zeros do not stay zeros
            block = dense(block)
        return self.scaler.transform(block)


class PackedRows:
    """A copy of rows in memory, of their non-zero values alone: four bytes each where they are those of a cache.

    Values are float16 where that loses nothing, as with what was stored in it, and columns 16 bits where those suffice.
    The same information as a CSR matrix, at a third to half of its size; a block becomes one when it is taken.
    """

    def __init__(self, n_features: int) -> None:
        self.shape, self.n_bytes = (0, n_features), 0
        self.block_rows = min(PACKED_ROWS, max(1, BLOCK_VALUES // max(1, n_features)))
        self._blocks: list[PackedBlock] = []

    def append(self, block: PackedBlock) -> None:
        """Add ``block_rows`` rows more, or the last ones."""
        self._blocks.append(block)
        self.shape = (self.shape[0] + len(block[0]) - 1, self.shape[1])
        self.n_bytes += sum(part.nbytes for part in block)

    def take(self, rows: Indices) -> sparse.csr_matrix:
        """Return some rows in the order asked for."""
        values, columns, lengths = [], [], []
        for row in rows.tolist():
            starts, all_columns, all_values = self._blocks[row // self.block_rows]
            place = row % self.block_rows
            part = slice(starts[place], starts[place + 1])
            columns.append(all_columns[part])
            values.append(all_values[part])
            lengths.append(part.stop - part.start)
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        parts = (np.concatenate(values, dtype=np.float32), np.concatenate(columns, dtype=np.int32), indptr)
        return sparse.csr_matrix(parts, shape=(len(rows), self.shape[1]))


#: Rows of features, some of which are taken in the order asked for: float32, an array or a CSR matrix.
Rows = ReadRows | ScaledRows | PackedRows


def pack(rows: Rows, max_bytes: float) -> PackedRows | None:
    """Return a compact copy of rows, all of them read once; None as soon as it is seen not to fit in ``max_bytes``."""
    n_samples, n_features = rows.shape
    packed = PackedRows(n_features)
    groups = parts(np.arange(n_samples), packed.block_rows)
    for block in in_threads(lambda group: packed_block(dense(rows.take(group))), groups):
        packed.append(block)
        if packed.n_bytes * n_samples > max_bytes * packed.shape[0]:
            return None
    return packed


def packed_block(rows: NDArray[np.float32]) -> PackedBlock:
    """Return where each row starts, and columns and values of what is not zero."""
    n_features = rows.shape[1]
    flat = np.flatnonzero(rows != 0)  # of booleans it is several times faster
    starts = np.searchsorted(flat, np.arange(len(rows) + 1) * n_features)
    values = rows.ravel()[flat]
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    columns = (flat % n_features).astype(np.uint16 if n_features <= 2**16 else np.uint32)
    return starts, columns, half if np.array_equal(half, values) else values


def blocks(rows: Rows, order: Indices | None = None) -> Iterator[tuple[Indices, Any]]:
    """Yield row numbers and the rows, as many at a time as take 16 MiB in float32; in the order given, or their own."""
    return ((part, rows.take(part)) for part in block_numbers(rows, order))


def of_blocks(function: Callable[[Indices, Any], Result], rows: Rows, order: Indices | None = None) -> Iterator[Result]:
    """Yield what a function makes of row numbers and rows in float64, for each of :func:`blocks`; by several threads."""
    numbers = block_numbers(rows, order)
    return in_threads(lambda part: function(part, rows.take(part).astype(np.float64)), numbers)


def block_numbers(rows: Rows, order: Indices | None) -> list[Indices]:
    """Return the row numbers of each block."""
    order = np.arange(rows.shape[0]) if order is None else order
    return parts(order, max(1, BLOCK_VALUES // max(1, rows.shape[1])))


def parts(numbers: Indices, length: int) -> list[Indices]:
    """Return numbers in parts of a length."""
    return [numbers[start : start + length] for start in range(0, len(numbers), length)]


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the results of some calls in their order, a few of them at work at a time."""
    with ThreadPoolExecutor(N_THREADS) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                if len(waiting) == N_THREADS:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(function, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def dense(block: Any) -> NDArray[np.float32]:
    """Return rows as an array."""
    array: NDArray[np.float32] = block.toarray() if sparse.issparse(block) else block
    return array


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Some of the rows with their codes, again and again, a block at a time."""

    rows: Rows
    codes: NDArray[np.intp]  # index of each row's class; shape (n_samples,)
    numbers: Indices

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.intp]]]:
        for numbers, block in blocks(self.rows, self.numbers):
            yield dense(block), self.codes[numbers]

    def __len__(self) -> int:
        return len(self.numbers)
