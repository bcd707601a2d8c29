"""Training and validation splits.

Images of identical bytes, and images of one group, are never on both sides.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError
from headstart.texts import counted, did_you_mean


@dataclass(frozen=True, slots=True)
class Split:
    """Rows to fit on and rows to score on."""

    train: NDArray[np.int64]  # row numbers, ascending
    validation: NDArray[np.int64]
    description: str  # readable description
    n_dropped: int = 0  # training images left out because the same bytes, or their group, are scored


def split_by_fraction(
    labels: NDArray[np.integer[Any]],
    *,
    fraction: float,
    sha256: Sequence[str],
    groups: Sequence[str] | None = None,
    random_state: int = 0,
    strata: NDArray[np.integer[Any]] | None = None,
) -> Split:
    """Return a stratified split; unlabelled rows (−1) are in neither part.

    Whole units (images connected by ``sha256`` or group, empty for none) are drawn at random into the validation part of
    their most frequent stratum, by default the label, until its ``fraction`` is reached. Raises DataError if the fraction
    is not between 0 and 1, or a class cannot be on both sides.
    """
    if not 0 < fraction < 1:
        raise DataError(f"The fraction to hold out lies between 0 and 1. Received: {fraction}.")
    rows = labelled(labels)
    units = connected_units(rows, sha256, groups)
    held_out = np.zeros(units.max() + 1, bool)
    stratum = majority_class(units, (labels if strata is None else strata)[rows])
    sizes = np.bincount(units)
    rng = np.random.default_rng(random_state)
    for one in np.unique(stratum):
        members = rng.permutation(np.flatnonzero(stratum == one))
        held_out[_draw(members, sizes, fraction)] = True
    chosen = held_out[units]
    split = Split(
        rows[~chosen],
        rows[chosen],
        f"{counted(int(chosen.sum()), 'held-out image')} ({fraction:.0%}, stratified, seed {random_state})",
    )
    _check_sides(labels, split)
    return split


def _draw(members: NDArray[np.intp], sizes: NDArray[np.intp], fraction: float) -> NDArray[np.intp]:
    """Return the units of one stratum to hold out: as close to the fraction as whole units allow, never all of them."""
    if len(members) < 2:
        return members[:0]
    filled = np.cumsum(sizes[members])
    count = int(np.argmin(np.abs(filled - fraction * filled[-1]))) + 1
    return members[: min(count, len(members) - 1)]


def split_by_column(
    labels: NDArray[np.integer[Any]],
    splits: Sequence[str],
    *,
    validation: str,
    sha256: Sequence[str],
    groups: Sequence[str] | None = None,
) -> Split:
    """Return the rows of ``train`` to fit on and those of another split to score on.

    Training images whose bytes or group are scored are left out and counted. Raises DataError if there is no such split,
    or no ``train``.
    """
    if validation == "train":
        raise DataError("The split train is fitted on. Name another split to score on, or a fraction to hold out.")
    rows = labelled(labels)
    names = np.asarray(splits, dtype=object)[rows]
    train, scored = rows[names == "train"], rows[names == validation]
    if not len(train) or not len(scored):
        found = ", ".join(sorted({name or "(none)" for name in names.tolist()}))
        raise DataError(
            f"Fitting on the split train and scoring on {validation!r} needs labelled images in both. Received: {found}.",
            hint=f"Name another split, or a fraction to hold out (`validation`).{did_you_mean([validation], names)}",
        )
    units = dict(zip(rows.tolist(), connected_units(rows, sha256, groups).tolist(), strict=True))
    seen = {units[row] for row in scored.tolist()}
    kept = np.array([row for row in train.tolist() if units[row] not in seen], np.int64)
    split = Split(kept, scored, f"the {counted(len(scored))} of the split {validation}", len(train) - len(kept))
    _check_sides(labels, split)
    return split


def split_by_caches(
    labels: NDArray[np.integer[Any]],
    other_labels: NDArray[np.integer[Any]],
    *,
    sha256: Sequence[str],
    other_sha256: Sequence[str],
) -> Split:
    """Return the labelled rows of one cache to fit on, without images of the other, and those of the other to score on."""
    rows, scored = labelled(labels), np.flatnonzero(np.asarray(other_labels) >= 0)
    seen = {other_sha256[row] for row in scored.tolist()}
    kept = np.array([row for row in rows.tolist() if sha256[row] not in seen], np.int64)
    if not len(kept):
        raise DataError("Every training image is among the scored ones, by its bytes. Name another cache.")
    split = Split(kept, scored, f"the {counted(len(scored))} of the other cache", len(rows) - len(kept))
    _check_sides(labels, split)
    return split


def labelled(labels: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return the rows with a label; raise DataError if there are fewer than two classes."""
    rows = np.flatnonzero(np.asarray(labels) >= 0)
    n_classes = len(np.unique(np.asarray(labels)[rows]))
    if n_classes < 2:
        unlabelled = "" if len(rows) else " To label images group by group: headstart cluster CACHE."
        images = counted(len(rows), "labelled image") if len(rows) else "no labelled images"
        raise DataError(
            f"A classifier needs labelled images of at least two classes. Found {images}"
            f"{' of one class' if n_classes else ''}. Expected: one folder per class, or a manifest with labels.{unlabelled}"
        )
    return rows


def connected_units(rows: NDArray[np.int64], sha256: Sequence[str], groups: Sequence[str] | None) -> NDArray[np.intp]:
    """Return a unit number per row; rows are connected by equal bytes or group."""
    columns = [coded(sha256[row] for row in rows.tolist())]
    if groups is not None:
        columns.append(coded(groups[row] or None for row in rows.tolist()))
    return joined_units(*columns)


def coded(values: Iterable[Hashable]) -> NDArray[np.intp]:
    """Return a number per distinct value, in order of first appearance; −1 for None."""
    numbers: dict[Hashable, int] = {}
    codes = (-1 if value is None else numbers.setdefault(value, len(numbers)) for value in values)
    return np.fromiter(codes, np.intp)


def joined_units(*columns: NDArray[np.integer[Any]]) -> NDArray[np.intp]:
    """Return a unit number per row, from 0 in order of first appearance; rows are connected through chains of common values.

    Rows of equal number in a column belong together; negative numbers are unique.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(columns[0])
    edges, n_nodes = [np.empty((2, 0), np.intp)], n
    for column in columns:  # each value is a node, connected to its rows
        rows = np.flatnonzero(np.asarray(column) >= 0)
        values, number = np.unique(np.asarray(column)[rows], return_inverse=True)
        edges.append(np.stack([rows, n_nodes + number]))
        n_nodes += len(values)
    i, j = np.concatenate(edges, axis=1)
    graph = coo_array((np.ones(len(i), np.int8), (i, j)), shape=(n_nodes, n_nodes))
    return coded(connected_components(graph, directed=False)[1][:n].tolist())


def majority_class(units: NDArray[np.intp], labels: NDArray[np.integer[Any]]) -> NDArray[np.intp]:
    """Return the most frequent class of each unit."""
    counts = np.zeros((units.max() + 1, int(labels.max()) + 1), np.int64)
    np.add.at(counts, (units, labels), 1)
    most_frequent: NDArray[np.intp] = counts.argmax(axis=1)
    return most_frequent


def _check_sides(labels: NDArray[np.integer[Any]], split: Split) -> None:
    n_classes = len(np.unique(labels[split.train]))
    if n_classes < 2 or not len(split.validation):
        raise DataError(
            f"Too few images to divide: {len(split.train):,} of {counted(n_classes, 'class')} to fit on, "
            f"{len(split.validation):,} to score on. Expected: at least two classes with two images each that do not belong "
            "together, by their bytes or group."
        )
