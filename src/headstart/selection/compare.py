"""Compare heads on the same folds of one cache, or of several of the same images."""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.bundles.bundle import Bundle
from headstart.bundles.metadata import versions
from headstart.cache.reader import open_cache
from headstart.errors import DataError
from headstart.evaluate.intervals import INTERVAL_METHOD, Units, influences
from headstart.evaluate.joined_caches import recipes_of
from headstart.evaluate.random_crops import check_single, open_crops
from headstart.evaluate.significance import SELECTION_METHOD, TEST_METHOD, corrected, differences
from headstart.evaluate.targets import encoded, target_named
from headstart.exchange.prediction_table import fold_names
from headstart.heads.catalogue import check_crops, default_spec, head_kind, make_head
from headstart.heads.head_specs import fit_weighted, is_number, unweighted_notes
from headstart.report.comparison import (
    MAJORITY,
    Candidate,
    Comparison,
    Cost,
    HeadResult,
    fit_command,
    ranked,
    recommend,
)
from headstart.runtime import usable_cores
from headstart.scores import Estimate, Metric, class_index, metric_named
from headstart.selection.comparison_setup import Bench, CompareOptions, is_baseline, prepare
from headstart.selection.costs import head_milliseconds, learning_curve, saved_bytes, watched_memory
from headstart.selection.cross_validation import (
    CrossValidation,
    Tables,
    TablesOf,
    Trial,
    best_trial,
    make_pool,
    probabilities_of,
    search_notes,
)
from headstart.selection.search import candidates, on_cache, read_features
from headstart.selection.sources import described, match
from headstart.storage.bucket import Location
from headstart.types import HeadSpec


def compare_heads(
    cache: str | Location,
    options: CompareOptions | None = None,
    *,
    among: Sequence[str | Location] = (),
    crops: str | Path | None = None,
    backbone_ms: float | Sequence[float | None] | None = None,
    progress: Callable[[str], None] = lambda _: None,
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
        Options; keyword arguments override its fields.
    among : sequence of str or Path
        Other caches of the same images, e.g. of another input size: the cache is chosen like every other setting, for each
        head and anew inside of every fold. Compared on the images that lie in all of them, with the labels, splits and groups
        of the first.
    crops : str or Path, optional
        Folder of random crops of the images of a single cache (extract/run.py): those of the training images of
        each fold are fitted on too, and never scored.
    backbone_ms : float or sequence of float, optional
        Milliseconds per image of the frozen backbone here (selection/costs.py), for the latency from pixels; of each cache
        where there are several.
    progress : callable
        Called with the name of each head before it is fitted.

    Raises
    ------
    DataError
        If there are no labels, too few images, or no such split; if no image lies in all caches, or they call one by
        different classes.
    HeadstartError
        If there is no such head, feature or scaling.
    """
    options = replace(options or CompareOptions(), **overrides)
    metric = metric_named(options.metric)
    target = target_named(options.target, [name for name in options.heads if name != MAJORITY])
    start = time.perf_counter()
    times = backbone_ms if isinstance(backbone_ms, Sequence) else [backbone_ms] * (1 + len(among))
    with ExitStack() as stack, make_pool(options.engine, options.address, options.n_jobs) as pool:
        caches = [encoded(stack.enter_context(open_cache(path)), target) for path in (cache, *among)]
        strata = target.stratify(caches[0].labels)
        class_index(options.positive, caches[0].class_names)  # refused before the work
        sources, not_in_all = match(caches, times, join=options.join)
        if crops is not None:
            check_single(among)
            sources[0].crops = open_crops(crops, caches[0], stack)
        named = described(caches, join=options.join)
        bench, leaks, held_out = prepare(sources, options, strata, pool)
        results, left_out = [], {}
        for name in options.heads:
            progress(name)
            try:
                results.append(compare_one(bench, name, named))
            except DataError as error:  # e.g. a class with too few images for this head
                left_out[name] = str(error)
        if not results:
            raise DataError(f"No head could be fitted. {next(iter(left_out.values()), '')}")
        results, expected = compared(bench, ranked(results, metric), metric)
        recommended, sentence = recommend(results, metric, expected)
        return Comparison(
            cache=str(cache),
            recipe=caches[0].recipe,
            class_names=bench.class_names,
            y_true=bench.labels,
            paths=[bench.images.paths[row] for row in bench.rows],
            folds=bench.folds.description,
            interval=INTERVAL_METHOD,
            test=TEST_METHOD,
            heads=tuple(results),
            metric=metric.name,
            held_out_paths=[bench.images.paths[row] for row in bench.held_out],
            held_out_y_true=bench.images.labels[bench.held_out],
            held_out_split=bench.scored,
            fold_names=fold_names([fold.test for fold in bench.folds.splits], bench.folds.n_splits, len(bench.rows)),
            expected=expected,
            correction=SELECTION_METHOD,
            positive=options.positive,
            recommended=recommended,
            recommendation=sentence,
            leaks=(*leaks, *bench.folds.notes),
            left_out=left_out,
            held_out=held_out,
            machine=machine(),
            versions=versions(),
            seconds=time.perf_counter() - start,
            caches=named,
            not_in_all=tuple(not_in_all),
            fit_command=fit_command(
                results[0], named, options.features, options.scaling, bench.scored, same_images=not not_in_all
            ),
        )


def compare_one(bench: Bench, name: str, named: Sequence[Candidate]) -> HeadResult:
    """Return how one head does: on the folds, on the held-out images, and what it costs."""
    if name == MAJORITY:
        return majority(bench)
    options = bench.options
    specs = [specs_of(bench, name, number) for number in range(len(bench.sources))]
    if bench.sources[0].crops:
        check_crops(specs[0][0])

    def tables(source: int) -> Tables:
        return bench.tables(source, specs[source])

    course = CrossValidation(
        specs,
        tables,
        bench.labels,
        bench.folds,
        bench.inner_folds,
        len(bench.class_names),
        bench.pool,
        bench.criterion,
    )
    found = course.run()
    several = sum(map(len, specs)) > 1
    trials, search_seconds = course.try_all(bench.folds.splits) if several else ([], 0.0)
    best = best_trial(trials) if several else Trial(specs[0][0], ())
    head, cost = fit_and_measure(bench, best, tables, search_seconds)
    held_out = held_out_probabilities(bench, best, head)
    return HeadResult(
        name=name,
        baseline=is_baseline(name),
        spec=best.spec,
        metrics=bench.metrics(found.probabilities),
        positive=bench.positive_rates(found.probabilities),
        fold_accuracy=found.fold_accuracy,
        probabilities=found.probabilities.astype(np.float32),
        cost=cost,
        fold_settings=tuple(setting(one, specs[one.source], named) for one in found.chosen) if several else (),
        held_out=bench.held_out_score(held_out),
        held_out_probabilities=held_out,
        learning_curve=learning_curve(course, found.chosen, options.random_state) if options.learning_curve else (),
        notes=(
            *found.notes,
            *(search_notes(trials, best) if several else ()),
            *unweighted_notes(head, name, bench.weights),
        ),
        cache=named[best.source].title if named else "",
    )


def specs_of(bench: Bench, name: str, source: int) -> list[HeadSpec]:
    """Return the settings of a head to choose among on one cache, the simplest first."""
    options = bench.options
    if "benchmark-heads" in head_kind(name).searched_by:
        return candidates(
            bench.sources[source].cache,
            name,
            features=options.features,
            scaling=options.scaling,
            params={},
            random_state=options.random_state,
        )
    spec = default_spec(name, features=options.features, scaling=options.scaling, random_state=options.random_state)
    return [on_cache(bench.sources[source].cache, spec)]


def fit_and_measure(bench: Bench, best: Trial, tables: TablesOf, search_seconds: float) -> tuple[Any, Cost]:
    """Return a head fitted on all rows of the folds, and what it costs, with the backbone of its cache."""
    spec, source = best.spec, bench.sources[best.source]
    table = tables(best.source)[spec.features, spec.scaling]
    X, labels, weights = table.raw, table.fitted(np.empty(0, np.int64), bench.labels)[1], table.weights
    head = make_head(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said by the folds' fits already
        with watched_memory() as peak:
            start = time.perf_counter()
            fit_weighted(head, X, labels, weights)
            fit_seconds = time.perf_counter() - start
    head_ms = head_milliseconds(head, X)
    recipe, *others = recipes_of(source.cache)
    bundle = Bundle(head, spec, recipe, bench.class_names, joined_recipes=tuple(others))
    total_ms = None if source.backbone_ms is None else source.backbone_ms + head_ms
    return head, Cost(fit_seconds, search_seconds, head_ms, total_ms, saved_bytes(bundle), peak.bytes)


def held_out_probabilities(bench: Bench, best: Trial, head: Any) -> NDArray[np.float64] | None:
    """Return what a fitted head says of the given held-out images, shape (n_held_out, n_classes); None without any."""
    if not len(bench.held_out):
        return None
    source = bench.sources[best.source]
    X = read_features(source.cache, best.spec.features, source.rows[bench.held_out])
    return probabilities_of(head, X, len(bench.class_names))


def majority(bench: Bench) -> HeadResult:
    """Return how it does to know nothing but the classes' shares."""
    labels, n_classes = bench.labels, len(bench.class_names)
    probabilities = np.zeros((len(labels), n_classes))
    for split in bench.folds.splits:
        probabilities[split.test] += class_shares(bench, split.train)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    held_out = None
    if len(bench.held_out):
        held_out = np.tile(class_shares(bench, np.arange(len(labels))), (len(bench.held_out), 1))
    return HeadResult(
        name=MAJORITY,
        baseline=True,
        spec=None,
        metrics=bench.metrics(probabilities),
        positive=bench.positive_rates(probabilities),
        fold_accuracy=tuple(
            float((probabilities[split.test].argmax(axis=1) == labels[split.test]).mean())
            for split in bench.folds.splits
        ),
        probabilities=probabilities.astype(np.float32),
        cost=Cost(0.0, 0.0, 0.0, bench.sources[0].backbone_ms if len(bench.sources) == 1 else None, 0, None),
        held_out=bench.held_out_score(held_out),
        held_out_probabilities=held_out,
    )


def class_shares(bench: Bench, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of each class in the weight of some images of the folds, shape (n_classes,)."""
    weights = np.ones(len(rows)) if bench.weights is None else bench.weights[rows]
    sums = np.bincount(bench.labels[rows], weights, len(bench.class_names)).astype(np.float64)
    shares: NDArray[np.float64] = sums / weights.sum()
    return shares


def compared(bench: Bench, results: Sequence[HeadResult], metric: Metric) -> tuple[list[HeadResult], Estimate]:
    """Return the results with the difference of each to the first, and what to expect of the first, having been chosen."""
    units = Units(bench.units, len(bench.labels))
    found = {
        head.name: influences(bench.labels, head.probabilities, bench.criterion.positive)[metric.name]
        for head in results
    }
    best = results[0]
    tested = differences(found, units, best.name)
    chosen_among = [found[head.name] for head in results if head.baseline == best.baseline]
    expected = corrected(
        metric, chosen_among, bench.labels, best.probabilities, units, random_state=bench.options.random_state
    )
    with_tests = [
        replace(head, difference=tested[head.name].estimate, p_value=tested[head.name].p_value)
        if head.name in tested
        else head
        for head in results
    ]
    return with_tests, expected


def setting(chosen: Trial, specs: Sequence[HeadSpec], named: Sequence[Candidate] = ()) -> str:
    """Return what was chosen, in words: of several caches the name of one, what of the features, and the parameters."""
    spec = chosen.spec
    words = [f"{name} {value:g}" if is_number(value) else f"{name} {value}" for name, value in spec.params.items()]
    if len({other.features for other in specs}) > 1:
        words.insert(0, " + ".join(spec.features))
    if named:
        words.insert(0, named[chosen.source].name)
    return ", ".join(words)


def machine() -> str:
    """Return the machine in words."""
    return f"{usable_cores()} × {platform.processor() or platform.machine()}, {platform.system()} {platform.release()}"
