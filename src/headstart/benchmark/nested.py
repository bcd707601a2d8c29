"""Cross-validation of one type of head, its setting chosen anew inside of every fold (nested cross-validation).

Which of several caches of the same images to take is a part of the setting.

Varma & Simon, "Bias in error estimation when using cross-validation for model selection", BMC Bioinformatics 7, 2006: a score
of the images that chose the setting is too good.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.criteria import ACCURACY, Criterion
from headstart.evaluate.folds import Fold, Folds, inner_folds
from headstart.heads.catalogue import make_head
from headstart.search.trials import Trial, best_trial, cross_validate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.heads.trials import Table
    from headstart.schema import HeadSpec
    from headstart.search.pool import Pool

    Tables = Mapping[tuple[tuple[str, ...], str], Table]
    #: Number of a cache → its rows.
    TablesOf = Callable[[int], Tables]


@dataclass(frozen=True, slots=True)
class Nested:
    """How one type of head did on each fold.

    Attributes
    ----------
    chosen : tuple of Trial
        Inside of each fold: the setting and its cache.
    probabilities : ndarray of shape (n_samples, n_classes), float64
        Of each image by the head that did not see it; the mean over repeats.
    fold_accuracy : tuple of float
        Of each fold.
    notes : tuple of str
        What the fits had to say.
    """

    chosen: tuple[Trial, ...]
    probabilities: NDArray[np.float64]
    fold_accuracy: tuple[float, ...]
    notes: tuple[str, ...] = ()


def nested(
    specs: Sequence[Sequence[HeadSpec]],
    tables: TablesOf,
    labels: NDArray[np.int64],
    units: NDArray[np.intp],
    folds: Folds,
    *,
    n_classes: int,
    n_inner: int,
    pool: Pool,
    criterion: Criterion = ACCURACY,
) -> Nested:
    """Return how a type of head does on each fold, the setting chosen among ``specs`` on the fold's training rows alone.

    Parameters
    ----------
    specs : sequence of sequence of HeadSpec
        Of each cache, settings of one type of head, the simplest first; a single one in all is not searched.
    tables : callable
        Returns the rows of a cache, a Table for each (features, scaling); images in the same order in all caches.
    labels : ndarray of shape (n_samples,), int64
        Of the tables' rows, 0 to ``n_classes`` − 1.
    units : ndarray of shape (n_samples,), int
        Rows of one unit stay together in the inner folds too.
    folds : Folds
        Of the tables' rows.
    n_classes, n_inner : int
        Classes there are; folds of each search.
    pool : Pool
        Runs the folds.
    criterion : Criterion
        By which the setting is chosen.
    """
    chosen = choose(specs, tables, labels, units, folds, n_inner=n_inner, pool=pool, criterion=criterion)
    sums, counts = np.zeros((len(labels), n_classes)), np.zeros(len(labels))
    accuracy, notes = np.zeros(len(chosen)), []
    for source, of_source in by_source(chosen).items():
        splits = [folds.splits[fold] for fold in of_source]
        own = [chosen[fold].spec for fold in of_source]
        parts, said = fit_folds(own, tables(source), labels, splits, n_classes, pool)
        notes += said
        for fold, split, probabilities in zip(of_source, splits, parts, strict=True):
            sums[split.test] += probabilities
            counts[split.test] += 1
            accuracy[fold] = float((probabilities.argmax(axis=1) == labels[split.test]).mean())
    return Nested(tuple(chosen), sums / counts[:, None], tuple(accuracy.tolist()), tuple(dict.fromkeys(notes)))


def by_source(chosen: Sequence[Trial]) -> dict[int, list[int]]:
    """Return the folds that chose each cache, so that one cache's rows at a time are needed."""
    sources = sorted({one.source for one in chosen})
    return {source: [fold for fold, one in enumerate(chosen) if one.source == source] for source in sources}


def choose(
    specs: Sequence[Sequence[HeadSpec]],
    tables: TablesOf,
    labels: NDArray[np.int64],
    units: NDArray[np.intp],
    folds: Folds,
    *,
    n_inner: int,
    pool: Pool,
    criterion: Criterion = ACCURACY,
) -> list[Trial]:
    """Return the setting and the cache that each fold's training rows choose."""
    only, *more = [spec for of_source in specs for spec in of_source]
    if not more:
        return [Trial(only, ())] * len(folds.splits)
    inner = [
        inner_folds(split.train, labels, units, n_splits=n_inner, random_state=only.random_state)
        for split in folds.splits
    ]
    trials, _ = try_all(specs, tables, labels, [fold for part in inner for fold in part.splits], pool, criterion)
    chosen, start = [], 0
    for part in inner:
        end = start + len(part.splits)
        chosen.append(best_trial([replace(trial, fold_scores=trial.fold_scores[start:end]) for trial in trials]))
        start = end
    return chosen


def try_all(
    specs: Sequence[Sequence[HeadSpec]],
    tables: TablesOf,
    labels: NDArray[np.int64],
    splits: Sequence[Fold],
    pool: Pool,
    criterion: Criterion,
) -> tuple[list[Trial], float]:
    """Return a trial for each setting of each cache, and the seconds that they took, features in memory."""
    trials: list[Trial] = []
    seconds = 0.0
    for source, of_source in enumerate(specs):
        own = tables(source)
        start = time.perf_counter()
        found = cross_validate(of_source, own, labels, splits, pool=pool, criterion=criterion)
        seconds += time.perf_counter() - start
        trials += [replace(trial, source=source) for trial in found]
    return trials, seconds


def fit_folds(
    specs: Sequence[HeadSpec],
    tables: Tables,
    labels: NDArray[np.int64],
    splits: Sequence[Fold],
    n_classes: int,
    pool: Pool,
) -> tuple[list[NDArray[np.float64]], list[str]]:
    """Return each fold's probabilities of its test rows, by its own setting, and what the fits warned of."""
    matrices = {(spec.features, spec.scaling): tables[spec.features, spec.scaling].raw for spec in specs}
    shared = Fits(specs, matrices, labels, splits, n_classes)
    tasks = [(fold,) for fold in range(len(splits))]
    return pool.map(fit_fold, shared, tasks, in_threads=specs[0].type != "dense")


@dataclass(frozen=True, slots=True)
class Fits:
    """What the fits of the folds share: the setting of each, rows by (features, scaling), labels, and what is fitted on."""

    specs: Sequence[HeadSpec]
    matrices: Mapping[tuple[tuple[str, ...], str], NDArray[np.float32]]
    labels: NDArray[np.int64]
    splits: Sequence[Fold]
    n_classes: int


def fit_fold(fits: Fits, fold: int) -> NDArray[np.float64]:
    """Return the probabilities of a fold's test rows."""
    spec, split = fits.specs[fold], fits.splits[fold]
    X = fits.matrices[spec.features, spec.scaling]
    head = make_head(spec).fit(X[split.train], fits.labels[split.train])
    return probabilities_of(head, X[split.test], fits.n_classes)


def probabilities_of(head: Any, X: Any, n_classes: int) -> NDArray[np.float64]:
    """Return probabilities of all classes, shape (n_samples, n_classes); 0 of those that were not fitted on."""
    probabilities = np.zeros((len(X), n_classes))
    probabilities[:, head.classes_] = head.predict_proba(X)
    return probabilities
