"""Which images heads are compared on in folds, and which are scored at the end, of classes that can be learnt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from headstart.errors import DataError
from headstart.evaluate.sides import class_notes, scored_split, without_splits
from headstart.evaluate.splits import labelled, split_by_column
from headstart.images.split_names import split_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.benchmark.sources import Source


@dataclass(frozen=True, slots=True)
class Images:
    """What the first cache says of the images that lie in all caches; a value of each, in its order."""

    labels: NDArray[np.int64]
    splits: list[str]
    groups: list[str]
    sha256: list[str]
    paths: list[str]
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, source: Source) -> Images:
        """Return them as they lie in a cache."""
        cache, rows = source.cache, source.rows.tolist()
        splits, groups, sha256, paths = cache.splits, cache.groups, cache.sha256, cache.paths
        return cls(
            labels=cache.labels[rows],
            splits=[splits[row] for row in rows],
            groups=[groups[row] for row in rows],
            sha256=[sha256[row] for row in rows],
            paths=[paths[row] for row in rows],
            class_names=cache.class_names,
        )

    def counts(self, rows: NDArray[np.int64]) -> Counter[str]:
        """Return how many of some labelled images are of each class."""
        return Counter(self.class_names[label] for label in self.labels[rows].tolist())

    def of_classes(self, names: tuple[str, ...]) -> Images:
        """Return the same images, unlabelled where they are of none of these classes."""
        number = {name: i for i, name in enumerate(names)}
        numbers = np.array([*(number.get(name, -1) for name in self.class_names), -1], np.int64)
        return replace(self, labels=numbers[self.labels], class_names=names)


@dataclass(frozen=True, slots=True)
class Division:
    """Images of the folds, and those that are scored at the end.

    Attributes
    ----------
    images : Images
        All of them, of the classes that are fitted on.
    rows, held_out : ndarray of int64
        Places among ``images``.
    scored : str
        Split of the latter; empty for none.
    description : str
        How the latter were chosen, in words; empty for none.
    notes : tuple of str
        What could not be held out, and which classes are left out, in words.
    """

    images: Images
    rows: NDArray[np.int64]
    held_out: NDArray[np.int64]
    scored: str
    description: str
    notes: tuple[str, ...]


def divide_images(
    images: Images, units: NDArray[np.intp], held_out: str | None, failed: Iterable[str] = ()
) -> Division:
    """Return the images of the folds and those to score at the end.

    Parameters
    ----------
    images : Images
        All.
    units : ndarray of shape (n_images,), intp
        Images of one unit are not on both sides.
    held_out : str, optional
        A split, or an empty name for none; the default is ``test`` or ``validation`` beside ``train``, where it has images of
        classes to fit on.
    failed : iterable of str
        Class of each image that could not be read.

    Raises
    ------
    DataError
        If there are too few labelled images, or none of the given split can be scored.
    """
    scored, notes, lacking = split_of(held_out or "") or held_out or "", list[str](), Counter[str]()
    if held_out is None:
        scored, unusable = scored_split(images.labels, images.splits, ("test", "validation"))
        labels, notes, lacking = without_splits(images.labels, images.splits, images.class_names, unusable)
        images = replace(images, labels=labels)
    rows, last, description = sides_of(images, units, scored)
    fitted, counts = images.counts(rows), images.counts(last)
    known = np.array([images.class_names[label] in fitted for label in images.labels[last].tolist()], bool)
    lacking += Counter({name: n for name, n in counts.items() if name not in fitted})
    said = class_notes(images.class_names, fitted, fitted + lacking, Counter(failed))
    if len(last) and not known.any():
        raise DataError(f"Nothing of {description} can be scored. {' '.join(said)} Name another split, or none.")
    if not known.all():
        description += f", less {(~known).sum():,} of classes with no image to fit on"
    names = tuple(name for name in images.class_names if name in fitted)
    return Division(images.of_classes(names), rows, last[known], scored, description, (*notes, *said))


def sides_of(images: Images, units: NDArray[np.intp], scored: str) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    """Return the rows for the folds, those that are scored at the end, and how they were divided, in words."""
    if not scored:
        return labelled(images.labels), np.empty(0, np.int64), ""
    split = split_by_column(
        images.labels,
        [own if own == scored else "train" for own in images.splits],
        validation=scored,
        sha256=images.sha256,
        groups=[str(unit) for unit in units],
    )
    dropped = f"; {split.n_dropped:,} training images that belong to them were left out" if split.n_dropped else ""
    return split.train, split.validation, f"{split.description}{dropped}"
