"""``fit-head``: a classifier on cached features, in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from headstart.texts import counted, did_you_mean
from headstart_cli.console import err, out, shown
from headstart_cli.head_commands.evaluate_command import print_score
from headstart_cli.head_options import ChoiceMetric, Positive, Predictions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headstart.fit import FitResult
    from headstart.selection.search import SearchResult
    from headstart.storage.address import Location
    from headstart.types import HeadSpec

EPILOG = (
    "[bold]Examples[/]\n\n"
    "fit-head features/data.h5 --type logistic\n\n"
    "fit-head features/data.h5 --type dense --hidden 512 --dropout 0.5 --early-stopping\n\n"
    "fit-head features/data.h5 --type rbf-svm --features block4_conv3,avg --validation test -o heads/best\n\n"
    "fit-head features/data-224.h5 features/data-300.h5   [dim](the same images: the input size is chosen too)[/]\n\n"
    "fit-head features/data.h5 --type rbf-svm --search --engine ray --address auto   [dim](a cluster)[/]\n\n"
    "fit-head features/data.h5 --type sklearn.discriminant_analysis.LinearDiscriminantAnalysis"
)


def known_type(head_type: str | None) -> str | None:
    """Return a type of head; raise a usage error where it is neither a name of the catalogue nor a path."""
    from headstart.heads.catalogue import HEAD_TYPES

    if head_type is None or head_type in HEAD_TYPES or "." in head_type:
        return head_type
    near = did_you_mean([head_type], HEAD_TYPES)
    raise typer.BadParameter(f"{head_type!r} is none of {', '.join(HEAD_TYPES)}, and no import path.{near}")


def fit(
    caches: Annotated[
        list[str],
        typer.Argument(
            metavar="CACHE...",
            help="A feature cache with labels, as features/data.h5; several of the same images, as of two input sizes, are "
            "chosen among too.",
        ),
    ],
    head_type: Annotated[
        str | None,
        typer.Option(
            "--type",
            metavar="[dense|logistic|linear-svm|rbf-svm|ridge|knn|nearest-class-mean|sklearn.module.Class]",
            help="What to fit: a name, or the import path of a scikit-learn classifier. Default: logistic.",
            callback=known_type,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file with the type and, where they differ from the defaults, features, scaling, random_state and "
            "a table of params; options given beside it count."
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="avg, max, gem, crops or flatten of the stored layer, or a pooled layer as block4_conv3; several by commas."
        ),
    ] = None,
    scaling: Annotated[
        Literal["sqrt-l2", "l2", "standard", "none"] | None,
        typer.Option(
            help="Of each row of features. Default: sqrt-l2; l2 for dense, none to train it as the tutorials do, on raw maps."
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            help="A fraction to hold out, a split (validation, test), or another cache. Default: own split, or 0.25."
        ),
    ] = None,
    class_weight: Annotated[Literal["balanced"] | None, typer.Option(help="Give rare classes their weight.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seeds everything random. Default: 0.")] = None,
    c: Annotated[
        float | None, typer.Option("--C", help="logistic and SVMs: inverse strength of regularisation.")
    ] = None,
    gamma: Annotated[str | None, typer.Option(help="rbf-svm: scale, auto, or a number.")] = None,
    alpha: Annotated[float | None, typer.Option(help="ridge: strength of the L2 penalty. Default: 1.")] = None,
    n_neighbors: Annotated[int | None, typer.Option(min=1, help="knn: number of neighbors. Default: 10.")] = None,
    distance: Annotated[
        Literal["cosine", "euclidean"] | None, typer.Option(help="knn: distance between images. Default: cosine.")
    ] = None,
    shrinkage: Annotated[
        float | None,
        typer.Option(help="nearest-class-mean: share of the mean variance in each; 1 is Euclidean. Default: 0.5."),
    ] = None,
    hidden: Annotated[
        str | None, typer.Option(help="dense: units of the hidden layers, by commas; 0 for none.")
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="dense: dropout rate after each hidden layer.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="dense: passes over the data.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="dense: images per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="dense: of Adam.")] = None,
    early_stopping: Annotated[
        bool,
        typer.Option(
            "--early-stopping", help="dense: stop when a held-out part of the training images is at its best."
        ),
    ] = False,
    max_memory: Annotated[
        str | None,
        typer.Option(
            help="Memory that may be taken, as 4GiB; dense, logistic and ridge are fitted on features that do not fit too. "
            "Default: half of what is free."
        ),
    ] = None,
    search: Annotated[
        bool | None,
        typer.Option(
            "--search/--no-search",
            help="Choose features and parameters that are not given by cross-validation on the training images. "
            "Default: for logistic, linear-svm and ridge.",
            show_default=False,
        ),
    ] = None,
    metric: ChoiceMetric = "accuracy",
    positive: Positive = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="ray searches in the workers of a Ray cluster, one core each.")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="ray: the cluster, as auto. Default: one that is started on this machine.")
    ] = None,
    predictions: Predictions = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: heads/<cache>-<type>.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a head that is saved there already.")] = False,
) -> None:
    """Fit a head on cached features, score it on images it has not seen, and save it.

    The score has a 95 % interval, and the images that it is of have no part in any choice. Images with identical bytes
    never sit on both sides of the split.
    """
    from headstart.exchange.prediction_table import check_predictions_file, write_predictions
    from headstart.fit import fit_head
    from headstart.runtime import parse_size
    from headstart.selection.search import what_to_search
    from headstart.storage.address import location

    given: dict[str, Any] = {
        "class_weight": class_weight,
        "C": c,
        "gamma": number_or_word(gamma),
        "alpha": alpha,
        "n_neighbors": n_neighbors,
        "metric": distance,
        "shrinkage": shrinkage,
        "hidden": units(hidden),
        "dropout": dropout,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "early_stopping": early_stopping or None,
    }
    spec = make_spec(
        config, head_type, features, scaling, seed, {name: value for name, value in given.items() if value is not None}
    )
    if predictions:
        check_predictions_file(predictions, [path for path in (*caches, config) if path])
    cache, *others = caches
    folder = output or Path("heads") / f"{location(cache).stem}-{spec.type.rpartition('.')[2]}"
    bound = parse_size(max_memory) if max_memory else None
    chosen = what_to_search(spec.type, asked=search, features_given=features is not None, complete=config is not None)
    if engine == "ray" and chosen == "none":
        raise typer.BadParameter("--engine ray goes with a search: --search.")
    if address and engine == "local":
        raise typer.BadParameter("--address goes with --engine ray.")
    result = fit_head(
        cache,
        spec,
        validation=number_or_word(validation),
        output=folder,
        search=chosen,
        max_memory=bound,
        among=others,
        engine=engine,
        address=address,
        overwrite=overwrite,
        metric=metric,
        positive=positive,
    )
    if predictions and result.scored:
        write_predictions(predictions, [result.scored])
    print_result(result)


def make_spec(
    config: Path | None,
    head_type: str | None,
    features: str | None,
    scaling: str | None,
    seed: int | None,
    params: dict[str, Any],
) -> HeadSpec:
    """Return the spec of these options, the config's values and then the catalogue's defaults where one is not given."""
    from headstart.heads.catalogue import default_spec
    from headstart.heads.parameters import read_config

    values: dict[str, Any] = read_config(config) if config else {"head_type": head_type or "logistic"}
    if head_type not in (None, values["head_type"]):
        raise typer.BadParameter(f"--type is {head_type}, and {config} is of {values['head_type']}. Leave one out.")
    given = {
        "features": tuple(name.strip() for name in features.split(",")) if features else None,
        "scaling": scaling,
        "random_state": seed,
        "params": {**values.get("params", {}), **params},
    }
    return default_spec(**values | {name: value for name, value in given.items() if value is not None})


def number_or_word(text: str | None) -> float | str | None:
    """Return a number where the text is one."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def units(text: str | None) -> list[int] | None:
    """Return the units of the hidden layers; ``0`` means no hidden layer."""
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",") if int(part)]
    except ValueError as error:
        raise typer.BadParameter(f"expected whole numbers as 256 or 512,128; received {text!r}") from error


def print_result(result: FitResult) -> None:
    """Print how good the head is, and where it was saved."""
    for warning in result.warnings:
        err.print(f"[yellow]{escape(warning)}[/]", soft_wrap=True)
    spec = result.spec
    if result.search:
        print_search(result.search, result.caches)
    out.print(
        f"[bold]{escape(spec.type)}[/] on {escape(', '.join(spec.features))} (scaling {escape(spec.scaling)}), "
        f"{counted(result.n_train)} fitted in {result.fit_seconds:.2f} s; scored on {escape(result.split)}, "
        "none of which it was fitted on",
        soft_wrap=True,
    )
    if result.streamed:
        out.print("The features did not fit in the memory: they were taken some at a time.")
    if result.n_dropped:
        out.print(f"{result.n_dropped:,} training images were left out: the same bytes are among the scored ones.")
    for note in result.notes:
        out.print(f"[yellow]{shown(note)}[/]", soft_wrap=True)
    print_score(result.score)
    out.print(f"Saved in {escape(str(result.folder))}", soft_wrap=True)


def print_search(search: SearchResult, caches: Sequence[Location]) -> None:
    """Print what was chosen, among what, and what must be known of it."""
    from headstart.scores import metric_named
    from headstart.selection.cross_validation import best_trial

    best = best_trial(search.trials)
    title = metric_named(best.metric).title
    if len(caches) > 1:
        best_of = [
            best_trial([trial for trial in search.trials if trial.source == number]).score
            for number in range(len(caches))
        ]
        words = ", ".join(f"{path} {score:.3f}" for path, score in zip(caches, best_of, strict=True))
        out.print(
            f"Cache: [bold]{escape(str(caches[search.source]))}[/] (best {title}: {escape(words)})", soft_wrap=True
        )
    words = ", ".join([*search.spec.features, *(f"{name} = {value}" for name, value in search.spec.params.items())])
    out.print(
        f"Chosen among {len(search.trials)} settings by {escape(search.folds)} in {search.seconds:.1f} s: {escape(words)} "
        f"({title} {best.score:.3f} there, too good where it is the best of several; the score below is of other images)",
        soft_wrap=True,
    )
    for note in search.notes:
        err.print(f"[yellow]{escape(note)}[/]", soft_wrap=True)


fit.__doc__ = f"{fit.__doc__}\n\n{EPILOG}"
