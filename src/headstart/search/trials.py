"""How well settings of one type of head predict held-out images, and which is best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.criteria import ACCURACY, PROBABILITY_METRICS, Criterion, metric_named
from headstart.evaluate.folds import Fold
from headstart.evaluate.metrics import metric_values
from headstart.heads.trials import Outcome, Table, outcomes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.schema import HeadSpec
    from headstart.search.pool import Pool


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting that was tried.

    Attributes
    ----------
    spec : HeadSpec
        The setting.
    fold_scores : tuple of float
        On the held-out images of each fold, by ``metric``; NaN where the metric does not exist there.
    converged : bool
        Whether every fit of it came to an end.
    source : int
        Which of several caches of the same images it was tried on.
    metric : str
        Name of the score, one of ``criteria.CHOICE_METRICS``.
    """

    spec: HeadSpec
    fold_scores: tuple[float, ...]
    converged: bool = True
    source: int = 0
    metric: str = "accuracy"

    @property
    def score(self) -> float:
        """Mean over the folds that have one; NaN where none has."""
        found = [score for score in self.fold_scores if not math.isnan(score)]
        return sum(found) / len(found) if found else math.nan

    @property
    def gain(self) -> float:
        """The score with the sign under which more is better, to nine digits; minus infinity where there is none."""
        gain = metric_named(self.metric).gain(self.score)
        return -math.inf if math.isnan(gain) else round(gain, 9)


@dataclass(frozen=True, slots=True)
class Task:
    """What the folds of a cross-validation share.

    Attributes
    ----------
    specs : sequence of HeadSpec
        Settings of one type of head.
    groups : mapping of (features, scaling) to sequence of int
        The settings of each table, by their place.
    tables : mapping of (features, scaling) to Table
        Their rows.
    labels : ndarray of shape (n_samples,), int
        Of the tables' rows.
    splits : sequence of Fold
        Of the tables' rows.
    criterion : Criterion
        By which the settings are judged.
    """

    specs: Sequence[HeadSpec]
    groups: Mapping[tuple[tuple[str, ...], str], Sequence[int]]
    tables: Mapping[tuple[tuple[str, ...], str], Table]
    labels: NDArray[np.int64]
    splits: Sequence[Fold]
    criterion: Criterion


def cross_validate(
    specs: Sequence[HeadSpec],
    tables: Mapping[tuple[tuple[str, ...], str], Table],
    labels: NDArray[np.int64],
    splits: Sequence[Fold],
    *,
    pool: Pool,
    criterion: Criterion = ACCURACY,
) -> list[Trial]:
    """Return a trial for each setting of one type of head: its score on the test rows of every split.

    Parameters
    ----------
    specs : sequence of HeadSpec
        Settings of one type of head.
    tables : mapping of (features, scaling) to Table
        Their rows.
    labels : ndarray of shape (n_samples,), int
        Of the tables' rows.
    splits : sequence of Fold
        Of the tables' rows.
    pool : Pool
        Runs the folds; in threads, one at a time where a head runs on Keras.
    criterion : Criterion
        The score.
    """
    groups: dict[tuple[tuple[str, ...], str], list[int]] = {}
    for number, spec in enumerate(specs):
        groups.setdefault((spec.features, spec.scaling), []).append(number)
    for key in groups:
        tables[key].prepare(specs[0].type)  # once, before threads would do it at the same time
    shared = Task(specs, groups, {key: tables[key] for key in groups}, labels, splits, criterion)
    tasks = [(key, fold) for key in groups for fold in range(len(splits))]
    # What the fits warn of is in `converged`.
    parts, _ = pool.map(try_settings, shared, tasks, in_threads=specs[0].type != "dense")
    scores, converged = np.zeros((len(specs), len(splits))), np.ones(len(specs), bool)
    for number, fold, value, ended in (result for part in parts for result in part):
        scores[number, fold] = value
        converged[number] &= ended
    return [
        Trial(spec, tuple(scores[i].tolist()), bool(converged[i]), metric=criterion.metric)
        for i, spec in enumerate(specs)
    ]


def try_settings(task: Task, key: tuple[tuple[str, ...], str], fold: int) -> list[tuple[int, int, float, bool]]:
    """Return setting, fold, score and whether the fit came to an end, of each setting of a table on one fold."""
    split, numbers, head_type = task.splits[fold], task.groups[key], task.specs[0].type
    params = [task.specs[number].params for number in numbers]
    seed = task.specs[0].random_state
    metric, positive = task.criterion.metric, task.criterion.positive
    wanted = metric in PROBABILITY_METRICS
    found = outcomes(head_type, task.tables[key], task.labels, split.train, split.test, params, seed, wanted)
    truth, n_classes = task.labels[split.test], int(task.labels.max()) + 1

    def judged(one: Outcome) -> float:
        if metric == "accuracy":  # by far the most frequent, and the fastest without the others
            return float(np.mean(one.predicted == truth))
        return metric_values(truth, one.probabilities_of(n_classes), positive)[metric]

    return [(numbers[one.setting], fold, judged(one), one.converged) for one in found]


def best_trial(trials: Sequence[Trial]) -> Trial:
    """Return the trial with the best score, the first of equal ones."""
    return max(trials, key=lambda trial: trial.gain)


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


def is_number(value: Any) -> bool:
    """Return whether a value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)
