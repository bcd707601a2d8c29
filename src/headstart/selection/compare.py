"""Compare heads on the same folds of one cache, or of several of the same images."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.bundles.package_versions import versions
from headstart.cache.reader import open_cache
from headstart.errors import DataError, ParameterError
from headstart.evaluate.intervals import CV_VARIANCE, Units
from headstart.evaluate.random_crops import check_single, open_crops
from headstart.evaluate.significance import SELECTION_METHOD, TEST_METHOD, corrected, differences
from headstart.evaluate.targets import Target, encoded, target_named
from headstart.exchange.prediction_table import fold_names
from headstart.heads.base import outputs_of
from headstart.heads.catalogue import check_crops, default_spec, head_kind
from headstart.heads.head_specs import is_number, unweighted_notes
from headstart.report.comparison import (
    KNOW_NOTHING,
    Candidate,
    Comparison,
    Cost,
    HeadResult,
    fit_command,
    ranked,
    recommend,
)
from headstart.runtime import usable_cores
from headstart.scores import Estimate, Metric, metric_named
from headstart.selection.comparison_setup import Bench, CompareOptions, all_heads, is_baseline, prepare
from headstart.selection.costs import fit_and_measure, learning_curve
from headstart.selection.cross_validation import (
    CrossValidation,
    Tables,
    Trial,
    accuracy_of,
    best_of_each,
    best_trial,
    make_pool,
    search_notes,
)
from headstart.selection.ensemble_members import choose_members, ensemble_spec, predicted
from headstart.selection.search import candidates, make_tables, on_cache, outputs_for, read_features
from headstart.selection.sources import Source, described, match
from headstart.storage.bucket import Location
from headstart.types import ENSEMBLE, HeadSpec


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
    if options.heads == all_heads():
        options = replace(options, heads=all_heads(options.target))
    target = target_named(options.target, [name for name in options.heads if name not in KNOW_NOTHING])
    metric = metric_named(options.metric or target.choices[0], target.choices)
    options = replace(options, metric=metric.name)
    check_options(options, target)
    start = time.perf_counter()
    times = backbone_ms if isinstance(backbone_ms, Sequence) else [backbone_ms] * (1 + len(among))
    with ExitStack() as stack, make_pool(options.engine, options.address, options.n_jobs) as pool:
        caches = [encoded(stack.enter_context(open_cache(path)), target) for path in (cache, *among)]
        strata = target.stratify(outputs_for(caches[0], np.arange(caches[0].n_images)))
        target.positive_index(options.positive, caches[0].class_names)  # refused before the work
        sources, not_in_all = match(caches, times, join=options.join)
        if crops is not None:
            check_single(among)
            sources[0].crops = open_crops(crops, caches[0], stack)
        named = described(caches, join=options.join)
        bench, leaks, held_out = prepare(sources, options, strata, pool)
        results, left_out = compare_all(bench, named, progress)
        if not results:
            raise DataError(f"No head could be fitted. {next(iter(left_out.values()), '')}")
        results, expected = compared(bench, ranked(results, metric), metric)
        found = bench.criterion.positive
        recommended, sentence = recommend(results, metric, expected)
        return Comparison(
            cache=str(cache),
            recipe=caches[0].recipe,
            class_names=bench.class_names,
            y_true=bench.labels,
            paths=[bench.images.paths[row] for row in bench.rows],
            folds=bench.folds.description,
            interval=target.interval_method,
            test=TEST_METHOD,
            heads=tuple(results),
            metric=metric.name,
            held_out_paths=[bench.images.paths[row] for row in bench.held_out],
            held_out_y_true=bench.images.y[bench.held_out],
            held_out_split=bench.scored,
            fold_names=fold_names([fold.test for fold in bench.folds.splits], bench.folds.n_splits, len(bench.rows)),
            expected=expected,
            correction=SELECTION_METHOD,
            positive=None if found is None else bench.class_names[found],
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
            metrics=tuple(target.all_metrics),
        )


def check_options(options: CompareOptions, target: Target) -> None:
    """Raise ParameterError if a baseline is that of another target, or a learning curve is asked for that there is not."""
    others = [name for name in options.heads if name in KNOW_NOTHING and name != target.baseline]
    if others:
        raise ParameterError(
            f"The baseline of the target {target.name} is {target.baseline}. Received: {', '.join(others)}."
        )
    if options.learning_curve and "classification" not in target.tasks:
        raise ParameterError(
            f"A learning curve is of accuracy, and the target {target.name} has none.",
            hint="Leave out `learning_curve`.",
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """How one head did, and the settings that an ensemble may take: the best on each cache."""

    result: HeadResult
    in_folds: tuple[tuple[Trial, ...], ...] = ()  # inside of each fold
    overall: tuple[Trial, ...] = ()  # on all images of the folds; empty where nothing was searched


def compare_all(
    bench: Bench, named: Sequence[Candidate], progress: Callable[[str], None]
) -> tuple[list[HeadResult], dict[str, str]]:
    """Return how all heads do, an ensemble of them last, and the reasons why some could not be fitted, by name."""
    entries: list[Entry] = []
    left_out: dict[str, str] = {}
    for name in sorted(bench.options.heads, key=lambda name: name == ENSEMBLE):
        progress(name)
        try:
            entries.append(
                compare_ensemble(bench, entries, named) if name == ENSEMBLE else compare_one(bench, name, named)
            )
        except DataError as error:  # e.g. a class with too few images for this head
            left_out[name] = str(error)
    return [entry.result for entry in entries], left_out


def compare_one(bench: Bench, name: str, named: Sequence[Candidate]) -> Entry:
    """Return how one head does: on the folds, on the held-out images, and what it costs."""
    if name in KNOW_NOTHING:
        return Entry(knowing_nothing(bench))
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
    source, table = bench.sources[best.source], tables(best.source)[best.spec.features, best.spec.scaling]
    head, cost = fit_and_measure(bench, best.spec, source, table, search_seconds)
    held_out = held_out_probabilities(bench, best.spec, source, head)
    result = HeadResult(
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
    return Entry(result, found.candidates, best_of_each(trials) if several else ())


def compare_ensemble(bench: Bench, entries: Sequence[Entry], named: Sequence[Candidate]) -> Entry:
    """Return how the mean of several heads does; its members are chosen anew inside of each fold.

    Raises DataError if fewer than two of the heads can be members.
    """
    if bench.sources[0].crops:
        check_crops(default_spec(ENSEMBLE))
    labels, splits = bench.labels, bench.folds.splits
    sums, counts = np.zeros((len(labels), len(bench.class_names))), np.zeros((len(labels), 1))
    accuracy, words = [], []
    for fold, split in enumerate(splits):
        trials = [trial for entry in entries if entry.in_folds for trial in entry.in_folds[fold]]
        inner = bench.inner_folds(split.train).splits
        members = choose_members(trials, bench.tables, labels, inner, bench.pool, bench.criterion)
        found = predicted(members, bench.tables, labels, [split], len(bench.class_names), bench.pool)
        mean = found[:, split.test].mean(axis=0)
        sums[split.test] += mean
        counts[split.test] += 1
        accuracy.append(float((mean.argmax(axis=1) == labels[split.test]).mean()))
        words.append(" + ".join(member_words(member, named) for member in members))
    start = time.perf_counter()
    trials = [trial for entry in entries for trial in entry.overall]
    members = choose_members(trials, bench.tables, labels, splits, bench.pool, bench.criterion)
    searched = sum(entry.result.cost.search_seconds for entry in entries if entry.overall)
    search_seconds = searched + time.perf_counter() - start
    spec, used = ensemble_spec(members, bench.caches, bench.options.random_state)
    source = bench.source_of(used)
    tables = make_tables(source.cache, [spec], source.rows[bench.rows], bench.weights)
    head, cost = fit_and_measure(bench, spec, source, tables[spec.features, spec.scaling], search_seconds)
    held_out = held_out_probabilities(bench, spec, source, head)
    probabilities = sums / counts
    result = HeadResult(
        name=ENSEMBLE,
        baseline=False,
        spec=spec,
        metrics=bench.metrics(probabilities),
        positive=bench.positive_rates(probabilities),
        fold_accuracy=tuple(accuracy),
        probabilities=probabilities.astype(np.float32),
        cost=cost,
        fold_settings=tuple(words),
        held_out=bench.held_out_score(held_out),
        held_out_probabilities=held_out,
        notes=(f"The mean of {' + '.join(member_words(member, named) for member in members)}.",),
        cache=" + ".join(named[number].name for number in used) if named else "",
    )
    return Entry(result)


def member_words(member: Trial, named: Sequence[Candidate]) -> str:
    """Return a member of an ensemble in words."""
    return f"{member.spec.type} on {named[member.source].name}" if named else member.spec.type


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


def held_out_probabilities(bench: Bench, spec: HeadSpec, source: Source, head: Any) -> NDArray[np.float64] | None:
    """Return what a fitted head says of the given held-out images, shape (n_held_out, n_classes); None without any."""
    if not len(bench.held_out):
        return None
    X = read_features(source.cache, spec.features, source.rows[bench.held_out])
    return outputs_of(head, X, len(bench.class_names))


def knowing_nothing(bench: Bench) -> HeadResult:
    """Return how it does to know nothing of the images: to predict the classes' shares, or the mean number."""
    labels, n_classes = bench.labels, len(bench.class_names)
    probabilities, counts = np.zeros((len(labels), n_classes)), np.zeros((len(labels), 1))
    for split in bench.folds.splits:
        probabilities[split.test] += known_of(bench, split.train)
        counts[split.test] += 1
    probabilities /= counts
    held_out = None
    if len(bench.held_out):
        held_out = np.tile(known_of(bench, np.arange(len(labels))), (len(bench.held_out), 1))
    return HeadResult(
        name=bench.target.baseline,
        baseline=True,
        spec=None,
        metrics=bench.metrics(probabilities),
        positive=bench.positive_rates(probabilities),
        fold_accuracy=tuple(accuracy_of(labels[split.test], probabilities[split.test]) for split in bench.folds.splits),
        probabilities=probabilities.astype(np.float32),
        cost=Cost(0.0, 0.0, 0.0, bench.sources[0].backbone_ms if len(bench.sources) == 1 else None, 0, None),
        held_out=bench.held_out_score(held_out),
        held_out_probabilities=held_out,
    )


def known_of(bench: Bench, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what the baseline learns of some images of the folds, shape (n_outputs,)."""
    weights = None if bench.weights is None else bench.weights[rows]
    return bench.target.know_nothing(bench.labels[rows], weights, len(bench.class_names))


def compared(bench: Bench, results: Sequence[HeadResult], metric: Metric) -> tuple[list[HeadResult], Estimate]:
    """Return the results with the difference of each to the first, and what to expect of the first, having been chosen."""
    units = Units(bench.units, len(bench.labels))
    target, y, positive = bench.target, bench.labels, bench.criterion.positive
    found = {head.name: target.influences(y, head.probabilities, positive)[metric.name] for head in results}
    best = results[0]
    tested = differences(found, units, best.name, target.unit_of(metric.name, y))
    chosen_among = [found[head.name] for head in results if head.baseline == best.baseline]

    def finish(value: float, variance: float) -> Estimate:
        return target.finish(metric.name, value, variance, y, best.probabilities, units, CV_VARIANCE)

    expected = corrected(metric, chosen_among, y, best.probabilities, units, bench.options.random_state, finish)
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
