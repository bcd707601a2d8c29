"""``benchmark-heads``: compare heads on the same folds, and recommend one."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from headstart.heads.catalogue import HEAD_TYPES
from headstart.types import ENSEMBLE
from headstart_cli.command_options import (
    FEATURES,
    SCALINGS,
    Address,
    ChoiceMetric,
    Crops,
    Engine,
    Head,
    Json,
    Levels,
    Normal,
    Output,
    Positive,
    Predictions,
    Resources,
    Search,
    TargetName,
    completed,
    separated,
    target_of,
)
from headstart_cli.console import err, out, said, shown, write_text

if TYPE_CHECKING:
    from headstart.exchange.prediction_table import ScoredImages
    from headstart.report.comparison import Comparison


def benchmark(
    caches: Annotated[
        list[str],
        typer.Argument(
            metavar="CACHE...",
            help="A cache with labels, e.g. features/data.h5. Of several of the same images, each head takes the best.",
        ),
    ],
    heads: Annotated[
        str | None,
        Head(
            metavar="NAMES",
            help="Commas between several, e.g. logistic,ridge. Default: all, and two baselines.",
            autocompletion=completed((*HEAD_TYPES, "majority"), several=True),
        ),
    ] = None,
    features: Annotated[
        str | None,
        Head(
            metavar="NAMES",
            help="For every head, e.g. avg. Default: chosen for each.",
            autocompletion=FEATURES,
        ),
    ] = None,
    scaling: Annotated[
        Literal["sqrt-l2", "l2", "standard", "none"] | None,
        Head(metavar="NAME", help=f"For every head: {SCALINGS}. Default: sqrt-l2; l2 for dense."),
    ] = None,
    metric: ChoiceMetric = None,
    target: TargetName = None,
    levels: Levels = None,
    normal: Normal = None,
    folds: Annotated[int, Search(min=2, metavar="N", help="Folds of the cross-validation.")] = 5,
    repeats: Annotated[int, Search(min=1, metavar="N", help="Repeats with newly drawn folds.")] = 1,
    held_out: Annotated[
        str | None,
        Search(
            metavar="SPLIT",
            help="Score this split once at the end; or none. Default: test or validation, beside train.",
        ),
    ] = None,
    join: Annotated[bool, Search("--join", help="Also try the features of all caches side by side.")] = False,
    crops: Crops = None,
    ensemble: Annotated[bool, Search("--ensemble", help="Also try the mean of the best heads.")] = False,
    near_duplicates: Annotated[
        bool, Search("--near-duplicates/--no-near-duplicates", help="Do not group images that look the same.")
    ] = True,
    learning_curve: Annotated[
        bool, Search("--learning-curve", help="Also measure accuracy against images per class.")
    ] = False,
    seed: Annotated[int, Search(metavar="N", help="Random seed.")] = 0,
    jobs: Annotated[int | None, Resources(min=1, metavar="N", help="Folds in parallel. Default: one per core.")] = None,
    engine: Engine = "local",
    address: Address = None,
    latency: Annotated[bool, Resources("--latency/--no-latency", help="Do not time the backbone.")] = True,
    output: Annotated[
        Path | None, Output("-o", "--output", metavar="FILE", help="Also write the results: .json, .csv or .md.")
    ] = None,
    predictions: Predictions = None,
    positive: Positive = None,
    html: Annotated[Path | None, Output(metavar="FILE", help="Write a report with plots: one HTML page.")] = None,
    data: Annotated[
        Path | None, Output(metavar="FOLDER", help="With --html: the folder of images, for thumbnails.")
    ] = None,
    outside: Annotated[
        str | None,
        Output(metavar="DATA", help="Images of other things: are they told apart?"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare heads on the same folds: scores, intervals, tests, times, sizes; recommend one.

    The parameters (and cache) of each head are chosen inside every fold, so no image is scored by settings chosen on it.
    Images with identical bytes, of one group, or that look the same are never on both sides of a split.

    Examples
    --------
    benchmark-heads features/data.h5
    benchmark-heads features/data.h5 --html report.html --data data/
    benchmark-heads features/data-224.h5 features/data-300.h5
    benchmark-heads features/data.h5 --target number
    benchmark-heads features/vgg16.h5 features/lite2.h5 --join
    """
    refused = {
        "--address goes with --engine ray.": address and engine == "local",
        "--join goes with several caches of the same images.": join and len(caches) == 1,
        "--data goes with --html.": data and not html,
    }
    for reason in (reason for reason, holds in refused.items() if holds):
        raise typer.BadParameter(reason)
    writer_of(output)
    from headstart.exchange.prediction_table import check_predictions_file, write_predictions
    from headstart.selection.compare import compare_heads
    from headstart.selection.comparison_setup import CompareOptions

    if predictions:
        check_predictions_file(predictions, caches)

    options = CompareOptions(
        features=words(features),
        scaling=scaling,
        n_splits=folds,
        n_repeats=repeats,
        held_out={"none": ""}.get(held_out or "", held_out),
        near_duplicates=near_duplicates,
        learning_curve=learning_curve,
        metric=metric,
        positive=positive,
        random_state=seed,
        n_jobs=jobs,
        engine=engine,
        address=address,
        join=join,
        target=target_of(target, levels, normal),
    )
    named = (words(heads) if heads else None) or options.heads
    options = replace(options, heads=tuple(dict.fromkeys([*named, ENSEMBLE])) if ensemble else named)
    with err.status("Comparing heads …") as status:

        def say(name: str) -> None:
            status.update(f"Comparing heads: {escape(name)} …")

        times = [backbone_ms(cache) if latency else None for cache in caches]
        found = compare_heads(caches[0], options, among=caches[1:], crops=crops, progress=say, backbone_ms=times)
    found = replace(found, command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
    show(found, as_json=as_json)
    if output:
        write_text(output, writer_of(output)(found), "The comparison")
    if predictions:
        write_predictions(predictions, list(scored_by_head(found)))
    if outside:
        print_outside(caches[0], outside, seed, to_error=as_json)
    if html:
        write_page(found, html, caches[0], data)


def print_outside(cache: str, outside: str, seed: int, *, to_error: bool) -> None:
    """Print how well images from outside are told from those of the cache."""
    from headstart.outside_images import score_outside

    with err.status("Comparing with images from outside …"):
        found = score_outside(cache, outside, random_state=seed)
    (err if to_error else out).print(said(found.sentence))


def scored_by_head(found: Comparison) -> Iterator[ScoredImages]:
    """Yield each head's predictions for the images of the folds (mean over repeats) and of a held-out split."""
    from headstart.exchange.prediction_table import ScoredImages

    names, splits = found.class_names, [found.held_out_split] * len(found.held_out_paths)
    for head in found.heads:
        yield ScoredImages(found.paths, found.y_true, head.probabilities, names, found.fold_names, head.name)
        if head.held_out_probabilities is not None and found.held_out_y_true is not None:
            held_out = found.held_out_paths, found.held_out_y_true, head.held_out_probabilities
            yield ScoredImages(*held_out, names, splits, head.name)


def words(text: str | None) -> tuple[str, ...] | None:
    return tuple(filter(None, separated(text))) if text else None


def backbone_ms(cache: str) -> float | None:
    """Return milliseconds per image of the cache's backbone on this machine; None, with a message, if it cannot run."""
    from headstart.backbones.registry import build_backbone
    from headstart.cache.reader import open_cache
    from headstart.errors import HeadstartError
    from headstart.selection.costs import backbone_milliseconds

    with open_cache(cache) as opened:
        recipe = opened.recipe
    try:
        return backbone_milliseconds(build_backbone(recipe))
    except HeadstartError as error:
        err.print(said(f"The latency from pixels was not measured: {error}"))
        return None


def show(found: Comparison, *, as_json: bool) -> None:
    from headstart.report.comparison_text import comparison_json, comparison_tables

    if as_json:
        typer.echo(comparison_json(found))
        return
    for table in comparison_tables(found):
        out.print(table)
    for sentence in (
        *found.not_in_all,
        *found.leaks,
        *(f"{name} is left out: {why}" for name, why in found.left_out.items()),
    ):
        out.print(f"[yellow]{said(sentence)}[/]")
    out.print(f"[bold]{escape(found.recommendation)}[/]")
    if found.fit_command:
        out.print(f"Fit it: {shown(found.fit_command)}")


def writer_of(output: Path | None) -> Any:
    """Return the function that formats a comparison for this kind of file; raise a usage error for other kinds."""
    if output is None:
        return None
    kinds = {".json": "comparison_json", ".csv": "comparison_csv", ".md": "comparison_markdown"}
    if output.suffix not in kinds:
        raise typer.BadParameter(f"--output takes a file that ends in {', '.join(kinds)}. Received: {output}")
    from headstart.report import comparison_text

    return getattr(comparison_text, kinds[output.suffix])


def write_page(found: Comparison, html: Path, cache: str, data: Path | None) -> None:
    """Write the page, with thumbnails where the folder of images is given."""
    from headstart.cache.reader import open_cache
    from headstart.evaluate.quality_report import make_thumbnails
    from headstart.images.samples import DecodeRules
    from headstart.report.html_pages import benchmark_page, page_mistakes

    thumbnails: dict[str, bytes] = {}
    if data:
        with open_cache(cache) as opened:
            digests, rules = dict(zip(opened.paths, opened.sha256, strict=True)), DecodeRules.of(opened.recipe)
        shown = {mistake.path: digests[mistake.path] for cell in page_mistakes(found) for mistake in cell.mistakes}
        thumbnails = make_thumbnails(data, shown, rules)
    root = os.path.relpath(data if data.is_dir() else data.parent, html.parent) if data else None
    write_text(html, benchmark_page(found, thumbnails=thumbnails, image_root=root), "The page")
    hint = "" if data else " Thumbnails need the folder of images (--data)."
    err.print(escape(f"Page: {html}, {len(thumbnails):,} thumbnails.{hint}"))
