"""Fit a head within a bound of memory: on the whole matrix where that fits, otherwise on rows taken block by block.

Rows are read whenever they are taken, or lie in memory as a compact copy.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from headstart.errors import HeadstartError
from headstart.heads.catalogue import head_kind, heads_with
from headstart.heads.head_specs import given_groups
from headstart.runtime import free_bytes, size_text, used_bytes

Indices = NDArray[np.int64]
PackedBlock = tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Rows that are packed together at most; fewer where they are more than ``BLOCK_VALUES`` numbers.
PACKED_ROWS = 512

#: Numbers in a block of rows in float32: 16 MiB.
BLOCK_VALUES = 2**22

#: Blocks that are worked on at a time; each takes its share of the memory.
N_THREADS = min(4, os.cpu_count() or 1)

#: Maximum number of passes over the rows: a few minutes for hundreds of thousands of rows of a flattened map.
MAX_PASSES = 100

#: A file is read by one thread at a time.
READING = Lock()

#: Memory of TensorFlow before any training: libraries, threads, compiled functions.
TENSORFLOW_BYTES = 900 * 2**20

#: Blocks of rows in float32 and float64, with what becomes of them, in every thread.
BLOCK_BYTES = 8 * 4 * BLOCK_VALUES * N_THREADS


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


class Memory:
    """A bound of the memory of this process, libraries included; by default what it has and half of what is free."""

    def __init__(self, max_bytes: int | None = None) -> None:
        self._used = used_bytes()
        self.max_bytes = self._used + free_bytes() // 2 if max_bytes is None else max_bytes

    def left(self, head_type: str) -> int:
        """Return what is left for features and work space, bytes."""
        left = self.max_bytes - self._used
        return left - TENSORFLOW_BYTES if head_kind(head_type).keras and "tensorflow" not in sys.modules else left


def matrix_fits(head_type: str, shape: tuple[int, int], memory: Memory) -> bool:
    """Return whether a head can be fitted on a matrix of this shape within a bound.

    Raises HeadstartError if it cannot, and is of a kind that needs the whole matrix.
    """
    kind, smaller = head_kind(head_type), min(shape)
    needed = 4 * shape[0] * shape[1] * kind.matrix_copies
    if smaller <= kind.max_square:
        needed += 3 * 8 * smaller**2
    if needed <= memory.left(head_type):
        return True
    streamed = heads_with("fit_rows")
    if head_type not in streamed:
        raise HeadstartError(
            f"{head_type} is fitted on all images at once: {shape[0]:,} of them with {shape[1]:,} features need about "
            f"{size_text(needed)}. Received: {size_text(max(0, memory.left(head_type)))} beside what is in use already.",
            hint=f"Take fewer columns (`features=['avg']`), raise `max_memory`, or fit one of: {', '.join(streamed)}.",
        )
    return False


def fit_streamed(
    pipeline: Any,
    head_type: str,
    rows: Rows,
    y: NDArray[Any],
    memory: Memory,
    weights: NDArray[np.float64] | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Any:
    """Return a pipeline of scaler and classifier, fitted without the whole matrix of features in memory.

    Where the non-zero values alone fit, they are read once and kept in four bytes each (:func:`pack`); else
    every pass reads the rows again. The objective is that of a fit in memory, minimised to the tolerances of
    heads/linear.py and ridge.py; a dense head takes the same steps of Adam.

    ``pipeline`` is of :func:`headstart.heads.catalogue.make_head`, its estimator has ``fit_rows``, and ``rows`` are not
    scaled; ``weights`` are those of the rows, by default 1, and rows of one of the ``groups`` are left out together. Raises
    HeadstartError if not even the head and a block of rows fit.
    """
    scaler, classifier = pipeline.named_steps["scale"], pipeline.named_steps["classifier"]
    n_features, n_classes = rows.shape[1], len(np.unique(y))
    block = max(BLOCK_BYTES, 8 * 4 * n_features * N_THREADS)  # a block has one row at least
    left = memory.left(head_type) - block - classifier.streaming_bytes(n_features, n_classes)
    if left < 0:
        raise HeadstartError(
            f"Fitting {head_type} on {rows.shape[1]:,} features takes {size_text(-left)} more than there is, even with the "
            f"images taken some at a time. Received: a bound of {size_text(memory.max_bytes)}.",
            hint="Take fewer columns (`features=['avg']`), or raise `max_memory`.",
        )
    packed = pack(rows, left)
    log.info("Features %s.", f"packed in {size_text(packed.n_bytes)}" if packed else "read anew in every pass")
    kept = packed or rows
    fit_scaler(scaler, kept, weights)
    given = given_groups(classifier, groups)
    classifier.fit_rows(ScaledRows(kept, scaler), y, weights, **given)
    return pipeline


def fit_scaler(scaler: Any, rows: Rows, weights: NDArray[np.float64] | None = None) -> None:
    """Fit a scaler in one pass where it learns something of all rows; else on a single one."""
    if hasattr(scaler, "partial_fit"):
        for numbers, block in blocks(rows):
            scaler.partial_fit(dense(block), sample_weight=None if weights is None else weights[numbers])
    else:
        scaler.fit(dense(rows.take(np.arange(1))))


def solver_bytes(n_arrays: int, n_features: int, n_outputs: int) -> int:
    """Return the memory of arrays of the size of the coefficients: those a solver keeps, and the sums of every thread."""
    # The sums are three arrays in the case of ridge, with two weightings each.
    return (n_arrays + 6 * N_THREADS) * 8 * n_features * n_outputs


def warn_unfinished(what: str, n_passes: int, remedy: str) -> None:
    """Warn that a solver has not converged; ``remedy`` is what helps beside other scaling."""
    warnings.warn(
        f"{what} has not converged in {n_passes} passes over the images, the most that are made of rows that do not fit in "
        f"memory; its coefficients are not the best ones yet. {remedy}, or scale the features (sqrt-l2, l2 or standard).",
        ConvergenceWarning,
        stacklevel=4,
    )
