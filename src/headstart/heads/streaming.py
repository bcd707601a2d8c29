"""Fit a head within a bound of memory: from the whole matrix where that fits, else from rows taken some at a time."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import HeadstartError
from headstart.heads.packed import BLOCK_VALUES, N_THREADS, Rows, ScaledRows, blocks, dense, pack
from headstart.memory import free_bytes, size_text, used_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

#: Heads that are fitted without the whole matrix too.
STREAMED = ("dense", "logistic", "ridge")

#: The matrix in float32 and its copies while a head is fitted: three in scaling, float64 and squares in the solvers.
COPIES = {"dense": 4, "logistic": 6, "ridge": 4, "linear-svm": 6, "rbf-svm": 6}
OTHER_COPIES = 4

#: Up to this many rows or columns a linear head decomposes a square matrix of float64 (heads/row_space.py); ridge always.
SQUARES = {"logistic": 4096, "linear-svm": 4096, "ridge": sys.maxsize}

#: Weights and their like that a streamed fit keeps, 8 bytes each: steps and gradients of L-BFGS; columns of conjugate
#: gradients for two weightings, with mean and diagonal.
KEPT = {"logistic": 30, "ridge": 24}

#: What TensorFlow takes before it has trained anything: libraries, threads, compiled functions.
TENSORFLOW_BYTES = 900 * 2**20

#: Blocks of rows in float32 and float64, with what becomes of them, in every thread.
BLOCK_BYTES = 8 * 4 * BLOCK_VALUES * N_THREADS


class Memory:
    """A bound of the memory of this process.

    Parameters
    ----------
    max_bytes : int, optional
        Of the whole process, Python and libraries included. The default is what it has now and half of what is free.

    Attributes
    ----------
    max_bytes : int
        The bound.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self._used = used_bytes()
        self.max_bytes = self._used + free_bytes() // 2 if max_bytes is None else max_bytes

    def left(self, head_type: str) -> int:
        """Return what is left for features and work space, bytes."""
        left = self.max_bytes - self._used
        return left - TENSORFLOW_BYTES if head_type == "dense" and "tensorflow" not in sys.modules else left


def matrix_fits(head_type: str, shape: tuple[int, int], memory: Memory) -> bool:
    """Return whether a head can be fitted on a matrix of this shape within a bound.

    Raises
    ------
    HeadstartError
        If it cannot, and is of a kind that needs the whole matrix.
    """
    needed = 4 * shape[0] * shape[1] * COPIES.get(head_type, OTHER_COPIES)
    smaller = min(shape)
    if smaller <= SQUARES.get(head_type, 0):
        needed += 3 * 8 * smaller**2
    if needed <= memory.left(head_type):
        return True
    if head_type not in STREAMED:
        raise HeadstartError(
            f"{head_type} is fitted on all images at once: {shape[0]:,} of them with {shape[1]:,} features need about "
            f"{size_text(needed)}. Received: {size_text(max(0, memory.left(head_type)))} beside what is in use already. "
            f"Take fewer columns (--features avg), raise --max-memory, or fit one of: {', '.join(STREAMED)}."
        )
    return False


def fit_streamed(pipeline: Any, head_type: str, rows: Rows, y: NDArray[Any], memory: Memory) -> Any:
    """Return a pipeline of scaler and classifier, fitted without the matrix of all features ever being in memory.

    Where the non-zero values alone fit, they are read once and kept in four bytes each (heads/packed.py); else every pass
    reads the rows again. Same objective as in memory, to the tolerances of heads/streamed_linear.py; the same steps of
    Adam.

    Parameters
    ----------
    pipeline : Pipeline
        Unfitted, as of :func:`headstart.heads.catalogue.make_head`.
    head_type : str
        One of ``STREAMED``.
    rows : Rows of shape (n_samples, n_features)
        Features, not scaled.
    y : ndarray of shape (n_samples,)
        Labels of at least two classes.
    memory : Memory
        The bound.

    Raises
    ------
    HeadstartError
        If not even the head and a block of rows fit.
    """
    scaler, classifier = pipeline.named_steps["scale"], pipeline.named_steps["classifier"]
    left = memory.left(head_type) - work_bytes(head_type, classifier, rows.shape[1], len(np.unique(y)))
    if left < 0:
        raise HeadstartError(
            f"Fitting {head_type} on {rows.shape[1]:,} features takes {size_text(-left)} more than there is, even with the "
            f"images taken some at a time. Received: a bound of {size_text(memory.max_bytes)}. Take fewer columns "
            "(--features avg), or raise --max-memory."
        )
    packed = pack(rows, left)
    log.info("Features %s.", f"packed in {size_text(packed.n_bytes)}" if packed else "read anew in every pass")
    kept = packed or rows
    fit_scaler(scaler, kept)
    scaled = ScaledRows(kept, scaler)
    if head_type == "dense":
        classifier.fit_rows(scaled, y)
    else:
        from headstart.heads.streamed_linear import fit_logistic, fit_ridge

        fits: dict[str, Any] = {"logistic": fit_logistic, "ridge": fit_ridge}
        fits[head_type](classifier, scaled, y)
    return pipeline


def work_bytes(head_type: str, classifier: Any, n_features: int, n_classes: int) -> int:
    """Return what a streamed fit takes beside the features, bytes."""
    row_bytes = 8 * 4 * n_features * N_THREADS  # a block has one row at least
    block = max(BLOCK_BYTES, row_bytes)
    n_outputs = 1 if n_classes == 2 else n_classes
    if head_type == "dense":
        width = int((*classifier.hidden, n_classes)[0])
        batch = 4 * 4 * n_features * int(classifier.batch_size)
        # Weights, two moments of Adam, a gradient, and a copy of the weights for each of what starts and what was best.
        return block + batch + 6 * 4 * n_features * width
    # Every thread has sums of its own, three of them for ridge with two weightings each.
    return block + (KEPT[head_type] + 6 * N_THREADS) * 8 * n_features * n_outputs


def fit_scaler(scaler: Any, rows: Rows) -> None:
    """Fit a scaler in one pass where it learns something of all rows; else on a single one."""
    if hasattr(scaler, "partial_fit"):
        for _, block in blocks(rows):
            scaler.partial_fit(dense(block))
    else:
        scaler.fit(dense(rows.take(np.arange(1))))
