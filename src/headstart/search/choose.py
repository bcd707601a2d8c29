"""Search a head: candidates, folds, trials, the best of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.criteria import ACCURACY, Criterion, metric_named
from headstart.evaluate.folds import make_folds
from headstart.search.pool import make_pool
from headstart.search.settings import N_SPLITS, candidates, make_tables, most_images, sample
from headstart.search.trials import Trial, best_trial, cross_validate, search_notes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.cache.store import FeatureCache
    from headstart.schema import HeadSpec


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
    source : int
        Which of several caches of the same images to take.
    """

    spec: HeadSpec
    trials: tuple[Trial, ...]
    folds: str
    seconds: float
    notes: tuple[str, ...] = ()
    source: int = 0


def search_head(
    cache: FeatureCache,
    head_type: str,
    rows: NDArray[np.int64],
    *,
    features: Sequence[str] | None = None,
    scaling: str | None = None,
    params: Mapping[str, Any] | None = None,
    others: Sequence[tuple[FeatureCache, NDArray[np.int64]]] = (),
    units: NDArray[np.intp] | None = None,
    n_splits: int = N_SPLITS,
    n_jobs: int | None = None,
    engine: str = "local",
    address: str | None = None,
    random_state: int = 0,
    criterion: Criterion = ACCURACY,
) -> SearchResult:
    """Return the setting of a head that predicts held-out images best, by a cross-validated score.

    Of equal ones the first wins: the first cache, fewer features, then the order of the catalogue's grid.

    Parameters
    ----------
    cache : FeatureCache
        Features and labels.
    head_type : str
        Name in the catalogue.
    rows : ndarray of shape (n_rows,), int64
        Training rows, ascending, all labelled. No other row is read.
    features, scaling, params
        What is not to be searched.
    others : sequence of (FeatureCache, rows), optional
        Other caches, and their rows of the same images in the same order (evaluate/same_images.py): input sizes, layers and
        whatever else differs between them are chosen too.
    units : ndarray of shape (n_images,), int, optional
        Rows of one unit stay together, beside those of the same bytes or group.
    n_splits : int
        Folds; fewer where a class has fewer images.
    n_jobs : int, optional
        Folds at a time; the default is one per processor.
    engine, address : str, optional
        Who fits the folds: this process, or the workers of a cluster (search/pool.py).
    random_state : int
        Seeds the folds, and what is random in the head.
    criterion : Criterion
        The score: ``accuracy``, ``balanced_accuracy``, ``f1_macro``, ``roc_auc_ovr``, ``average_precision`` or ``log_loss``.

    Raises
    ------
    DataError
        If there are too few images to divide.
    HeadstartError
        If there is no such head, feature, scaling, parameter or metric.
    """
    metric_named(criterion.metric)
    given: dict[str, Any] = {
        "features": features, "scaling": scaling, "params": params or {}, "random_state": random_state
    }  # fmt: skip
    sources = [
        (source, source_rows, candidates(source, head_type, **given))
        for source, source_rows in [(cache, rows), *others]
    ]
    limit = min(most_images(source, specs) for source, _, specs in sources)
    chosen, notes = sample(cache.labels, rows, limit, random_state)
    labels, sha256, groups = cache.labels[chosen], cache.sha256, cache.groups
    folds = make_folds(
        labels,
        n_splits=n_splits,
        sha256=[sha256[row] for row in chosen.tolist()],
        groups=[groups[row] for row in chosen.tolist()],
        units=None if units is None else units[chosen],
        random_state=random_state,
        class_names=cache.class_names,
    )
    trials: list[Trial] = []
    seconds = 0.0
    with make_pool(engine, address, n_jobs) as pool:
        for number, (source, source_rows, specs) in enumerate(sources):
            tables = make_tables(source, specs, source_rows[np.searchsorted(rows, chosen)])
            start = time.perf_counter()
            found = cross_validate(specs, tables, labels, folds.splits, pool=pool, criterion=criterion)
            seconds += time.perf_counter() - start
            trials += [replace(trial, source=number) for trial in found]
    best = best_trial(trials)
    return SearchResult(
        spec=best.spec,
        trials=tuple(trials),
        folds=folds.description,
        seconds=seconds,
        notes=(*notes, *folds.notes, *search_notes(trials, best)),
        source=best.source,
    )
