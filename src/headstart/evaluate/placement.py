"""Which fold a unit goes to."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Cost of a fold that holds every unit of a class so far: more than any lack of balance.
TOGETHER = 1e6


def assign(units: NDArray[np.intp], y: NDArray[np.intp], n_splits: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the fold of each row.

    Units of several classes come first, as they are hardest to place; then each class's own, the rarest class first.
    """
    n_classes = int(y.max()) + 1
    pairs, sizes = np.unique(units * n_classes + y, return_counts=True)
    unit, label = pairs // n_classes, pairs % n_classes
    mixed = np.bincount(unit)[unit] > 1
    counts = np.zeros((n_splits, n_classes))
    fold_of = np.full(int(units.max()) + 1, -1, np.intp)
    place_mixed(unit[mixed], label[mixed], sizes[mixed], np.bincount(y), counts, fold_of, rng)
    for own in np.argsort(np.bincount(y), kind="stable").tolist():
        chosen = np.flatnonzero(~mixed & (label == own))
        place_class(unit[chosen], sizes[chosen], own, counts, fold_of, rng)
    return fold_of[units]


def place_mixed(
    unit: NDArray[np.intp],
    label: NDArray[np.intp],
    sizes: NDArray[np.intp],
    totals: NDArray[np.intp],
    counts: NDArray[np.float64],
    fold_of: NDArray[np.intp],
    rng: np.random.Generator,
) -> None:
    """Place units of several classes where the sum of squared shares of the classes grows least; changes the last two.

    Parameters
    ----------
    unit, label, sizes : ndarray of shape (n_pairs,), intp
        Rows of each class in each unit.
    totals : ndarray of shape (n_classes,), intp
        Rows of each class.
    counts : ndarray of shape (n_splits, n_classes), float64
        Rows of each class that are in each fold.
    fold_of : ndarray of shape (n_units,), intp
        The fold of each unit.
    """
    numbers, start, n_pairs = np.unique(unit, return_index=True, return_counts=True)
    weight = np.bincount(unit, sizes)[numbers] if len(unit) else np.empty(0)
    for k in np.lexsort((rng.random(len(numbers)), -weight)).tolist():
        part = slice(start[k], start[k] + n_pairs[k])
        own, n, before = label[part], sizes[part], counts[:, label[part]]
        cost = ((2 * before * n + n * n) / totals[own] ** 2).sum(axis=1)
        cost += TOGETHER * ((before > 0) & (before == before.sum(axis=0))).sum(axis=1)
        best = int(np.lexsort((counts.sum(axis=1), cost))[0])
        counts[best, own] += n
        fold_of[numbers[k]] = best


def place_class(
    unit: NDArray[np.intp],
    sizes: NDArray[np.intp],
    label: int,
    counts: NDArray[np.float64],
    fold_of: NDArray[np.intp],
    rng: np.random.Generator,
) -> None:
    """Place the units of one class, each in the fold that has least of it; of equal ones, least in all."""
    n_splits = len(counts)
    rank = np.empty(n_splits, np.intp)
    rank[np.lexsort((rng.random(n_splits), counts.sum(axis=1)))] = np.arange(n_splits)
    heap = [(float(counts[fold, label]), int(rank[fold]), fold) for fold in range(n_splits)]
    heapq.heapify(heap)
    order = np.lexsort((rng.random(len(unit)), -sizes))
    folds = np.empty(len(unit), np.intp)
    for k, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        count, tie, fold = heap[0]
        folds[k] = fold
        heapq.heapreplace(heap, (count + size, tie, fold))
    fold_of[unit] = folds
    for count, _, fold in heap:
        counts[fold, label] = count
