"""What all heads of a comparison share: options, caches, the images of the folds and those scored at the end, tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from headstart.cache.reader import FeatureCache
from headstart.errors import DataError
from headstart.evaluate.folds import Folds, inner_folds, make_folds
from headstart.evaluate.intervals import CV_VARIANCE
from headstart.evaluate.joined_caches import JoinedCache, outputs_of
from headstart.evaluate.leakage import find_leaks, last_block, near_units
from headstart.evaluate.random_crops import crops_of
from headstart.evaluate.split_notes import class_notes, weight_notes
from headstart.evaluate.splits import (
    connected_units,
    joined_units,
    labelled,
    scored_split,
    split_by_column,
    without_splits,
)
from headstart.evaluate.target_types.class_target import positive_rates
from headstart.evaluate.targets import Target, criterion_for, target_named
from headstart.heads.catalogue import head_kind, heads_for
from headstart.images.discovery.classes_and_splits import split_of
from headstart.report.comparison import KNOW_NOTHING
from headstart.scores import AnyScore, Criterion, Estimate, PositiveRates
from headstart.selection.cross_validation import Pool, Tables
from headstart.selection.search import N_SPLITS
from headstart.selection.sources import Source, side_by_side
from headstart.types import SINGLE_LABEL, HeadSpec


@dataclass(frozen=True, slots=True)
class Images:
    """Columns of the first cache for the images that are in all caches, in its order."""

    labels: NDArray[np.int64]
    splits: list[str]
    groups: list[str]
    sha256: list[str]
    paths: list[str]
    class_names: tuple[str, ...]
    weights: NDArray[np.float64] | None = None  # in a fit; None for ones
    outputs: NDArray[Any] | None = None  # what is predicted, if that is not the class

    @classmethod
    def of(cls, source: Source) -> Images:
        """Return them as they lie in a cache."""
        cache, rows = source.cache, source.rows.tolist()
        outputs = outputs_of(cache)
        splits, groups, sha256, paths = cache.splits, cache.groups, cache.sha256, cache.paths
        return cls(
            labels=cache.labels[rows],
            splits=[splits[row] for row in rows],
            groups=[groups[row] for row in rows],
            sha256=[sha256[row] for row in rows],
            paths=[paths[row] for row in rows],
            class_names=cache.class_names,
            weights=None if cache.weights is None else cache.weights[rows],
            outputs=None if outputs is None else outputs[rows],
        )

    @property
    def y(self) -> NDArray[Any]:
        """What is predicted for each image."""
        return self.labels if self.outputs is None else self.outputs

    @property
    def least_classes(self) -> int:
        """Classes of labels that a fit needs."""
        return 2 if self.outputs is None else 1

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
    is_class = images.outputs is None
    known = np.array(
        [not is_class or images.class_names[label] in fitted for label in images.labels[last].tolist()], bool
    )
    lacking += Counter({name: n for name, n in counts.items() if name not in fitted})
    said = class_notes(images.class_names, fitted, fitted + lacking, Counter(failed)) if is_class else []
    if len(last) and not known.any():
        raise DataError(f"Nothing of {description} can be scored. {' '.join(said)} Name another split, or none.")
    if not known.all():
        description += f", less {(~known).sum():,} of classes with no image to fit on"
    names = tuple(name for name in images.class_names if name in fitted or not is_class)
    return Division(images.of_classes(names), rows, last[known], scored, description, (*notes, *said))


def sides_of(images: Images, units: NDArray[np.intp], scored: str) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    """Return the rows for the folds, those that are scored at the end, and how they were divided, in words."""
    if not scored:
        return labelled(images.labels, images.least_classes), np.empty(0, np.int64), ""
    split = split_by_column(
        images.labels,
        [own if own == scored else "train" for own in images.splits],
        validation=scored,
        sha256=images.sha256,
        groups=[str(unit) for unit in units],
        least=images.least_classes,
    )
    dropped = f"; {split.n_dropped:,} training images that belong to them were left out" if split.n_dropped else ""
    return split.train, split.validation, f"{split.description}{dropped}"


def is_baseline(name: str) -> bool:
    """Return whether a head is a baseline: compared, but never recommended."""
    return name in KNOW_NOTHING or head_kind(name).baseline


def all_heads(target: str | Target = SINGLE_LABEL) -> tuple[str, ...]:
    """Return the heads that are compared by default for a target, baselines last."""
    found = target_named(target)
    able = (name for task in found.tasks for name in heads_for(task))
    return tuple(sorted((*able, found.baseline), key=is_baseline))


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """How heads are compared; the defaults are the command's.

    Attributes
    ----------
    heads : tuple[str, ...]
        Names in the catalogue, or ``majority`` (``mean`` for numbers). The defaults are replaced by those of the target.
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
        Metric of ranking, comparison and recommendation, by default the first of the target: for classes one of
        ``scores.CHOICE_METRICS``, for numbers one of ``scores.NUMBER_METRICS``; and the positive class, whose average
        precision, curves and rates are reported.
    positive : str | None
    random_state : int
        Seeds everything random.
    n_jobs : int | None
        Folds at a time; the default is one per processor.
    engine : str
        As in :func:`headstart.fit.fit_head`. Costs are always measured here.
    address : str | None
    target : str | Target
    join : bool
        Of several caches, also try the features of all of them side by side.
    """

    heads: tuple[str, ...] = field(default_factory=all_heads)
    features: tuple[str, ...] | None = None
    scaling: str | None = None
    n_splits: int = N_SPLITS
    n_repeats: int = 1
    held_out: str | None = None
    near_duplicates: bool = True
    learning_curve: bool = False
    metric: str | None = None
    positive: str | None = None
    random_state: int = 0
    n_jobs: int | None = None
    engine: str = "local"
    address: str | None = None
    target: str | Target = SINGLE_LABEL
    join: bool = False


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
    def labels(self) -> NDArray[Any]:
        """Outputs of the images of the folds: labels, or numbers."""
        return self.images.y[self.rows]

    @property
    def target(self) -> Target:
        """What is predicted."""
        return target_named(self.options.target)

    @property
    def weights(self) -> NDArray[np.float64] | None:
        """Weights of the images of the folds in a fit; None for ones."""
        return None if self.images.weights is None else self.images.weights[self.rows]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names that the labels index."""
        return self.images.class_names

    @property
    def criterion(self) -> Criterion:
        """Criterion by which settings and heads are chosen."""
        return criterion_for(self.target, self.options.metric, self.options.positive, self.class_names)

    def inner_folds(self, rows: NDArray[np.int64]) -> Folds:
        """Return folds of the training rows of a fold."""
        return inner_folds(
            rows,
            self.images.labels[self.rows],
            self.units,
            self.strata,
            n_splits=N_SPLITS,
            random_state=self.options.random_state,
            least=self.images.least_classes,
        )

    @property
    def caches(self) -> list[FeatureCache]:
        """The caches, without the join of all."""
        return [source.cache for source in self.sources if not isinstance(source.cache, JoinedCache)]

    def source_of(self, numbers: Sequence[int]) -> Source:
        """Return one of the caches, or several of them side by side, with the sum of the times of their backbones."""
        if len(numbers) == 1:
            return self.sources[numbers[0]]
        return side_by_side([self.sources[number] for number in numbers])

    def positive_rates(self, probabilities: NDArray[np.float64]) -> PositiveRates | None:
        """Return how well out-of-fold predictions tell the positive class; None where none is named."""
        positive = self.criterion.positive
        if positive is None:
            return None
        counts = confusion_matrix(self.labels, probabilities.argmax(axis=1), labels=np.arange(len(self.class_names)))
        return positive_rates(counts, positive, self.class_names[positive])

    def held_out_score(self, probabilities: NDArray[np.float64] | None) -> AnyScore | None:
        """Return the score of a fitted head on the held-out images; None without any."""
        if probabilities is None:
            return None
        units = connected_units(self.held_out, self.images.sha256, self.images.groups)
        y = self.images.y[self.held_out]
        found: AnyScore = self.target.metrics(y, probabilities, self.class_names, self.criterion.positive, units)
        return found

    def tables(self, number: int, specs: Sequence[HeadSpec]) -> Tables:
        """Return what some settings need of a cache; the large tables of the other caches are let go first."""
        for other in self.sources:
            if other is not self.sources[number]:
                other.let_go()
        self.sources[number].read(specs, self.rows, self.weights)
        return self.sources[number].tables

    def metrics(self, probabilities: NDArray[np.float64]) -> dict[str, Estimate]:
        """Return the scores of out-of-fold probabilities, as they are stored: in float32."""
        stored = probabilities.astype(np.float32)
        return self.target.estimates(
            self.labels, stored, self.units, positive=self.criterion.positive, variance_factor=CV_VARIANCE
        )


#: Share of the images, and number, from which a group that looks the same is reported.
LARGE_GROUP_SHARE, LARGE_GROUP_IMAGES = 0.1, 20


def large_groups(units: NDArray[np.intp]) -> list[str]:
    """Return a sentence on the largest group of images that look the same, if it is a large part of all."""
    largest = int(np.bincount(units).max(initial=0))
    if largest < max(LARGE_GROUP_IMAGES, LARGE_GROUP_SHARE * len(units)):
        return []
    return [
        f"{largest:,} of {len(units):,} images look the same by these features, each like another one, and are never on both "
        "sides of a split: folds are uneven and scores uncertain. If they are different pictures, compare without grouping "
        "near-duplicates."
    ]


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
        if isinstance(source.cache, JoinedCache):
            continue  # of caches that are sources themselves
        pooled = last_block(source.cache)[source.rows] if options.near_duplicates else None
        if pooled is not None:
            near = near_units(pooled)
            units = joined_units(units, near)
            leaks += large_groups(near)
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
        least=images.least_classes,
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
    own = sources[0].crops
    crops = [crops_of(sources[0].cache, sources[0].rows[rows], own).note] if own else []
    notes = [*division.notes, *weight_notes(bench.weights, images.outputs), *crops, *leaks]
    return bench, list(dict.fromkeys(notes)), division.description
