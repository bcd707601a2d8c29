"""Compare heads on the same folds of one cache."""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.benchmark.costs import head_milliseconds, saved_bytes, watched_memory
from headstart.benchmark.curve import learning_curve
from headstart.benchmark.nested import nested, probabilities_of
from headstart.benchmark.verdict import ranked, recommend
from headstart.cache.store import FeatureCache, open_cache
from headstart.errors import DataError
from headstart.evaluate.folds import Folds, make_folds
from headstart.evaluate.intervals import BOOTSTRAP_METHOD, bootstrap_metrics, paired_differences
from headstart.evaluate.leaks import find_leaks
from headstart.evaluate.metrics import score
from headstart.evaluate.neighbours import near_units
from headstart.evaluate.significance import TEST_METHOD, compare
from headstart.evaluate.splits import connected_units, joined_units, labelled, split_by_column
from headstart.heads.bundle import Bundle, versions
from headstart.heads.catalogue import HEAD_TYPES, default_spec, make_head
from headstart.heads.transforms import design_matrix
from headstart.images.discover import SPLIT_NAMES
from headstart.report.comparison import Comparison, Cost, HeadResult
from headstart.search import (
    N_SPLITS,
    best_trial,
    candidates,
    cross_validate,
    is_number,
    make_tables,
    processors,
    search_notes,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.heads.trials import Table
    from headstart.schema import Estimate, HeadSpec, Score

#: What is there only to be beaten.
MAJORITY = "majority"
BASELINES = ("nearest-class-mean", MAJORITY)

#: Heads whose setting is searched unless asked otherwise; a dense head takes too long.
SEARCHED = frozenset(HEAD_TYPES) - {"dense"}


def silent(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """How heads are compared; the defaults are the command's.

    Attributes
    ----------
    heads : tuple of str
        Names in the catalogue, or ``majority``.
    features : tuple of str, optional
        For every head; the default is searched (search.py), and each head's own where nothing is.
    scaling : str, optional
        For every head; the default is each head's own.
    n_splits, n_repeats : int
        Folds, and how often they are drawn anew.
    held_out : str, optional
        Split that is never fitted on, and scored once at the end; the default is ``test`` or ``validation`` where there is
        one beside ``train``. An empty name uses every image for the folds.
    near_duplicates : bool
        Keep images that look the same together, beside those of the same bytes or group.
    learning_curve : bool
        Accuracy against images per class as well.
    random_state : int
        Seeds everything random.
    n_jobs : int, optional
        Folds at a time; the default is one per processor.
    """

    heads: tuple[str, ...] = (*(name for name in HEAD_TYPES if name not in BASELINES), *BASELINES)
    features: tuple[str, ...] | None = None
    scaling: str | None = None
    n_splits: int = N_SPLITS
    n_repeats: int = 1
    held_out: str | None = None
    near_duplicates: bool = True
    learning_curve: bool = False
    random_state: int = 0
    n_jobs: int | None = None


@dataclass(slots=True)
class Bench:
    """What all heads of one comparison share."""

    cache: FeatureCache
    options: CompareOptions
    rows: NDArray[np.int64]
    held_out: NDArray[np.int64]
    units: NDArray[np.intp]
    folds: Folds
    backbone_ms: float | None
    tables: dict[tuple[tuple[str, ...], str], Table] = field(default_factory=dict)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Of the rows that are fitted on."""
        return self.cache.labels[self.rows]

    def metrics(self, probabilities: NDArray[np.float64]) -> dict[str, Estimate]:
        """Return the scores of out-of-fold probabilities, as they are stored: in float32."""
        stored = probabilities.astype(np.float32)
        return bootstrap_metrics(self.labels, stored, self.units, random_state=self.options.random_state)


def compare_heads(
    cache: str | Path,
    options: CompareOptions | None = None,
    *,
    backbone_ms: float | None = None,
    progress: Callable[[str], None] = silent,
    **overrides: Any,
) -> Comparison:
    """Return how heads compare on the same folds: scores with intervals, tests, costs, and which one to take.

    Each head's setting is chosen anew inside of every fold, so no image has a part in choosing what it scores. Images of
    the same bytes or group, and those that look the same, are never on both sides.

    Parameters
    ----------
    cache : str or Path
        A cache with labels.
    options : CompareOptions, optional
        What to compare, and how; keyword arguments override its fields.
    backbone_ms : float, optional
        Milliseconds per image of the frozen backbone here (benchmark/costs.py), for the latency from pixels.
    progress : callable
        Told in words what goes on.

    Raises
    ------
    DataError
        If there are no labels, too few images, or no such split.
    HeadstartError
        If there is no such head, feature or scaling.
    """
    options = replace(options or CompareOptions(), **overrides)
    start = time.perf_counter()
    with open_cache(Path(cache)) as opened:
        bench, leaks, held_out = prepare(opened, options, backbone_ms)
        results, left_out = [], {}
        for name in options.heads:
            progress(name)
            try:
                results.append(compare_one(bench, name))
            except DataError as error:  # as of a class with too few images for this head alone
                left_out[name] = str(error)
        if not results:
            raise DataError(f"No head could be fitted. {next(iter(left_out.values()), '')}")
        results = with_differences(bench, ranked(results))
        recommended, sentence = recommend(results)
        return Comparison(
            cache=str(cache),
            recipe=opened.recipe,
            class_names=opened.class_names,
            y_true=bench.labels,
            paths=[opened.paths[row] for row in bench.rows],
            folds=bench.folds.description,
            interval=BOOTSTRAP_METHOD,
            test=TEST_METHOD,
            heads=tuple(results),
            recommended=recommended,
            recommendation=sentence,
            leaks=(*leaks, *bench.folds.notes),
            left_out=left_out,
            held_out=held_out,
            machine=machine(),
            versions=versions(),
            seconds=time.perf_counter() - start,
        )


def prepare(cache: FeatureCache, options: CompareOptions, backbone_ms: float | None) -> tuple[Bench, list[str], str]:
    """Return what all heads share, the leaks between given splits, and how the held-out images were chosen."""
    pooled = last_block(cache) if options.near_duplicates else None
    units = connected_units(np.arange(cache.n_images), cache.sha256, cache.groups)
    if pooled is not None:
        units = joined_units(units, near_units(pooled))
    rows, held_out, description = divide(cache, units, scored_split(cache, options.held_out))
    leaks = find_leaks(cache.labels, cache.splits, sha256=cache.sha256, groups=cache.groups, pooled=pooled)
    folds = make_folds(
        cache.labels[rows],
        n_splits=options.n_splits,
        n_repeats=options.n_repeats,
        units=units[rows],
        random_state=options.random_state,
        class_names=cache.class_names,
    )
    bench = Bench(cache, options, rows, held_out, units[rows], folds, backbone_ms)
    return bench, [leak.sentence for leak in leaks], description


def last_block(cache: FeatureCache) -> NDArray[np.float32]:
    """Return the averages of the last pooled layer, by which images look the same; else of the stored layer."""
    layers = cache.recipe.pooled_layers
    if not layers:
        return design_matrix(cache.batches(), ("avg",), pooled_layers=(), n_samples=cache.n_images)
    return cache.pooled()[:, np.array(cache.pooled_column_layer, object) == layers[-1]]


def scored_split(cache: FeatureCache, held_out: str | None) -> str:
    """Return the split that is scored at the end; empty for none."""
    names = set(cache.splits)
    if held_out is None:
        return next((name for name in ("test", "validation") if name in names and "train" in names), "")
    return SPLIT_NAMES.get(held_out.lower(), held_out)


def divide(
    cache: FeatureCache, units: NDArray[np.intp], scored: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    """Return the rows for the folds, those that are scored at the end, and how they were divided, in words."""
    if not scored:
        return labelled(cache.labels), np.empty(0, np.int64), ""
    split = split_by_column(
        cache.labels,
        [own if own == scored else "train" for own in cache.splits],
        validation=scored,
        sha256=cache.sha256,
        groups=[str(unit) for unit in units],
    )
    dropped = f"; {split.n_dropped:,} training images that belong to them were left out" if split.n_dropped else ""
    return split.train, split.validation, f"{split.description}{dropped}"


def compare_one(bench: Bench, name: str) -> HeadResult:
    """Return how one head does: on the folds, on the held-out images, and what it costs."""
    if name == MAJORITY:
        return majority(bench)
    options = bench.options
    specs = specs_of(bench, name)
    bench.tables |= make_tables(
        bench.cache, [s for s in specs if (s.features, s.scaling) not in bench.tables], bench.rows
    )
    labels, n_classes = bench.labels, len(bench.cache.class_names)
    found = nested(
        specs,
        bench.tables,
        labels,
        bench.units,
        bench.folds,
        n_classes=n_classes,
        n_inner=N_SPLITS,
        n_jobs=options.n_jobs,
    )
    start = time.perf_counter()
    trials = (
        cross_validate(specs, bench.tables, labels, bench.folds.splits, n_jobs=options.n_jobs) if len(specs) > 1 else []
    )
    search_seconds = time.perf_counter() - start if trials else 0.0
    spec = best_trial(trials).spec if trials else specs[0]
    head, cost = fit_and_measure(bench, spec, search_seconds)
    return HeadResult(
        name=name,
        baseline=name in BASELINES,
        spec=spec,
        metrics=bench.metrics(found.probabilities),
        fold_accuracy=found.fold_accuracy,
        probabilities=found.probabilities.astype(np.float32),
        cost=cost,
        fold_settings=tuple(setting(one, specs) for one in found.specs) if trials else (),
        held_out=held_out_score(bench, spec, head),
        learning_curve=learning_curve(bench.tables, found.specs, labels, bench.folds, options.random_state)
        if options.learning_curve
        else (),
        notes=(*found.notes, *(search_notes(trials, best_trial(trials)) if trials else ())),
    )


def specs_of(bench: Bench, name: str) -> list[HeadSpec]:
    """Return the settings of a head to choose among, the simplest first."""
    options = bench.options
    if name in SEARCHED:
        return candidates(
            bench.cache,
            name,
            features=options.features,
            scaling=options.scaling,
            params={},
            random_state=options.random_state,
        )
    return [default_spec(name, features=options.features, scaling=options.scaling, random_state=options.random_state)]


def fit_and_measure(bench: Bench, spec: HeadSpec, search_seconds: float) -> tuple[Any, Cost]:
    """Return a head fitted on all rows of the folds, and what it costs."""
    X, labels = bench.tables[spec.features, spec.scaling].raw, bench.labels
    head = make_head(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said by the folds' fits already
        with watched_memory() as peak:
            start = time.perf_counter()
            head.fit(X, labels)
            fit_seconds = time.perf_counter() - start
    head_ms = head_milliseconds(head, X)
    bundle = Bundle(head=head, spec=spec, recipe=bench.cache.recipe, class_names=bench.cache.class_names)
    total_ms = None if bench.backbone_ms is None else bench.backbone_ms + head_ms
    return head, Cost(fit_seconds, search_seconds, head_ms, total_ms, saved_bytes(bundle), peak.bytes)


def held_out_score(bench: Bench, spec: HeadSpec, head: Any) -> Score | None:
    """Return the score of a fitted head on the given held-out images; None without any."""
    if not len(bench.held_out):
        return None
    cache = bench.cache
    X = design_matrix(
        cache.batches(bench.held_out),
        spec.features,
        pooled_layers=cache.recipe.pooled_layers,
        n_samples=len(bench.held_out),
    )
    probabilities = probabilities_of(head, X, len(cache.class_names))
    return score(cache.labels[bench.held_out], probabilities, cache.class_names)


def majority(bench: Bench) -> HeadResult:
    """Return how it does to know nothing but the classes' shares."""
    labels, n_classes = bench.labels, len(bench.cache.class_names)
    probabilities = np.zeros((len(labels), n_classes))
    for split in bench.folds.splits:
        probabilities[split.test] += np.bincount(labels[split.train], minlength=n_classes) / len(split.train)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    held_out = None
    if len(bench.held_out):
        shares = np.bincount(labels, minlength=n_classes) / len(labels)
        held_out = score(
            bench.cache.labels[bench.held_out], np.tile(shares, (len(bench.held_out), 1)), bench.cache.class_names
        )
    return HeadResult(
        name=MAJORITY,
        baseline=True,
        spec=None,
        metrics=bench.metrics(probabilities),
        fold_accuracy=tuple(
            float((probabilities[split.test].argmax(axis=1) == labels[split.test]).mean())
            for split in bench.folds.splits
        ),
        probabilities=probabilities.astype(np.float32),
        cost=Cost(0.0, 0.0, 0.0, bench.backbone_ms, 0, None),
        held_out=held_out,
    )


def with_differences(bench: Bench, results: Sequence[HeadResult]) -> list[HeadResult]:
    """Return the results, with the paired difference of each to the first, and how likely noise is to make it."""
    best = results[0].name
    differences = paired_differences(
        bench.labels,
        {result.name: result.probabilities for result in results},
        bench.units,
        best,
        random_state=bench.options.random_state,
    )
    heads = {result.name: result.fold_accuracy for result in results if not result.baseline}
    split = bench.folds.splits[0]
    p_values = compare(heads, len(split.train), len(split.test), best) if best in heads else {}
    return [
        replace(result, difference=differences.get(result.name), p_value=p_values.get(result.name))
        for result in results
    ]


def setting(spec: HeadSpec, specs: Sequence[HeadSpec]) -> str:
    """Return what of a spec was chosen, in words."""
    words = [f"{name} {value:g}" if is_number(value) else f"{name} {value}" for name, value in spec.params.items()]
    if len({other.features for other in specs}) > 1:
        words.insert(0, " + ".join(spec.features))
    return ", ".join(words)


def machine() -> str:
    """Return the machine in words."""
    return f"{processors()} × {platform.processor() or platform.machine()}, {platform.system()} {platform.release()}"
