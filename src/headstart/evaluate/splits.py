"""Which images of a cache a head is fitted on, and which it is scored on.

Images of identical bytes, and images of one group, are never on both sides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.reader import FeatureCache
from headstart.errors import DataError, RecipeMismatchError
from headstart.evaluate.joined_caches import (
    AnyCache,
    caches_of,
    join_caches,
    least_classes,
    names_of,
    outputs_of,
    same_images,
)
from headstart.evaluate.random_crops import Crops
from headstart.evaluate.split_notes import MAX_LISTED, class_notes, weight_notes
from headstart.images.discovery.classes_and_splits import split_of
from headstart.texts import counted, did_you_mean, listed


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
    least: int = 2,
) -> Split:
    """Return a stratified split; unlabelled rows (−1) are in neither part.

    Whole units (images connected by ``sha256`` or group, empty for none) are drawn at random into the validation part of
    their most frequent stratum, by default the label, until its ``fraction`` is reached. Raises DataError if the fraction
    is not between 0 and 1, or a class cannot be on both sides.
    """
    if not 0 < fraction < 1:
        raise DataError(f"The fraction to hold out lies between 0 and 1. Received: {fraction}.")
    rows = labelled(labels, least)
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
    _check_sides(labels, split, least)
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
    least: int = 2,
) -> Split:
    """Return the rows of ``train`` to fit on and those of another split to score on.

    Training images whose bytes or group are scored are left out and counted. Raises DataError if there is no such split,
    or no ``train``.
    """
    if validation == "train":
        raise DataError("The split train is fitted on. Name another split to score on, or a fraction to hold out.")
    rows = labelled(labels, least)
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
    _check_sides(labels, split, least)
    return split


def split_by_caches(
    labels: NDArray[np.integer[Any]],
    other_labels: NDArray[np.integer[Any]],
    *,
    sha256: Sequence[str],
    other_sha256: Sequence[str],
    least: int = 2,
) -> Split:
    """Return the labelled rows of one cache to fit on, without images of the other, and those of the other to score on."""
    rows, scored = labelled(labels, least), np.flatnonzero(np.asarray(other_labels) >= 0)
    seen = {other_sha256[row] for row in scored.tolist()}
    kept = np.array([row for row in rows.tolist() if sha256[row] not in seen], np.int64)
    if not len(kept):
        raise DataError("Every training image is among the scored ones, by its bytes. Name another cache.")
    split = Split(kept, scored, f"the {counted(len(scored))} of the other cache", len(rows) - len(kept))
    _check_sides(labels, split, least)
    return split


def labelled(labels: NDArray[np.integer[Any]], least: int = 2) -> NDArray[np.int64]:
    """Return the rows with a label; raise DataError if there are fewer than two classes, or than ``least``."""
    rows = np.flatnonzero(np.asarray(labels) >= 0)
    n_classes = len(np.unique(np.asarray(labels)[rows]))
    if n_classes < least:
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


def _check_sides(labels: NDArray[np.integer[Any]], split: Split, least: int) -> None:
    n_classes = len(np.unique(labels[split.train]))
    if n_classes < least or not len(split.validation):
        of, pair = (f" of {counted(n_classes, 'class')}", "two classes with ") if least > 1 else ("", "")
        raise DataError(
            f"Too few images to divide: {len(split.train):,}{of} to fit on, {len(split.validation):,} to score on. Expected: "
            f"at least {pair}two images{' each' if pair else ''} that do not belong together, by their bytes or group."
        )


#: Fraction of the images held out if the data has no split that can be scored.
DEFAULT_FRACTION = 0.25


@dataclass(frozen=True, slots=True)
class Sides:
    """Training and validation images."""

    train: AnyCache  # caches of the same recipes; often the same
    validation: AnyCache
    split: Split  # their rows
    class_names: tuple[str, ...]  # classes with training images; every validation image belongs to one of them
    notes: tuple[str, ...] = ()  # sentences on images and classes that are left out
    weights: NDArray[np.float64] | None = None  # of the training images in the fit, above 0; None for ones
    crops: Crops | None = None  # random crops of the training images

    @property
    def left_out(self) -> list[str]:
        """Classes of the caches that are not in ``class_names``, sorted."""
        return sorted({*self.train.class_names, *self.validation.class_names} - {*self.class_names})

    @property
    def y_train(self) -> NDArray[Any]:
        """Output of each training image: an index into ``class_names``, or a number."""
        return _outputs(self.train, self.class_names)[self.split.train]

    @property
    def y_validation(self) -> NDArray[Any]:
        """Output of each validation image."""
        return _outputs(self.validation, self.class_names)[self.split.validation]

    def within(self, cache: FeatureCache) -> Sides:
        """Return the same images in another cache."""
        split, first = self.split, caches_of(self.train)[0]
        train, validation = (same_images(first, rows, cache) for rows in (split.train, split.validation))
        return replace(self, train=cache, validation=cache, split=replace(split, train=train, validation=validation))

    def joined(self, others: Sequence[FeatureCache]) -> Sides:
        """Return the same images with their features in this cache and in others; raise as :func:`join_caches` does."""
        rows = np.union1d(self.split.train, self.split.validation)
        both = join_caches((*caches_of(self.train), *others), rows)
        return replace(self, train=both, validation=both)


def divide(
    cache: FeatureCache,
    validation: float | str | Path | None = None,
    random_state: int = 0,
    strata: NDArray[np.int64] | None = None,
) -> Sides:
    """Return training and validation images of one cache.

    ``validation`` is the fraction of the images to hold out, or the name of a split. By default it is the cache's own
    ``validation`` or ``test`` if it has a ``train`` with the same classes, otherwise a quarter of the images. A fraction
    keeps the ``strata`` of the images in proportion, by default the labels. Raises DataError if there are too few
    labelled images, or the split is not possible.
    """
    labels, notes, lacking = cache.labels, list[str](), Counter[str]()
    if validation is None:
        validation, unusable = scored_split(labels, cache.splits, ("validation", "test"))
        if not validation:
            labels, notes, lacking = without_splits(labels, cache.splits, cache.class_names, unusable)
            validation = DEFAULT_FRACTION
            if unusable:
                notes.append(f"{DEFAULT_FRACTION:.0%} of the other labelled images are held out instead.")
    if isinstance(validation, int | float):
        split = split_by_fraction(
            labels,
            fraction=validation,
            sha256=cache.sha256,
            groups=cache.groups,
            random_state=random_state,
            strata=strata,
            least=least_classes(cache),
        )
    else:
        name = split_of(str(validation)) or str(validation)
        split = split_by_column(
            labels,
            cache.splits,
            validation=name,
            sha256=cache.sha256,
            groups=cache.groups,
            least=least_classes(cache),
        )
    return _told_apart(cache, cache, split, notes, lacking)


def divide_caches(train: FeatureCache, other: FeatureCache) -> Sides:
    """Return all labelled rows of one cache for training, and those of another for validation; classes are matched by name.

    Raises RecipeMismatchError if their recipes differ; DataError if there are too few labelled images, or no validation
    image belongs to a training class.
    """
    differences = train.recipe.differences(other.recipe)
    if differences:
        raise RecipeMismatchError(
            f"{other.path} was made by another recipe than {train.path} (there ≠ here): {'; '.join(differences)}."
        )
    split = split_by_caches(
        train.labels, other.labels, sha256=train.sha256, other_sha256=other.sha256, least=least_classes(train)
    )
    return _told_apart(train, other, split)


def scored_split(
    labels: NDArray[np.integer[Any]], splits: Sequence[str], order: Sequence[str]
) -> tuple[str, list[str]]:
    """Return the first usable split of ``order`` (empty if none is), and the splits without an image of a training class."""
    names = np.asarray(splits, object)
    fitted = np.unique(labels[(names == "train") & (labels >= 0)])
    present = [name for name in order if (names == name).any()] if len(fitted) else []
    usable = [name for name in present if np.isin(labels[names == name], fitted).any()]
    return (usable[0] if usable else ""), [name for name in present if name not in usable]


def without_splits(
    labels: NDArray[np.int64], splits: Sequence[str], class_names: Sequence[str], unusable: Sequence[str]
) -> tuple[NDArray[np.int64], list[str], Counter[str]]:
    """Return labels set to −1 in unusable splits, sentences with the reasons, and the class counts of the removed labels."""
    names, notes = np.asarray(splits, object), []
    for name in unusable:
        own = labels[names == name]
        if (own < 0).all():
            notes.append(f"The split {name} has no labels ({counted(len(own))}).")
        else:
            notes.append(f"The split {name} has no image of a class that train has.")
    out = np.isin(names, list(unusable))
    return np.where(out, -1, labels), notes, Counter(class_names[i] for i in labels[out].tolist() if i >= 0)


def _told_apart(
    train: FeatureCache,
    validation: FeatureCache,
    split: Split,
    notes: Iterable[str] = (),
    lacking: Counter[str] | None = None,
) -> Sides:
    """Return the sides of a split, without validation images of classes that have no training image.

    ``notes`` and ``lacking`` concern images left out before. Raises DataError if no validation image is left.
    """
    split, weights, weighting = weighted(train, split)
    fitted = Counter(names_of(train, split.train))
    scored = names_of(validation, split.validation)
    is_class = outputs_of(train) is None  # otherwise nothing depends on the classes that are fitted on
    known = np.array([name in fitted or not is_class for name in scored], bool)
    failed = Counter(failure.ref.label for failure in train.failures if failure.ref.label)
    if not known.any():
        raise DataError(
            f"Nothing can be scored on {split.description}. {' '.join(class_notes((), Counter(), Counter(scored)))} "
            f"Expected: images of {listed(fitted, MAX_LISTED)}.",
            hint="Name another split, or a fraction to hold out (`validation`).",
        )
    if not known.all():
        description = f"{split.description}, less {(~known).sum():,} of classes with no image to fit on"
        split = replace(split, validation=split.validation[known], description=description)
    names = tuple(name for name in train.class_names if name in fitted or not is_class)
    said = class_notes(train.class_names, fitted, Counter(scored) + (lacking or Counter()), failed) if is_class else []
    return Sides(train, validation, split, names, (*notes, *weighting, *said), weights)


def weighted(cache: AnyCache, split: Split) -> tuple[Split, NDArray[np.float64] | None, list[str]]:
    """Return a split without the training images of weight 0, the weights of the others, None for ones, and sentences.

    Raises DataError if fewer than two classes are left.
    """
    if cache.weights is None:
        return split, None, []
    weights = cache.weights[split.train]
    split = replace(split, train=split.train[weights > 0])
    _check_sides(cache.labels, split, least_classes(cache))
    used = weights[weights > 0]
    return split, None if (used == 1).all() else used, weight_notes(weights, outputs_of(cache))


def _outputs(cache: AnyCache, class_names: Sequence[str]) -> NDArray[Any]:
    """Return the output of each row; of classes, the index into ``class_names``, −1 if unlabelled or of another class."""
    outputs = outputs_of(cache)
    if outputs is not None:
        return outputs
    number = {name: i for i, name in enumerate(class_names)}
    return np.array([*(number.get(name, -1) for name in cache.class_names), -1], np.int64)[cache.labels]
