"""``headstart evaluate``: score a saved head on a cache or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from headstart.texts import counted
from headstart_cli.console import err, out, print_json, shown
from headstart_cli.head_options import Positive, Predictions

if TYPE_CHECKING:
    from headstart.scores import Score


def evaluate(
    head: Annotated[Path, typer.Argument(help="Folder of a saved head.")],
    data: Annotated[str, typer.Argument(help="A cache (.h5), a folder of labelled images, or a CSV manifest.")],
    split: Annotated[
        Literal["train", "validation", "test"] | None, typer.Option(help="Score on this split only.")
    ] = None,
    include_training: Annotated[
        bool, typer.Option("--include-training", help="Score on images that the head was fitted on as well.")
    ] = False,
    positive: Positive = None,
    predictions: Predictions = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    weights: Annotated[str, typer.Option(help="imagenet, or the file of the head's custom weights.")] = "imagenet",
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="Compute in this precision instead of the head's own."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per forward pass.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or gpu:N.")] = "auto",
) -> None:
    """Score a saved head on images it was not fitted on. Features of another recipe are refused.

    Images that the head was fitted on are left out and counted; so are images of one group with one, and near-duplicates of
    one where the training images, or the cache that they are in, are at hand.

    [bold]Examples[/]

    headstart evaluate heads/data-logistic features/data.h5 --split test

    headstart evaluate heads/data-logistic new-images/
    """
    from headstart.evaluation import evaluate_head
    from headstart.exchange.prediction_table import check_predictions_file, write_predictions

    if predictions:
        check_predictions_file(predictions, [data])
    found = evaluate_head(
        head,
        data,
        split=split,
        include_training=include_training,
        positive=positive,
        weights=weights,
        precision=precision,
        batch_size=batch_size,
        device=device,
    )
    if predictions and found.scored:
        write_predictions(predictions, [found.scored])
    if found.failures:
        err.print(f"[bold yellow]{counted(len(found.failures))} could not be read[/] and are not in the score:")
        for failure in found.failures:
            err.print(f"  {shown(failure.ref.path)}: {shown(failure.reason)}", soft_wrap=True)
    if as_json:
        print_json(found.to_dict())
        return
    for note in (found.seen.sentence, *found.notes):
        out.print(f"[yellow]{shown(note)}[/]", soft_wrap=True)
    print_score(found.score)


def print_score(score: Score) -> None:
    """Print a score: one line, the rates of the positive class, the per-class table, the confusion matrix."""
    from headstart.report.text_tables import chance_line, confusion_table, per_class_table, positive_line, summary_line

    out.print(summary_line(score), soft_wrap=True)
    if line := chance_line(score):
        out.print(f"[yellow]{line}[/]", soft_wrap=True)
    if score.positive:
        out.print(positive_line(score.positive), soft_wrap=True)
    out.print(per_class_table(score))
    matrix = confusion_table(score)
    if matrix is not None:
        out.print(matrix)
