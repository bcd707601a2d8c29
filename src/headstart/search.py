"""Choose the setting of a head by cross-validation, on training images alone.

What is chosen here is never scored here: who reports a score holds out images that this module does not see.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.evaluate.folds import Fold, make_folds
from headstart.heads.catalogue import default_spec, head_kind
from headstart.heads.transforms import design_matrix
from headstart.heads.trials import Table, outcomes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.cache.store import FeatureCache
    from headstart.schema import HeadSpec

#: Features tried where none are named, the simplest first: on photographs the last block's average is best, on textures (as
#: solar cells) the fourth block joined to it is (benchmarks/results).
SEARCHED_FEATURES = (("avg",), ("block4_conv3", "avg"))

#: Images a search looks at, at most; drawn by class. Kernels take time and memory that grow with their square.
MAX_IMAGES = 20_000
MAX_KERNEL_IMAGES = 5_000

#: Values of a table at most, 400 MB: of flattened maps some 4,000 images are enough to choose by.
MAX_VALUES = 100_000_000

#: Folds of a search.
N_SPLITS = 5


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting that was tried.

    Attributes
    ----------
    spec : HeadSpec
        The setting.
    fold_accuracy : tuple of float
        On the held-out images of each fold.
    converged : bool
        Whether every fit of it came to an end.
    """

    spec: HeadSpec
    fold_accuracy: tuple[float, ...]
    converged: bool = True

    @property
    def accuracy(self) -> float:
        """Mean over the folds."""
        return float(np.mean(self.fold_accuracy))


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    Attributes
    ----------
    spec : HeadSpec
        The setting to take.
    trials : tuple of Trial
        All settings, in the order of the grid: the simplest first.
    folds : str
        How the images were divided, in words.
    seconds : float
        That it took, features in memory.
    notes : tuple of str
        What a reader must know, in words.
    """

    spec: HeadSpec
    trials: tuple[Trial, ...]
    folds: str
    seconds: float
    notes: tuple[str, ...] = ()


def search_head(
    cache: FeatureCache,
    head_type: str,
    rows: NDArray[np.int64],
    *,
    features: Sequence[str] | None = None,
    scaling: str | None = None,
    params: Mapping[str, Any] | None = None,
    units: NDArray[np.intp] | None = None,
    n_splits: int = N_SPLITS,
    n_jobs: int | None = None,
    random_state: int = 0,
) -> SearchResult:
    """Return the setting of a head that predicts held-out images best, by cross-validated accuracy.

    Of equal ones the first wins: fewer features, then the order of the catalogue's grid.

    Parameters
    ----------
    cache : FeatureCache
        Features and labels.
    head_type : str
        Name in the catalogue.
    rows : ndarray of shape (n_rows,), int64
        Training rows, all labelled. No other row is read.
    features, scaling, params
        What is not to be searched.
    units : ndarray of shape (n_images,), int, optional
        Rows of one unit stay together, beside those of the same bytes or group.
    n_splits : int
        Folds; fewer where a class has fewer images.
    n_jobs : int, optional
        Folds at a time; the default is one per processor.
    random_state : int
        Seeds the folds, and what is random in the head.

    Raises
    ------
    DataError
        If there are too few images to divide.
    HeadstartError
        If there is no such head, feature, scaling or parameter.
    """
    specs = candidates(
        cache, head_type, features=features, scaling=scaling, params=params or {}, random_state=random_state
    )
    chosen, notes = sample(cache.labels, rows, most_images(cache, specs), random_state)
    tables = make_tables(cache, specs, chosen)
    labels = cache.labels[chosen]
    start = time.perf_counter()
    folds = make_folds(
        labels,
        n_splits=n_splits,
        sha256=[cache.sha256[row] for row in chosen],
        groups=[cache.groups[row] for row in chosen],
        units=None if units is None else units[chosen],
        random_state=random_state,
    )
    trials = cross_validate(specs, tables, labels, folds.splits, n_jobs=n_jobs)
    best = best_trial(trials)
    return SearchResult(
        spec=best.spec,
        trials=tuple(trials),
        folds=folds.description,
        seconds=time.perf_counter() - start,
        notes=(*notes, *folds.notes, *search_notes(trials, best)),
    )


def candidates(
    cache: FeatureCache,
    head_type: str,
    *,
    features: Sequence[str] | None,
    scaling: str | None,
    params: Mapping[str, Any],
    random_state: int,
) -> list[HeadSpec]:
    """Return the settings to try, the simplest first: the catalogue's grid, but for what is given."""
    kind = head_kind(head_type)
    grid = {name: values for name, values in kind.grid.items() if name not in params}
    known = {"avg", *cache.recipe.pooled_layers}
    searched = [names for names in SEARCHED_FEATURES if known.issuperset(names)]
    default = [kind.features] if kind.features != ("avg",) else searched
    return [
        default_spec(
            head_type,
            features=names,
            scaling=scaling,
            random_state=random_state,
            params={**params, **dict(zip(grid, values, strict=True))},
        )
        for names in ([tuple(features)] if features else default)
        for values in product(*grid.values())
    ]


def most_images(cache: FeatureCache, specs: Sequence[HeadSpec]) -> int:
    """Return how many images a search over these settings can bear."""
    widest = specs[-1].features  # candidates come with the fewest features first
    width: int = design_matrix(cache.batches([0]), widest, pooled_layers=cache.recipe.pooled_layers).shape[1]
    limit = MAX_KERNEL_IMAGES if specs[0].type == "rbf-svm" else MAX_IMAGES
    return min(limit, max(1, MAX_VALUES // width))


def sample(
    labels: NDArray[np.int64], rows: NDArray[np.int64], limit: int, random_state: int
) -> tuple[NDArray[np.int64], list[str]]:
    """Return the rows that a search looks at, ascending, and what to say of it: as many as it can bear, drawn by class."""
    if len(rows) <= limit:
        return rows, []
    rng = np.random.default_rng(random_state)
    kept = []
    for label in np.unique(labels[rows]):
        members = rows[labels[rows] == label]
        wanted = min(len(members), max(N_SPLITS, round(limit * len(members) / len(rows))))
        kept.append(rng.choice(members, wanted, replace=False))
    chosen = np.sort(np.concatenate(kept))
    return chosen, [f"The setting was chosen on {len(chosen):,} of {len(rows):,} training images, drawn by class."]


def make_tables(
    cache: FeatureCache, specs: Sequence[HeadSpec], rows: NDArray[np.int64]
) -> dict[tuple[tuple[str, ...], str], Table]:
    """Return the table of each choice of features and scaling."""
    matrices: dict[tuple[str, ...], NDArray[np.float32]] = {}
    tables = {}
    for spec in specs:
        if spec.features not in matrices:
            matrices[spec.features] = design_matrix(
                cache.batches(rows), spec.features, pooled_layers=cache.recipe.pooled_layers, n_samples=len(rows)
            )
        tables[spec.features, spec.scaling] = Table(matrices[spec.features], spec.features, spec.scaling)
    return tables


def cross_validate(
    specs: Sequence[HeadSpec],
    tables: Mapping[tuple[tuple[str, ...], str], Table],
    labels: NDArray[np.int64],
    splits: Sequence[Fold],
    *,
    n_jobs: int | None = None,
) -> list[Trial]:
    """Return a trial for each setting of one type of head: its accuracy on the test rows of every split.

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
    n_jobs : int, optional
        Folds at a time, in threads; the default is one per processor, and one for a head that runs on Keras.
    """
    from joblib import Parallel, delayed
    from threadpoolctl import threadpool_limits

    groups: dict[tuple[tuple[str, ...], str], list[int]] = {}
    for number, spec in enumerate(specs):
        groups.setdefault((spec.features, spec.scaling), []).append(number)
    tasks = [(key, fold) for key in groups for fold in range(len(splits))]
    for key in groups:
        tables[key].prepare(specs[0].type)  # once, before threads would do it at the same time
    jobs = min(n_jobs or processors(), len(tasks)) if specs[0].type != "dense" else 1

    def run(key: tuple[tuple[str, ...], str], fold: int) -> list[tuple[int, int, float, bool]]:
        split, numbers = splits[fold], groups[key]
        found = outcomes(
            specs[0].type,
            tables[key],
            labels,
            split.train,
            split.test,
            [specs[number].params for number in numbers],
            specs[0].random_state,
        )
        truth = labels[split.test]
        return [(numbers[one.setting], fold, float(np.mean(one.predicted == truth)), one.converged) for one in found]

    # One processor per fold beats all of them on one fold's small products; what the fits warn of is in `converged`.
    with threadpool_limits(1 if jobs > 1 else None), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = Parallel(n_jobs=jobs, prefer="threads")(delayed(run)(*task) for task in tasks)
    accuracy, converged = np.zeros((len(specs), len(splits))), np.ones(len(specs), bool)
    for number, fold, value, ended in (result for part in parts for result in part):
        accuracy[number, fold] = value
        converged[number] &= ended
    return [Trial(spec, tuple(accuracy[i].tolist()), bool(converged[i])) for i, spec in enumerate(specs)]


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def best_trial(trials: Sequence[Trial]) -> Trial:
    """Return the trial with the best accuracy, the first of equal ones."""
    return trials[int(np.argmax([round(trial.accuracy, 9) for trial in trials]))]


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
            same = [t for t in trials if replace(t.spec, params={**t.spec.params, name: value}) == best.spec]
            runner_up = max((t.accuracy for t in same if t.spec.params[name] != value), default=0.0)
            if runner_up < best.accuracy:
                notes.append(
                    f"The best {name}, {value:g}, is at the edge of what was tried: {tried[0]:g} to {tried[-1]:g}."
                )
    return notes


def is_number(value: Any) -> bool:
    """Return whether a value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)
