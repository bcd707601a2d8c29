"""What all heads of a comparison share: options, caches, the images of the folds and those scored at the end, tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from headstart.cache.reader import FeatureCache
from headstart.errors import DataError
from headstart.evaluate.folds import Folds, inner_folds, make_folds
from headstart.evaluate.intervals import CV_VARIANCE, estimates
from headstart.evaluate.joined_caches import same_images
from headstart.evaluate.leakage import find_leaks, last_block, near_units
from headstart.evaluate.splits import (
    class_notes,
    connected_units,
    joined_units,
    labelled,
    scored_split,
    split_by_column,
    without_splits,
)
from headstart.evaluate.targets import positive_rates, target_named
from headstart.heads.catalogue import HEAD_TYPES, head_kind
from headstart.heads.grid_predictions import Table
from headstart.images.discovery.classes_and_splits import split_of
from headstart.report.comparison import MAJORITY, Candidate
from headstart.scores import Criterion, Estimate, PositiveRates, Score, class_index
from headstart.selection.cross_validation import Pool, Tables
from headstart.selection.search import N_SPLITS, make_tables
from headstart.texts import listed
from headstart.types import SINGLE_LABEL, HeadSpec, Recipe

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


def is_baseline(name: str) -> bool:
    """Return whether a head is a baseline: compared, but never recommended."""
    return name == MAJORITY or head_kind(name).baseline


def all_heads() -> tuple[str, ...]:
    """Return the heads that are compared by default, baselines last."""
    return tuple(sorted((*HEAD_TYPES, MAJORITY), key=is_baseline))


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """How heads are compared; the defaults are the command's.

    Attributes
    ----------
    heads : tuple[str, ...]
        Names in the catalogue, or ``majority``.
    features : tuple[str, ...] | None
        For every head; by default features are searched (search.py), and each head's own where nothing is.
    scaling : str | None
    n_splits : int
        Folds, and how often they are drawn anew.
    n_repeats : int
    held_out : str | None
        Split that is never fitted on, and scored once at the end; the default is ``test`` or ``validation`` where there
        is one beside ``train``. An empty name uses every image for the folds.
    near_duplicates : bool
        Keep images that look the same together, beside those of the same bytes or group.
    learning_curve : bool
        Accuracy against images per class as well.
    metric : str
        Metric of ranking, comparison and recommendation: one of ``scores.CHOICE_METRICS``; and the positive class, whose
        average precision, curves and rates are reported.
    positive : str | None
    random_state : int
        Seeds everything random.
    n_jobs : int | None
        Folds at a time; the default is one per processor.
    engine : str
        As in :func:`headstart.fit.fit_head`. Costs are always measured here.
    address : str | None
    target : str
    """

    heads: tuple[str, ...] = field(default_factory=all_heads)
    features: tuple[str, ...] | None = None
    scaling: str | None = None
    n_splits: int = N_SPLITS
    n_repeats: int = 1
    held_out: str | None = None
    near_duplicates: bool = True
    learning_curve: bool = False
    metric: str = "accuracy"
    positive: str | None = None
    random_state: int = 0
    n_jobs: int | None = None
    engine: str = "local"
    address: str | None = None
    target: str = SINGLE_LABEL


@dataclass(slots=True)
class Bench:
    """Data shared by all heads of a comparison."""

    sources: Sequence[Source]  # the caches that each head chooses among
    options: CompareOptions
    images: Images  # images that are in all caches
    #: Images of the folds, and those that are scored at the end, by their place among ``images``
    rows: NDArray[np.int64]
    held_out: NDArray[np.int64]
    scored: str  # split of the latter; empty for none
    units: NDArray[np.intp]  # images of the folds that stay together; shape (n_rows,)
    strata: NDArray[np.int64]  # what the folds keep in proportion; shape (n_rows,)
    folds: Folds  # of ``rows``, the same for every head and cache
    pool: Pool  # runs the folds

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels of the images of the folds."""
        return self.images.labels[self.rows]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names that the labels index."""
        return self.images.class_names

    @property
    def criterion(self) -> Criterion:
        """Criterion by which settings and heads are chosen."""
        return Criterion(self.options.metric, class_index(self.options.positive, self.class_names))

    def inner_folds(self, rows: NDArray[np.int64]) -> Folds:
        """Return folds of the training rows of a fold."""
        return inner_folds(
            rows,
            self.labels,
            self.units,
            self.strata,
            n_splits=N_SPLITS,
            random_state=self.options.random_state,
        )

    def positive_rates(self, probabilities: NDArray[np.float64]) -> PositiveRates | None:
        """Return how well out-of-fold predictions tell the positive class; None where none is named."""
        positive = self.criterion.positive
        if positive is None:
            return None
        counts = confusion_matrix(self.labels, probabilities.argmax(axis=1), labels=np.arange(len(self.class_names)))
        return positive_rates(counts, positive, self.class_names[positive])

    def held_out_score(self, probabilities: NDArray[np.float64] | None) -> Score | None:
        """Return the score of a fitted head on the held-out images; None without any."""
        if probabilities is None:
            return None
        units = connected_units(self.held_out, self.images.sha256, self.images.groups)
        labels = self.images.labels[self.held_out]
        target = target_named(self.options.target)
        return target.metrics(labels, probabilities, self.class_names, self.criterion.positive, units)

    def tables(self, number: int, specs: Sequence[HeadSpec]) -> Tables:
        """Return what some settings need of a cache; the large tables of the other caches are let go first."""
        for other in self.sources:
            if other is not self.sources[number]:
                other.let_go()
        self.sources[number].read(specs, self.rows)
        return self.sources[number].tables

    def metrics(self, probabilities: NDArray[np.float64]) -> dict[str, Estimate]:
        """Return the scores of out-of-fold probabilities, as they are stored: in float32."""
        stored = probabilities.astype(np.float32)
        return estimates(self.labels, stored, self.units, positive=self.criterion.positive, variance_factor=CV_VARIANCE)


def prepare(
    sources: Sequence[Source], options: CompareOptions, strata: NDArray[np.int64], pool: Pool
) -> tuple[Bench, list[str], str]:
    """Return what all heads share, what was left out and leaks in words, and how the held-out images were chosen.

    Images look the same where they do by the features of any of the caches. ``strata`` are those of the first cache's rows.
    """
    images = Images.of(sources[0])
    strata = strata[sources[0].rows]
    units = connected_units(np.arange(len(images.labels)), images.sha256, images.groups)
    leaks: list[str] = []
    for source in sources:
        pooled = last_block(source.cache)[source.rows] if options.near_duplicates else None
        if pooled is not None:
            units = joined_units(units, near_units(pooled))
        found = find_leaks(images.labels, images.splits, sha256=images.sha256, groups=images.groups, pooled=pooled)
        leaks += [leak.sentence for leak in found]
    failed = [failure.ref.label for failure in sources[0].cache.failures if failure.ref.label]
    division = divide_images(images, units, options.held_out, failed)
    images, rows = division.images, division.rows
    folds = make_folds(
        images.labels[rows],
        n_splits=options.n_splits,
        n_repeats=options.n_repeats,
        units=units[rows],
        strata=strata[rows],
        random_state=options.random_state,
        class_names=images.class_names,
    )
    bench = Bench(
        sources,
        options,
        images,
        rows,
        division.held_out,
        division.scored,
        units[rows],
        strata[rows],
        folds,
        pool,
    )
    return bench, list(dict.fromkeys([*division.notes, *leaks])), division.description
