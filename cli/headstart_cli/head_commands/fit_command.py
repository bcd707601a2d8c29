"""``fit-head``: a classifier on cached features, in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from headstart.heads.catalogue import HEAD_TYPES, default_head, default_spec, heads_for
from headstart.heads.head_specs import read_config
from headstart.texts import counted, did_you_mean
from headstart.types import ENSEMBLE
from headstart_cli.command_options import (
    FEATURES,
    FEATURES_HELP,
    HEADS,
    Address,
    ChoiceMetric,
    Crops,
    Data,
    Engine,
    Head,
    Levels,
    Normal,
    Output,
    Overwrite,
    Positive,
    Predictions,
    Resources,
    Search,
    TargetName,
    completed,
    separated,
    target_of,
)
from headstart_cli.console import err, out, said
from headstart_cli.head_commands.evaluate_command import print_decision, print_score
from headstart_cli.head_commands.parameter_options import number_or_word, parameter_values, with_parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headstart.evaluate.targets import Target
    from headstart.fit import FitResult
    from headstart.selection.search import SearchResult
    from headstart.storage.bucket import Location
    from headstart.types import HeadSpec


def known_type(head_type: str | None) -> str | None:
    """Return a type of head; raise a usage error if it is neither in the catalogue nor an import path."""
    if head_type is None or head_type in (*HEAD_TYPES, ENSEMBLE) or "." in head_type:
        return head_type
    near = did_you_mean([head_type], HEAD_TYPES)
    raise typer.BadParameter(f"{head_type!r} is neither a head ({', '.join(HEAD_TYPES)}) nor an import path.{near}")


@with_parameters
def fit(
    caches: Annotated[
        list[str],
        typer.Argument(
            metavar="CACHE...",
            help="A cache with labels, e.g. features/data.h5. Of several caches of the same images, the best is chosen.",
        ),
    ],
    head_type: Annotated[
        str | None,
        Head(
            "--type",
            metavar="NAME",
            help=f"{', '.join(heads_for('classification'))}, {ENSEMBLE} or a path into scikit-learn. Default: logistic.",
            callback=known_type,
            autocompletion=HEADS,
            is_eager=True,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        Head(
            metavar="TOML",
            help="TOML with type, features, scaling and a table params.",
        ),
    ] = None,
    features: Annotated[str | None, Head(metavar="NAMES", help=FEATURES_HELP, autocompletion=FEATURES)] = None,
    scaling: Annotated[
        Literal["sqrt-l2", "l2", "standard", "none"] | None,
        Head(
            metavar="NAME",
            help="sqrt-l2 (default; dense: l2), l2, standard or none.",
        ),
    ] = None,
    seed: Annotated[int | None, Head(metavar="N", help="Random seed. Default: 0.")] = None,
    validation: Annotated[
        str | None,
        Data(
            metavar="SPLIT",
            help="A fraction to hold out, a split (validation, test) or another cache. Default: the cache's split, or 0.25.",
            autocompletion=completed(("validation", "test", "0.25")),
        ),
    ] = None,
    target: TargetName = None,
    levels: Levels = None,
    normal: Normal = None,
    search: Annotated[
        bool | None,
        Search(
            "--search/--no-search",
            help="Choose what is not given. Default: for linear heads.",
        ),
    ] = None,
    join: Annotated[
        bool,
        Search("--join", help="Use all caches side by side, each scaled on its own."),
    ] = False,
    crops: Crops = None,
    metric: ChoiceMetric = None,
    max_memory: Annotated[
        str | None,
        Resources(
            metavar="SIZE",
            help="Memory limit, e.g. 4GiB. Default: half of free memory.",
        ),
    ] = None,
    engine: Engine = "local",
    address: Address = None,
    output: Annotated[
        Path | None, Output("-o", "--output", metavar="FOLDER", help="The saved head. Default: heads/CACHE-TYPE.")
    ] = None,
    overwrite: Overwrite = False,
    predictions: Predictions = None,
    positive: Positive = None,
    at: Annotated[
        str | None,
        Output(metavar="GOAL", help="Threshold: recall=0.95, precision=0.9, cost=fn:9,fp:1."),
    ] = None,
    cost_matrix: Annotated[
        Path | None, Output(metavar="CSV", help="Costs: a row per true class, a column per decision.")
    ] = None,
    coverage: Annotated[
        float | None, Output(metavar="SHARE", help="Sets of classes; 0.95: of 95 % with the true one.")
    ] = None,
    coverage_per_class: Annotated[
        bool, Output("--coverage-per-class", help="Reach it for the images of each class.")
    ] = False,
    **parameters: Any,
) -> None:
    """Fit a head on cached features, score it on held-out images, and save it.

    Held-out images are never used for model selection; images with identical bytes are never on both sides.
    Parameters of a head: fit-head --type rbf-svm --help

    Examples
    --------
    fit-head features/data.h5 --type logistic
    fit-head features/data.h5 --type dense --hidden 512 --dropout 0.5
    fit-head features/data.h5 --positive defective --at recall=0.95
    fit-head features/vgg16.h5 features/lite2.h5 --join   [dim](two backbones at once)[/]
    fit-head features/vgg16.h5 features/lite2.h5 --type ensemble   [dim](their mean)[/]
    """
    from headstart.exchange.prediction_table import check_predictions_file, write_predictions
    from headstart.fit import fit_head
    from headstart.runtime import parse_size
    from headstart.selection.search import what_to_search
    from headstart.storage.bucket import location

    spec = make_spec(
        config,
        head_type or default_type(target_of(target, levels, normal), config),
        features,
        scaling,
        seed,
        parameters,
    )
    if predictions:
        check_predictions_file(predictions, [path for path in (*caches, config) if path])
    cache, *others = caches
    if join and not others:
        raise typer.BadParameter("--join goes with several caches of the same images.")
    stem = "+".join(location(one).stem for one in (caches if join else [cache]))
    folder = output or Path("heads") / f"{stem}-{spec.type.rpartition('.')[2]}"
    bound = parse_size(max_memory) if max_memory else None
    chosen = what_to_search(spec.type, asked=search, features_given=features is not None, complete=config is not None)
    if engine == "ray" and chosen == "none":
        raise typer.BadParameter("--engine ray goes with a search: --search.")
    if address and engine == "local":
        raise typer.BadParameter("--address goes with --engine ray.")
    result = fit_head(
        cache,
        spec,
        validation=None if validation is None else number_or_word(validation),
        output=folder,
        search=chosen,
        max_memory=bound,
        among=others,
        join=join,
        crops=crops,
        engine=engine,
        address=address,
        overwrite=overwrite,
        metric=metric,
        positive=positive,
        target=target_of(target, levels, normal),
        at=at,
        cost_matrix=cost_matrix,
        coverage=coverage,
        coverage_per_class=coverage_per_class,
    )
    if predictions and result.scored:
        write_predictions(predictions, [result.scored])
    print_result(result)


def default_type(target: str | Target, config: Path | None) -> str | None:
    """Return the type of head for a target where neither an option nor a file names one."""
    from headstart.evaluate.targets import target_named

    return None if config else default_head(target_named(target).tasks[0])


def make_spec(
    config: Path | None,
    head_type: str | None,
    features: str | None,
    scaling: str | None,
    seed: int | None,
    parameters: dict[str, Any],
) -> HeadSpec:
    """Return the spec of these options; what is not given comes from the config file, then from the catalogue."""
    values: dict[str, Any] = read_config(config) if config else {"head_type": head_type or "logistic"}
    if head_type not in (None, values["head_type"]):
        raise typer.BadParameter(f"--type is {head_type}, but {config} has type {values['head_type']}. Leave one out.")
    given = {
        "features": separated(features) if features else None,
        "scaling": scaling,
        "random_state": seed,
        "params": {**values.get("params", {}), **parameter_values(values["head_type"], parameters)},
    }
    return default_spec(**values | {name: value for name, value in given.items() if value is not None})


def print_result(result: FitResult) -> None:
    for warning in result.warnings:
        err.print(f"[yellow]{said(warning)}[/]")
    spec = result.spec
    if result.joined:
        out.print(f"Side by side: {escape(', '.join(map(str, result.caches)))}")
    elif spec.type == ENSEMBLE:
        out.print(f"Cache: {escape(str(result.caches[0]))}")
    if result.search:
        print_search(result.search, () if result.joined else result.caches)
    out.print(
        f"[bold]{escape(spec.type)}[/] on {escape(', '.join(spec.features))} (scaling {escape(spec.scaling)}), "
        f"{counted(result.n_train)} fitted in {result.fit_seconds:.2f} s; scored on {escape(result.split)}, "
        "not used for fitting"
    )
    if result.streamed:
        out.print("The features exceed the memory: they were read in parts.")
    if result.n_dropped:
        out.print(f"{result.n_dropped:,} training images were left out: scored images have the same bytes.")
    for note in result.notes:
        out.print(f"[yellow]{said(note)}[/]")
    print_score(result.score)
    print_chosen(result)
    if result.n_unfamiliar is not None:
        scored = counted(result.score.n_samples)
        out.print(f"Unlike the training images (unfamiliar): {result.n_unfamiliar:,} of the {scored} scored.")
    out.print(f"Saved in {escape(str(result.folder))}")


def print_chosen(result: FitResult) -> None:
    """Print how the head decides, what that was chosen on, and how it does on the scored images."""
    from headstart.report.decision_text import chosen_line

    if result.chosen is None:
        return
    if result.chosen.folds:
        out.print(chosen_line(result.chosen.rule, result.chosen.folds, result.chosen.score))
    for note in result.chosen.notes:
        err.print(f"[yellow]{said(note)}[/]")
    print_decision(result.decision)


def print_search(search: SearchResult, caches: Sequence[Location]) -> None:
    """Print the chosen settings, the number of candidates, and notes."""
    from headstart.scores import metric_title
    from headstart.selection.cross_validation import best_trial

    if search.spec.type == ENSEMBLE:
        print_members(search)
        return
    best = best_trial(search.trials)
    title = metric_title(best.metric)
    if len(caches) > 1:
        best_of = [
            best_trial([trial for trial in search.trials if trial.source == number]).score
            for number in range(len(caches))
        ]
        words = ", ".join(f"{path} {score:.3f}" for path, score in zip(caches, best_of, strict=True))
        out.print(f"Cache: [bold]{escape(str(caches[search.source]))}[/] (best {title}: {escape(words)})")
    words = ", ".join([*search.spec.features, *(f"{name} = {value}" for name, value in search.spec.params.items())])
    out.print(
        f"Best of {len(search.trials)} settings in cross-validation ({escape(search.folds)}, {search.seconds:.1f} s): "
        f"{escape(words)}. Its {title} there, {best.score:.3f}, is optimistic; the score below is on other images."
    )
    for note in search.notes:
        err.print(f"[yellow]{said(note)}[/]")


def print_members(search: SearchResult) -> None:
    """Print the members of an ensemble, and how many settings they were chosen among."""
    out.print(
        f"Members, chosen among {len(search.trials)} settings in cross-validation ({escape(search.folds)}, "
        f"{search.seconds:.1f} s):"
    )
    for member in search.spec.params["members"]:
        words = ", ".join(f"{name} = {value}" for name, value in member["params"].items())
        out.print(f"  {member['type']} on {escape(', '.join(member['features']))}: {escape(words)}")
    for note in search.notes:
        err.print(f"[yellow]{said(note)}[/]")
