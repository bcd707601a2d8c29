"""Ensembles: which heads, each on a cache, are averaged, chosen by predictions for rows that they were not fitted on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.reader import FeatureCache
from headstart.errors import DataError
from headstart.evaluate.folds import Fold
from headstart.evaluate.joined_caches import AnyCache, join_caches
from headstart.evaluate.targets import target_of
from headstart.heads.catalogue import MEMBER_TYPES
from headstart.heads.head_specs import by_cache, numbered
from headstart.scores import ACCURACY, BY_NAME, Criterion
from headstart.selection.cross_validation import (
    Fits,
    Pool,
    Tables,
    Trial,
    best_of_each,
    by_source,
    fit_fold,
    make_pool,
)
from headstart.selection.search import (
    N_SPLITS,
    SearchResult,
    candidates,
    make_tables,
    most_images,
    n_columns,
    sample,
    search_folds,
    search_head,
)
from headstart.types import ENSEMBLE, HeadSpec

#: Number of a cache, settings → tables with those that the settings need.
ReadTables = Callable[[int, Sequence[HeadSpec]], Tables]

#: Heads on a cache that may become members: this many in all, and two of each cache at least.
MAX_CANDIDATES = 6

#: Members at most: further ones hardly change a mean, and each costs time for every image.
MAX_MEMBERS = 5


def shortlist(trials: Sequence[Trial]) -> list[Trial]:
    """Return the heads that may become members: of each cache the same number, those with the best scores, best first.

    ``trials`` are the best of each type of head on each cache. Raises DataError if there are fewer than two.
    """
    able = [trial for trial in trials if trial.spec.type in MEMBER_TYPES and trial.fold_scores]
    if len(able) < 2:
        raise DataError(
            f"An ensemble needs two heads at least, of those whose settings are searched: {', '.join(MEMBER_TYPES)}."
        )
    sources = sorted({trial.source for trial in able})
    of_each = max(2, math.ceil(MAX_CANDIDATES / len(sources)))
    best_first = sorted(able, key=lambda trial: -trial.gain)
    return [trial for source in sources for trial in [one for one in best_first if one.source == source][:of_each]]


def predicted(
    trials: Sequence[Trial],
    tables: ReadTables,
    labels: NDArray[np.int64],
    splits: Sequence[Fold],
    n_classes: int,
    pool: Pool,
) -> NDArray[np.float64]:
    """Return the probabilities that each head gives the test rows of each split, shape (n_trials, n_rows, n_classes).

    Every row by heads that were not fitted on it, the mean where it is tested several times; zeros for rows that are in no
    test part.
    """
    found, counts = np.zeros((len(trials), len(labels), n_classes)), np.zeros(len(labels))
    for split in splits:
        counts[split.test] += 1
    for source, numbers in by_source(trials).items():
        specs = [trials[number].spec for number in numbers]
        own = tables(source, specs)
        matrices = {(spec.features, spec.scaling): own[spec.features, spec.scaling].raw for spec in specs}
        pairs = [(number, split) for number in numbers for split in splits]
        weights = own[specs[0].features, specs[0].scaling].weights
        of_pairs = [trials[number].spec for number, _ in pairs]
        of_splits = [split for _, split in pairs]
        rows, no_groups = [split.train for split in of_splits], [None] * len(of_splits)
        fits = Fits(of_pairs, matrices, labels, of_splits, n_classes, weights, rows, no_groups)
        parts, _ = pool.map(fit_fold, fits, [(place,) for place in range(len(pairs))])
        for (number, split), probabilities in zip(pairs, parts, strict=True):
            found[number, split.test] += probabilities
    return found / np.maximum(counts, 1)[:, None]


def best_mean(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64], criterion: Criterion = ACCURACY
) -> list[int]:
    """Return the heads whose mean is best by a criterion, as far as adding one after the other finds them.

    First the best head, then the one with which the mean is best, as long as it gets better: Caruana et al., "Ensemble
    selection from libraries of models", ICML 2004, without repeats. ``probabilities`` have shape
    (n_heads, n_rows, n_classes).
    """
    chosen: list[int] = []
    best, total = (-math.inf, -math.inf), np.zeros(probabilities.shape[1:])
    while len(chosen) < min(MAX_MEMBERS, len(probabilities)):
        others = [number for number in range(len(probabilities)) if number not in chosen]
        found = {
            number: judged((total + probabilities[number]) / (len(chosen) + 1), truth, criterion) for number in others
        }
        added = max(others, key=found.__getitem__)
        if found[added] <= best:
            break
        chosen.append(added)
        best, total = found[added], total + probabilities[added]
    return chosen


def judged(probabilities: NDArray[np.float64], truth: NDArray[np.int64], criterion: Criterion) -> tuple[float, float]:
    """Return the score of predictions, more is better, and minus their log-loss, which decides between equal scores."""
    found = target_of(criterion).influences(truth, probabilities, criterion.positive)
    gain = BY_NAME[criterion.metric].gain(found[criterion.metric].value)
    return (-math.inf if math.isnan(gain) else round(gain, 9)), -round(found["log_loss"].value, 9)


def choose_members(
    trials: Sequence[Trial],
    tables: ReadTables,
    labels: NDArray[np.int64],
    splits: Sequence[Fold],
    pool: Pool,
    criterion: Criterion = ACCURACY,
) -> list[Trial]:
    """Return the members of an ensemble, chosen on the test rows of some splits; raise as :func:`shortlist` does."""
    candidates = shortlist(trials)
    rows = np.unique(np.concatenate([split.test for split in splits]))
    probabilities = predicted(candidates, tables, labels, splits, int(labels.max()) + 1, pool)
    return [candidates[number] for number in best_mean(probabilities[:, rows], labels[rows], criterion)]


def ensemble_spec(
    members: Sequence[Trial], caches: Sequence[FeatureCache], random_state: int
) -> tuple[HeadSpec, list[int]]:
    """Return the spec of an ensemble, and the numbers of the caches that it needs, ascending from 0.

    A member's ``source`` is the number of its cache, or that of caches for all of them side by side. The features of
    the ensemble are those of all members, each once, on a join of the caches where there are several.
    """
    of_each = [features_by_cache(member, len(caches)) for member in members]
    used = sorted({number for features in of_each for number in features})
    names = {
        number: list(dict.fromkeys(name for features in of_each for name in features.get(number, ())))
        for number in used
    }
    places: dict[tuple[int, str], list[int]] = {}
    widths, end = [], 0
    for number in used:
        first = end
        for name in names[number]:
            places[number, name] = [end, end := end + n_columns(caches[number], (name,))]
        widths.append(end - first)
    joined = len(used) > 1
    described = [
        described_member(member.spec, {used.index(number): own for number, own in features.items()}, joined=joined)
        | {"columns": [places[number, name] for number, own in features.items() for name in own]}
        for member, features in zip(members, of_each, strict=True)
    ]
    features = numbered([names[number] for number in used]) if joined else tuple(names[used[0]])
    params = {"members": described}
    return HeadSpec(ENSEMBLE, features, "none", random_state, params, tuple(widths) if joined else ()), used


def features_by_cache(member: Trial, n_caches: int) -> dict[int, tuple[str, ...]]:
    """Return the features of a member on each cache that it needs, by the number of the cache, ascending."""
    if member.source < n_caches:
        return {member.source: member.spec.features}
    return dict(enumerate(by_cache(member.spec.features, n_caches)))


def described_member(spec: HeadSpec, features: dict[int, tuple[str, ...]], *, joined: bool) -> dict[str, Any]:
    """Return what :class:`headstart.heads.ensemble.EnsembleHead` needs of a member, its columns apart.

    ``features`` are those of each cache of the ensemble, by its number from 0.
    """
    n_caches = max(features) + 1
    names = numbered([features.get(number, ()) for number in range(n_caches)]) if joined else spec.features
    return {
        "type": spec.type,
        "features": list(names),
        "scaling": spec.scaling,
        "random_state": spec.random_state,
        "params": dict(spec.params),
        "widths": list(spec.widths),
    }


def search_ensemble(
    caches: Sequence[FeatureCache],
    rows: Sequence[NDArray[np.int64]],
    *,
    join: bool = False,
    features: Sequence[str] | None = None,
    scaling: str | None = None,
    strata: NDArray[np.int64] | None = None,
    engine: str = "local",
    address: str | None = None,
    random_state: int = 0,
    criterion: Criterion = ACCURACY,
) -> SearchResult:
    """Return the members of an ensemble, chosen by cross-validation on training rows of several caches.

    ``rows`` are those of each cache, of the same images in the same order, those of the first ascending; with ``join``,
    members may also be heads on all caches side by side. Other parameters, and what is raised, are those of
    :func:`headstart.selection.search.search_head`.
    """
    given: dict[str, Any] = {"features": features, "scaling": scaling, "params": {}, "random_state": random_state}
    sources: list[AnyCache] = [*caches, *([join_caches(caches, rows[0])] if join else [])]
    of_source = [*rows, *([rows[0]] if join else [])]
    limit = min(most_images(source, candidates(source, name, **given)) for name in MEMBER_TYPES for source in sources)
    chosen, notes = sample(caches[0].labels, rows[0], limit, random_state)
    own = [part[np.searchsorted(rows[0], chosen)] for part in of_source]
    searches = [
        search_head(
            caches[0],
            name,
            own[0],
            others=list(zip(sources, own, strict=True))[1:],
            strata=strata,
            engine=engine,
            address=address,
            criterion=criterion,
            **given,
        )
        for name in MEMBER_TYPES
    ]
    best = [trial for found in searches for trial in best_of_each(found.trials)]
    folds = search_folds(caches[0], chosen, None, strata, N_SPLITS, random_state)
    weights = None if caches[0].weights is None else caches[0].weights[chosen]
    start = time.perf_counter()
    with make_pool(engine, address, None) as pool:
        members = choose_members(
            best,
            lambda source, specs: make_tables(sources[source], specs, own[source], weights),
            caches[0].labels[chosen],
            folds.splits,
            pool,
            criterion,
        )
    spec, used = ensemble_spec(members, caches, random_state)
    return SearchResult(
        spec=spec,
        trials=tuple(trial for found in searches for trial in found.trials),
        folds=folds.description,
        seconds=sum(found.seconds for found in searches) + time.perf_counter() - start,
        notes=(*notes, *folds.notes),
        used=tuple(used),
    )
