"""Data shared by all heads of a comparison: options, rows, folds, tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from headstart.evaluate.folds import Folds, inner_folds, make_folds
from headstart.evaluate.intervals import CV_VARIANCE, estimates
from headstart.evaluate.leakage import find_leaks
from headstart.evaluate.metrics import positive_rates
from headstart.evaluate.near_duplicates import last_block, near_units
from headstart.evaluate.splits import connected_units, joined_units
from headstart.evaluate.targets import target_named
from headstart.heads.catalogue import HEAD_TYPES, head_kind
from headstart.report.comparison import MAJORITY
from headstart.scores import Criterion, Estimate, PositiveRates, Score, class_index
from headstart.selection.comparison_images import Images, Source, divide_images
from headstart.selection.cross_validation import Pool, Tables
from headstart.selection.search import N_SPLITS
from headstart.types import SINGLE_LABEL, HeadSpec


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
