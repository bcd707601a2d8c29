"""Fit a head within a bound of memory: from the whole matrix where that fits, otherwise block by block."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import HeadstartError
from headstart.heads.catalogue import head_kind, heads_with
from headstart.heads.fitting.packed_rows import BLOCK_VALUES, N_THREADS, Rows, ScaledRows, blocks, dense, pack
from headstart.runtime import free_bytes, size_text, used_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

#: Memory of TensorFlow before any training: libraries, threads, compiled functions.
TENSORFLOW_BYTES = 900 * 2**20

#: Blocks of rows in float32 and float64, with what becomes of them, in every thread.
BLOCK_BYTES = 8 * 4 * BLOCK_VALUES * N_THREADS


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


def fit_streamed(pipeline: Any, head_type: str, rows: Rows, y: NDArray[Any], memory: Memory) -> Any:
    """Return a pipeline of scaler and classifier, fitted without the whole matrix of features in memory.

    Where the non-zero values alone fit, they are read once and kept in four bytes each (heads/fitting/packed_rows.py); else
    every pass reads the rows again. The objective is that of a fit in memory, minimised to the tolerances of
    heads/fitting/block_solvers.py; a dense head takes the same steps of Adam.

    ``pipeline`` is of :func:`headstart.heads.catalogue.make_head`, its estimator has ``fit_rows``, and ``rows`` are not
    scaled. Raises HeadstartError if not even the head and a block of rows fit.
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
    fit_scaler(scaler, kept)
    classifier.fit_rows(ScaledRows(kept, scaler), y)
    return pipeline


def fit_scaler(scaler: Any, rows: Rows) -> None:
    """Fit a scaler in one pass where it learns something of all rows; else on a single one."""
    if hasattr(scaler, "partial_fit"):
        for _, block in blocks(rows):
            scaler.partial_fit(dense(block))
    else:
        scaler.fit(dense(rows.take(np.arange(1))))
