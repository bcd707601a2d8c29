"""Cross-validation: the settings of a head on held-out folds, nested searches, and the pools that run the folds."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import HeadstartError
from headstart.evaluate.folds import Fold, Folds
from headstart.evaluate.targets import value_of
from headstart.heads.base import outputs_of
from headstart.heads.catalogue import head_kind, make_head
from headstart.heads.grid_predictions import Outcome, Table, outcomes
from headstart.heads.head_specs import fit_weighted, is_number
from headstart.ray_cluster import RayPool
from headstart.runtime import usable_cores
from headstart.scores import ACCURACY, BY_NAME, PROBABILITY_METRICS, Criterion
from headstart.types import HeadSpec

#: Features and scaling.
Key = tuple[tuple[str, ...], str]
Tables = Mapping[Key, Table]
#: Number of a cache → its rows.
TablesOf = Callable[[int], Tables]
#: Training rows of a fold → folds of them.
InnerFolds = Callable[[NDArray[np.int64]], Folds]


class LocalPool:
    """Threads of this process, which share its memory; by default one per processor."""

    def __init__(self, n_jobs: int | None = None) -> None:
        self._n_jobs = n_jobs

    def map(
        self, function: Callable[..., Any], shared: Any, tasks: Sequence[tuple[Any, ...]], *, in_threads: bool = True
    ) -> tuple[list[Any], list[str]]:
        """Return what a function of a module returns for each task, in their order, and what it warned of.

        It is called with ``shared``, which no task may change, and the arguments of a task. ``in_threads`` says whether
        tasks may run at the same time in threads of one process.
        """
        from joblib import Parallel, delayed
        from threadpoolctl import threadpool_limits

        jobs = min(self._n_jobs or usable_cores(), len(tasks)) if in_threads else 1
        # One processor per task beats all of them on one task's small products.
        with threadpool_limits(1 if jobs > 1 else None), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            values = Parallel(n_jobs=jobs, prefer="threads")(delayed(function)(shared, *task) for task in tasks)
        return values, [str(warning.message) for warning in caught]


Pool = LocalPool | RayPool


def make_pool(engine: str, address: str | None, n_jobs: int | None) -> AbstractContextManager[Pool]:
    """Return the pool of an engine: ``local``, this process, or ``ray``, the workers of a cluster.

    By default a cluster is started on this machine, and there is one task at a time per processor. Raises HeadstartError if
    there is no engine of that name, or what it needs is not installed.
    """
    if engine == "local":
        return nullcontext(LocalPool(n_jobs))
    if engine == "ray":
        return RayPool(address, n_jobs)
    raise HeadstartError(f"Unknown engine {engine!r}. Expected local or ray.")


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting that was tried."""

    spec: HeadSpec
    #: On the held-out images of each fold, by ``metric``; NaN where the metric does not exist there
    fold_scores: tuple[float, ...]
    converged: bool = True  # whether every fit of it came to an end
    source: int = 0  # number of the cache, of several with the same images, it was tried on
    metric: str = "accuracy"  # name of the score, one of ``scores.BY_NAME``

    @property
    def score(self) -> float:
        """Mean over the folds that have one; NaN where none has."""
        found = [score for score in self.fold_scores if not math.isnan(score)]
        return sum(found) / len(found) if found else math.nan

    @property
    def gain(self) -> float:
        """The score with the sign under which more is better, to nine digits; minus infinity where there is none."""
        gain = BY_NAME[self.metric].gain(self.score)
        return -math.inf if math.isnan(gain) else round(gain, 9)


@dataclass(frozen=True, slots=True)
class Task:
    """Data shared by the folds of a cross-validation."""

    specs: Sequence[HeadSpec]  # settings of one type of head
    groups: Mapping[Key, Sequence[int]]  # the settings of each table, by their place
    tables: Tables
    labels: NDArray[Any]  # outputs of the rows of the tables; shape (n_samples,)
    splits: Sequence[Fold]  # folds of the rows of the tables
    criterion: Criterion


def cross_validate(
    specs: Sequence[HeadSpec],
    tables: Tables,
    labels: NDArray[Any],
    splits: Sequence[Fold],
    *,
    pool: Pool,
    criterion: Criterion = ACCURACY,
) -> list[Trial]:
    """Return a trial for each setting of one type of head: its score on the test rows of every split."""
    groups: dict[Key, list[int]] = {}
    for number, spec in enumerate(specs):
        groups.setdefault((spec.features, spec.scaling), []).append(number)
    for key in groups:
        tables[key].prepare(specs[0].type)  # once, before threads would do it at the same time
    shared = Task(specs, groups, {key: tables[key] for key in groups}, labels, splits, criterion)
    tasks = [(key, fold) for key in groups for fold in range(len(splits))]
    # What the fits warn of is in `converged`.
    parts, _ = pool.map(try_settings, shared, tasks, in_threads=not head_kind(specs[0].type).keras)
    scores, converged = np.zeros((len(specs), len(splits))), np.ones(len(specs), bool)
    for number, fold, value, ended in (result for part in parts for result in part):
        scores[number, fold] = value
        converged[number] &= ended
    return [
        Trial(spec, tuple(scores[i].tolist()), bool(converged[i]), metric=criterion.metric)
        for i, spec in enumerate(specs)
    ]


def try_settings(task: Task, key: Key, fold: int) -> list[tuple[int, int, float, bool]]:
    """Return setting, fold, score and whether the fit came to an end, of each setting of a table on one fold."""
    split, numbers, head_type = task.splits[fold], task.groups[key], task.specs[0].type
    params = [task.specs[number].params for number in numbers]
    seed = task.specs[0].random_state
    metric = task.criterion.metric
    wanted = metric in PROBABILITY_METRICS
    found = outcomes(head_type, task.tables[key], task.labels, split.train, split.test, params, seed, wanted)
    truth, n_outputs = task.labels[split.test], count_outputs(task.labels)

    def judged(one: Outcome) -> float:
        if metric == "accuracy":  # by far the most frequent, and the fastest without the others
            return float(np.mean(one.predicted == truth))
        return value_of(task.criterion, truth, one.outputs_of(n_outputs))

    return [(numbers[one.setting], fold, judged(one), one.converged) for one in found]


def count_outputs(labels: NDArray[Any]) -> int:
    """Return how many columns the predictions of these outputs have: one for numbers, otherwise one for each class."""
    return 1 if labels.dtype.kind == "f" else int(labels.max()) + 1


def best_trial(trials: Sequence[Trial]) -> Trial:
    """Return the trial with the best score, the first of equal ones."""
    return max(trials, key=lambda trial: trial.gain)


def best_of_each(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """Return the best trial on each cache, in the order of the caches."""
    sources = sorted({trial.source for trial in trials})
    return tuple(best_trial([trial for trial in trials if trial.source == source]) for source in sources)


def search_notes(trials: Sequence[Trial], best: Trial) -> list[str]:
    """Return what to say of a search: a setting at the edge of the grid, fits that did not end."""
    notes = []
    unfinished = sum(not trial.converged for trial in trials)
    if unfinished:
        among = "not " if best.converged else ""
        notes.append(
            f"{unfinished} of {len(trials)} settings did not converge in some fold; the best is {among}among them."
        )
    for name, value in best.spec.params.items():
        tried = sorted({trial.spec.params[name] for trial in trials if is_number(trial.spec.params[name])})
        if len(tried) > 2 and value in (tried[0], tried[-1]):
            same = [
                t
                for t in trials
                if t.source == best.source and replace(t.spec, params={**t.spec.params, name: value}) == best.spec
            ]
            runner_up = max((t.gain for t in same if t.spec.params[name] != value), default=-math.inf)
            if runner_up < best.gain:
                notes.append(
                    f"The best {name}, {value:g}, is at the edge of what was tried: {tried[0]:g} to {tried[-1]:g}."
                )
    return notes


@dataclass(frozen=True, slots=True)
class Nested:
    """How one type of head did on each fold."""

    chosen: tuple[Trial, ...]  # inside of each fold: the setting and its cache
    candidates: tuple[
        tuple[Trial, ...], ...
    ]  # inside of each fold: the best setting on each cache, which were chosen among
    #: Probabilities of each image by the head that was not fitted on it; the mean over repeats; shape (n_samples,
    #: n_classes)
    probabilities: NDArray[np.float64]
    fold_accuracy: tuple[float, ...]
    notes: tuple[str, ...] = ()  # warnings of the fits


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """A type of head on folds; its setting, and its cache, are chosen anew on the training rows of each fold."""

    specs: Sequence[
        Sequence[HeadSpec]
    ]  # settings for each cache, the simplest first; a single one in all is not searched
    tables: TablesOf  # in the same order for all caches
    labels: NDArray[Any]  # outputs of the rows of the tables
    folds: Folds
    inner: InnerFolds
    n_classes: int  # columns of the predictions
    pool: Pool
    criterion: Criterion = ACCURACY

    def run(self) -> Nested:
        """Return how the head does on each fold."""
        candidates, labels = self.candidates(), self.labels
        chosen = [best_trial(of_fold) for of_fold in candidates]
        sums, counts = np.zeros((len(labels), self.n_classes)), np.zeros(len(labels))
        accuracy, said = np.zeros(len(chosen)), list[str]()
        for source, of_source in by_source(chosen).items():
            tables, splits = self.tables(source), [self.folds.splits[fold] for fold in of_source]
            specs = [chosen[fold].spec for fold in of_source]
            matrices = {(spec.features, spec.scaling): tables[spec.features, spec.scaling].raw for spec in specs}
            table = tables[specs[0].features, specs[0].scaling]
            fitted = [table.fitted(split.train, labels) for split in splits]
            rows, all_labels = [train for train, _ in fitted], fitted[0][1]
            groups = [table.groups_of(train) for train in rows]
            shared = Fits(specs, matrices, all_labels, splits, self.n_classes, table.weights, rows, groups)
            in_threads = not head_kind(specs[0].type).keras
            parts, warned = self.pool.map(fit_fold, shared, [(n,) for n in range(len(splits))], in_threads=in_threads)
            said += warned
            for fold, split, probabilities in zip(of_source, splits, parts, strict=True):
                sums[split.test] += probabilities
                counts[split.test] += 1
                accuracy[fold] = accuracy_of(labels[split.test], probabilities)
        notes = tuple(dict.fromkeys(said))
        return Nested(tuple(chosen), tuple(candidates), sums / counts[:, None], tuple(accuracy.tolist()), notes)

    def choose(self) -> list[Trial]:
        """Return the setting and the cache that each fold's training rows choose."""
        return [best_trial(of_fold) for of_fold in self.candidates()]

    def candidates(self) -> list[tuple[Trial, ...]]:
        """Return, for each fold, the setting that its training rows choose on each cache."""
        only, *more = [spec for of_source in self.specs for spec in of_source]
        if not more:
            return [(Trial(only, ()),)] * len(self.folds.splits)
        parts = [self.inner(split.train).splits for split in self.folds.splits]
        trials, _ = self.try_all([fold for part in parts for fold in part])
        chosen, start = [], 0
        for part in parts:
            end = start + len(part)
            chosen.append(best_of_each([replace(trial, fold_scores=trial.fold_scores[start:end]) for trial in trials]))
            start = end
        return chosen

    def try_all(self, splits: Sequence[Fold]) -> tuple[list[Trial], float]:
        """Return a trial for each setting of each cache, and the seconds that they took, features in memory."""
        trials: list[Trial] = []
        seconds = 0.0
        for source, of_source in enumerate(self.specs):
            tables = self.tables(source)
            start = time.perf_counter()
            found = cross_validate(of_source, tables, self.labels, splits, pool=self.pool, criterion=self.criterion)
            seconds += time.perf_counter() - start
            trials += [replace(trial, source=source) for trial in found]
        return trials, seconds


def by_source(chosen: Sequence[Trial]) -> dict[int, list[int]]:
    """Return the folds that chose each cache, so that one cache's rows at a time are needed."""
    sources = sorted({one.source for one in chosen})
    return {source: [fold for fold, one in enumerate(chosen) if one.source == source] for source in sources}


@dataclass(frozen=True, slots=True)
class Fits:
    """Data shared by the fits of the folds: setting of each, rows by (features, scaling), labels, folds."""

    specs: Sequence[HeadSpec]
    matrices: Mapping[Key, NDArray[np.float32]]
    labels: NDArray[Any]
    splits: Sequence[Fold]
    n_classes: int
    weights: NDArray[np.float64] | None  # of the rows in a fit; None for ones; shape (n_samples,)
    fitted: Sequence[NDArray[np.int64]]  # rows to fit on in each fold: its training rows, and their crops
    groups: Sequence[NDArray[np.int64] | None]  # images of these rows; None where every row is an image


def fit_fold(fits: Fits, fold: int) -> NDArray[np.float64]:
    """Return the probabilities of a fold's test rows."""
    spec, split = fits.specs[fold], fits.splits[fold]
    X = fits.matrices[spec.features, spec.scaling]
    train = fits.fitted[fold]
    weights = None if fits.weights is None else fits.weights[train]
    head = fit_weighted(make_head(spec), X[train], fits.labels[train], weights, fits.groups[fold])
    return outputs_of(head, X[split.test], fits.n_classes)


def accuracy_of(y_true: NDArray[Any], outputs: NDArray[np.float64]) -> float:
    """Return the share of classes that are predicted right; NaN of numbers."""
    return math.nan if y_true.dtype.kind == "f" else float((outputs.argmax(axis=1) == y_true).mean())
