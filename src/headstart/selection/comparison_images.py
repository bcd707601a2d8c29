"""The caches and images that heads are compared on: in folds, and scored at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.reader import FeatureCache
from headstart.errors import DataError
from headstart.evaluate.held_out import class_notes, same_images, scored_split, without_splits
from headstart.evaluate.splits import labelled, split_by_column
from headstart.heads.grid_predictions import Table
from headstart.images.discovery.classes_and_splits import split_of
from headstart.report.comparison import Candidate
from headstart.selection.search import make_tables
from headstart.texts import listed
from headstart.types import HeadSpec, Recipe

#: Values of a table, 64 MB, up to which it stays in memory while the heads look at another cache: averages do, maps do not.
MAX_KEPT_VALUES = 16_000_000

#: Characters of a digest that are shown.
SHOWN_DIGEST = 12


@dataclass(slots=True)
class Source:
    """One cache of the images."""

    cache: FeatureCache
    rows: NDArray[np.int64]  # its row of each image that lies in all caches; shape (n_images,)
    backbone_ms: float | None = None  # milliseconds per image of its frozen backbone; None where they are not known
    #: Tables of the images of the folds, as far as they were read
    tables: dict[tuple[tuple[str, ...], str], Table] = field(default_factory=dict)

    def read(self, specs: Sequence[HeadSpec], images: NDArray[np.int64]) -> None:
        """Read the tables of some settings that are not there yet."""
        missing = [spec for spec in specs if (spec.features, spec.scaling) not in self.tables]
        self.tables |= make_tables(self.cache, missing, self.rows[images])

    def let_go(self) -> None:
        """Drop the large tables; they are read again when they are asked for."""
        for key in [key for key, table in self.tables.items() if table.raw.size > MAX_KEPT_VALUES]:
            del self.tables[key]


def join(caches: Sequence[FeatureCache], backbone_ms: Sequence[float | None]) -> tuple[list[Source], list[str]]:
    """Return the caches with their rows of the images that lie in all of them, and what was left out, in words.

    Images are known by their bytes. Order, labels, splits and groups are those of the first cache. Raises DataError if no
    image lies in all caches, or one calls an image by another class.
    """
    first, *others = caches
    digests = first.sha256
    shared = set(digests).intersection(*(other.sha256 for other in others))
    common = np.array([row for row, digest in enumerate(digests) if digest in shared], np.int64)
    if others and not len(common):
        raise DataError(f"No image lies in all of {', '.join(str(cache.path) for cache in caches)}.")
    rows = [common, *(same_images(first, common, other) for other in others)]
    sources = [Source(*parts) for parts in zip(caches, rows, backbone_ms, strict=True)]
    return sources, [left_out(cache, shared, len(caches)) for cache in caches if set(cache.sha256) - shared]


def left_out(cache: FeatureCache, shared: set[str], n_caches: int) -> str:
    """Return which images of a cache are not compared on, in words."""
    paths = [path for path, digest in zip(cache.paths, cache.sha256, strict=True) if digest not in shared]
    return (
        f"{len(paths):,} of the {cache.n_images:,} images of {cache.path} are left out: they do not lie in all {n_caches} "
        f"caches ({listed(paths, 3)})."
    )


def described(caches: Sequence[FeatureCache]) -> tuple[Candidate, ...]:
    """Return what to call each of several caches, and what differs between them; nothing of a single one."""
    if len(caches) == 1:
        return ()
    paths = [str(cache.path) for cache in caches]
    names = [PurePath(path).name for path in paths]
    names = names if len(set(names)) == len(names) else paths
    words = differences([cache.recipe for cache in caches])
    return tuple(
        Candidate(*parts) for parts in zip(names, paths, words, (cache.recipe for cache in caches), strict=True)
    )


def differences(recipes: Sequence[Recipe]) -> list[str]:
    """Return of each recipe the fields that are not the same in all, in words."""
    names = [one.name for one in fields(recipes[0]) if len({getattr(recipe, one.name) for recipe in recipes}) > 1]
    return [
        ", ".join(f"{name} {shown(getattr(recipe, name))}" for name in names) or "the same recipe" for recipe in recipes
    ]


def shown(value: Any) -> str:
    """Return a field of a recipe in words."""
    text = " + ".join(value) or "none" if isinstance(value, tuple) else str(value)
    return text[:SHOWN_DIGEST] if len(text) == 64 else text


@dataclass(frozen=True, slots=True)
class Images:
    """Columns of the first cache for the images that are in all caches, in its order."""

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
    """Images of the folds, and those that are scored at the end."""

    images: Images  # all of them, of the classes that are fitted on
    rows: NDArray[np.int64]  # places among ``images``
    held_out: NDArray[np.int64]
    scored: str  # split of the latter; empty for none
    description: str  # description of the latter; empty for none
    notes: tuple[str, ...]  # remarks on splits that could not be held out and on classes left out


def divide_images(
    images: Images, units: NDArray[np.intp], held_out: str | None, failed: Iterable[str] = ()
) -> Division:
    """Return the images of the folds and those to score at the end; images of one unit are not on both sides.

    ``held_out`` names the split to score, empty for none; the default is ``test`` or ``validation`` beside ``train``,
    where it has images of classes to fit on. ``failed`` are the classes of images that could not be read. Raises
    DataError if there are too few labelled images, or none of the split can be scored.
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
