"""Cross-validation folds that keep related images together."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError
from headstart.evaluate.splits import coded, joined_units, labelled
from headstart.texts import counted, listed

#: Cost of putting all units of a class into one fold: more than any imbalance.
TOGETHER = 1e6

#: Classes named in a note.
MAX_LISTED = 10


def _assign(units: NDArray[np.intp], y: NDArray[np.intp], n_splits: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the fold of each row.

    Units of several classes are placed first, since they are the hardest; then single-class units, the rarest class
    first.
    """
    n_classes = int(y.max()) + 1
    pairs, sizes = np.unique(units * n_classes + y, return_counts=True)
    unit, label = pairs // n_classes, pairs % n_classes
    mixed = np.bincount(unit)[unit] > 1
    counts = np.zeros((n_splits, n_classes))
    fold_of = np.full(int(units.max()) + 1, -1, np.intp)
    _place_mixed(unit[mixed], label[mixed], sizes[mixed], np.bincount(y), counts, fold_of, rng)
    for own in np.argsort(np.bincount(y), kind="stable").tolist():
        chosen = np.flatnonzero(~mixed & (label == own))
        _place_class(unit[chosen], sizes[chosen], own, counts, fold_of, rng)
    return fold_of[units]


def _place_mixed(
    unit: NDArray[np.intp],
    label: NDArray[np.intp],
    sizes: NDArray[np.intp],
    totals: NDArray[np.intp],
    counts: NDArray[np.float64],
    fold_of: NDArray[np.intp],
    rng: np.random.Generator,
) -> None:
    """Place units of several classes where the sum of squared class shares grows least; update ``counts``, ``fold_of``.

    ``unit``, ``label`` and ``sizes`` are the rows of each class in each unit; ``totals`` the rows of each class, ``counts``
    those in each fold so far, shape (n_splits, n_classes), and ``fold_of`` the fold of each unit.
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


def _place_class(
    unit: NDArray[np.intp],
    sizes: NDArray[np.intp],
    label: int,
    counts: NDArray[np.float64],
    fold_of: NDArray[np.intp],
    rng: np.random.Generator,
) -> None:
    """Place single-class units, largest first, in the fold with the fewest rows of the class, then the fewest rows."""
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


@dataclass(frozen=True, slots=True)
class Fold:
    """Rows to fit on and rows to score on."""

    train: NDArray[np.int64]  # row numbers, ascending
    test: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Folds:
    """All folds of all repeats."""

    splits: tuple[Fold, ...]  # ordered by repeat; in each repeat every labelled row is tested once
    n_splits: int  # folds per repeat, and repeats
    n_repeats: int
    description: str  # readable description
    notes: tuple[str, ...] = ()  # sentences on deviations from the request; usually empty


def make_folds(
    labels: NDArray[np.integer[Any]],
    *,
    n_splits: int = 5,
    n_repeats: int = 1,
    sha256: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    units: NDArray[np.integer[Any]] | None = None,
    strata: NDArray[np.integer[Any]] | None = None,
    random_state: int = 0,
    class_names: Sequence[str] | None = None,
    least: int = 2,
) -> Folds:
    """Return folds, stratified as well as whole units allow.

    A unit is a set of rows connected by ``sha256``, group (empty for none) or given unit (negative ones are unique), and is
    tested as a whole. Units are assigned one by one, largest first, to the fold with the fewest rows of their stratum, by
    default the label; ties are broken at random. Unlabelled rows (−1) are in no fold.

    A class of two or more units is in every training part, unless all of its units also contain other classes and this is
    impossible; then there is a note. There are fewer folds than ``n_splits``, with a note, if a class has fewer units. A
    class of a single unit cannot be on both sides: it is tested once without being fitted on, since leaving it out would
    hide its errors. There is a note on that too. Notes name classes by ``class_names``, by default their numbers.

    Raises DataError if ``n_splits`` is below 2, lengths differ, or fewer than two classes, or than ``least``, can be both
    fitted on and tested.
    """
    labels = np.asarray(labels)
    if n_splits < 2 or n_repeats < 1:
        raise DataError(f"Expected at least 2 folds and 1 repeat. Received: {n_splits} folds, {n_repeats} repeats.")
    check_lengths(len(labels), sha256=sha256, groups=groups, units=units, strata=strata)
    rows = labelled(labels, least)
    together = _units_of(rows, sha256, groups, units)
    classes, y = np.unique(labels[rows], return_inverse=True)
    names = [class_names[label] if class_names is not None else f"class {label}" for label in classes.tolist()]
    n_units = units_per_class(together, y, len(names))
    n_possible = _possible_splits(n_units, n_splits, least)
    stratum = y if strata is None else np.unique(strata[rows], return_inverse=True)[1]
    splits = []
    for repeat in range(n_repeats):
        rng = np.random.default_rng([random_state, repeat])
        number = _assign(together, stratum, n_possible, rng)
        splits += [Fold(rows[number != fold], rows[number == fold]) for fold in range(n_possible)]
    notes = () if n_possible == n_splits else (_fewer_folds(n_splits, n_possible, names, n_units),)
    return Folds(
        tuple(splits),
        n_possible,
        n_repeats,
        _description(n_possible, n_repeats, len(rows), together, random_state, " by class" if least > 1 else ""),
        (*notes, *untrained(labels, splits, dict(zip(classes.tolist(), names, strict=True)), n_units, least)),
    )


def inner_folds(
    rows: NDArray[np.int64],
    labels: NDArray[np.integer[Any]],
    units: NDArray[np.integer[Any]] | None = None,
    strata: NDArray[np.integer[Any]] | None = None,
    *,
    n_splits: int = 5,
    random_state: int = 0,
    least: int = 2,
) -> Folds:
    """Return folds of distinct rows, e.g. the training part of a fold; row numbers index ``labels``, not ``rows``.

    ``labels``, ``units`` and ``strata`` are those of all rows; other arguments and errors as for :func:`make_folds`.
    """
    rows = np.sort(rows)
    units, strata = (None if column is None else np.asarray(column)[rows] for column in (units, strata))
    folds = make_folds(
        np.asarray(labels)[rows], n_splits=n_splits, units=units, strata=strata, random_state=random_state, least=least
    )
    return replace(folds, splits=tuple(Fold(rows[fold.train], rows[fold.test]) for fold in folds.splits))


def check_lengths(n_rows: int, **columns: Sequence[Any] | NDArray[Any] | None) -> None:
    """Raise DataError if a column is not as long as the labels."""
    for name, column in columns.items():
        if column is not None and len(column) != n_rows:
            raise DataError(f"Expected one of {name} for each of {n_rows:,} labels. Received: {len(column):,}.")


def _units_of(
    rows: NDArray[np.int64],
    sha256: Sequence[str] | None,
    groups: Sequence[str] | None,
    units: NDArray[np.integer[Any]] | None,
) -> NDArray[np.intp]:
    columns = [np.full(len(rows), -1, np.intp)]
    if sha256 is not None:
        columns.append(coded(sha256[row] for row in rows.tolist()))
    if groups is not None:
        columns.append(coded(groups[row] or None for row in rows.tolist()))
    if units is not None:
        columns.append(np.asarray(units)[rows])
    return joined_units(*columns)


def units_per_class(units: NDArray[np.intp], y: NDArray[np.intp], n_classes: int) -> NDArray[np.intp]:
    """Return the number of units of each class."""
    pairs = np.unique(units * n_classes + y)
    return np.bincount(pairs % n_classes, minlength=n_classes)


def _possible_splits(n_units: NDArray[np.intp], n_splits: int, least: int) -> int:
    """Return the number of folds for which every class of two or more units can be spread."""
    enough = n_units[n_units >= 2]
    if len(enough) < least:
        what = "two classes of at least two images each" if least > 1 else "at least two images"
        received = f"{counted(len(enough), 'such class')} of {len(n_units)}" if least > 1 else "fewer"
        raise DataError(
            f"Cross-validation needs {what} that do not belong together (by bytes, group or likeness). Received: {received}. "
            "Add images, or score on images of another folder."
        )
    return min(n_splits, int(enough.min()))


def _description(
    n_splits: int, n_repeats: int, n_rows: int, units: NDArray[np.intp], random_state: int, by: str
) -> str:
    together = n_rows - int(units.max()) - 1
    kept = f", {together:,} of them kept together with others" if together else ""
    often = f"{n_splits} folds" if n_repeats == 1 else f"{n_repeats} × {n_splits} folds"
    return f"{often} of {n_rows:,} images{kept}, stratified{by}, seed {random_state}"


def _fewer_folds(wanted: int, n_splits: int, names: Sequence[str], n_units: NDArray[np.intp]) -> str:
    rarest = names[int(np.flatnonzero(n_units == n_splits)[0])]
    return f"{n_splits} folds instead of {wanted}: {rarest} has only {n_splits} images that do not belong together."


def untrained(
    labels: NDArray[np.integer[Any]],
    splits: Sequence[Fold],
    names: Mapping[int, str],
    n_units: NDArray[np.intp],
    least: int = 2,
) -> list[str]:
    """Return notes on classes tested without being fitted on; raise DataError if a fold has a single class to fit on.

    ``names`` and ``n_units`` are those of the classes, in ascending order of their labels.
    """
    missing: set[int] = set()
    for fold in splits:
        present = set(np.unique(labels[fold.train]).tolist())
        if len(present) < least:
            raise DataError(
                "The images hang together so closely that a fold leaves a single class to fit on. Give them narrower "
                "groups, or score on images of another folder."
            )
        missing |= set(names) - present
    single = {label for label, n in zip(names, n_units.tolist(), strict=True) if n == 1}
    reasons = (
        (
            sorted(missing & single),
            "has a single image, or only ones that belong together: tested without being fitted on.",
        ),
        (
            sorted(missing - single),
            "hangs together with other classes so that some fold tests it without fitting on it.",
        ),
    )
    return [
        f"{'Each of ' if len(found) > 1 else ''}{listed([names[label] for label in found], MAX_LISTED)} {reason}"
        for found, reason in reasons
        if found
    ]
