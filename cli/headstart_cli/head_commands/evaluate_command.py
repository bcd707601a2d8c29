"""``headstart evaluate``: score a saved head on a cache or a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from headstart.texts import counted
from headstart_cli.command_options import (
    BatchSize,
    Data,
    Device,
    Json,
    Positive,
    Precision,
    Predictions,
    SavedHead,
    Weights,
)
from headstart_cli.console import err, out, print_json, said, shown

if TYPE_CHECKING:
    from headstart.decisions.rule import DecisionScore
    from headstart.scores import AnyScore


def evaluate(
    head: SavedHead,
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="A cache, a folder of labelled images, or a CSV manifest. For a head fitted with --join: a cache of each "
            "of its recipes, in any order, or images.",
        ),
    ],
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        Data(metavar="NAME", help="Score only this split: train, validation or test."),
    ] = None,
    include_training: Annotated[
        bool, Data("--include-training", help="Also score images that the head was fitted on.")
    ] = False,
    weights: Weights = None,
    precision: Precision = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
    predictions: Predictions = None,
    positive: Positive = None,
    as_json: Json = False,
) -> None:
    """Score a saved head on images it was not fitted on; features of another recipe are refused.

    Training images of the head are left out and counted, and so are images of their groups. Near-duplicates of them are
    left out where the training images or their cache can be found.

    Examples
    --------
    headstart evaluate heads/data-logistic features/data.h5 --split test
    headstart evaluate heads/data-logistic new-images/
    headstart evaluate heads/vgg16+lite2-logistic features/vgg16-new.h5 features/lite2-new.h5
    """
    from headstart.evaluation import evaluate_head
    from headstart.exchange.prediction_table import check_predictions_file, write_predictions

    if predictions:
        check_predictions_file(predictions, data)
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
            err.print(f"  {shown(failure.ref.path)}: {said(failure.reason)}")
    if as_json:
        print_json(found.to_dict())
        return
    for note in (found.seen.sentence, *found.notes):
        out.print(f"[yellow]{said(note)}[/]")
    print_score(found.score)
    print_decision(found.decision)


def print_score(score: AnyScore) -> None:
    """Print a score: one line, the rates of the positive class, the per-class table, the confusion matrix."""
    from headstart.report.text_tables import (
        anomaly_line,
        chance_line,
        confusion_table,
        number_line,
        order_line,
        per_class_table,
        positive_line,
        summary_line,
    )
    from headstart.scores import AnomalyScore, NumberScore, OrderScore

    if isinstance(score, NumberScore):
        out.print(number_line(score))
        return
    if isinstance(score, AnomalyScore):
        out.print(anomaly_line(score))
    else:
        if isinstance(score, OrderScore):
            out.print(order_line(score))
        out.print(summary_line(score))
        if line := chance_line(score):
            out.print(f"[yellow]{line}[/]")
    if score.positive:
        out.print(positive_line(score.positive))
    out.print(per_class_table(score))
    matrix = confusion_table(score)
    if matrix is not None:
        out.print(matrix)


def print_decision(score: DecisionScore | None) -> None:
    """Print how the decisions of a head do, if it has a rule for them."""
    from headstart.report.decision_text import decision_lines

    for line in decision_lines(score) if score else ():
        out.print(line)
