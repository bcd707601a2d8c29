"""``headstart predict``: class probabilities for images."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from headstart.texts import counted
from headstart_cli.command_options import BatchSize, Device, Output, Precision, Raw, SavedHead, Weights
from headstart_cli.console import err, said, shown
from headstart_cli.head_commands.prediction_output import (
    KINDS,
    prediction_row,
    print_counts,
    print_rows,
    print_table,
)

if TYPE_CHECKING:
    from headstart.predict import Prediction

#: The reason of :func:`refused`.
UNFAMILIAR = "It is unlike the training images."


def predict(
    head: SavedHead,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGES...",
            help="Images, folders of images, a CSV with a column path, a .txt with a path a line, or - to read paths from "
            "standard input.",
        ),
    ],
    unfamiliar: Annotated[
        Literal["flag", "refuse", "keep"],
        typer.Option(
            metavar="HOW",
            help="Images unlike the training images: flag, refuse to predict them, or keep them like all others.",
        ),
    ] = "flag",
    top: Annotated[int, Output("-k", "--top", min=1, metavar="N", help="table: classes shown per image.")] = 3,
    output_format: Annotated[
        Literal["table", "csv", "jsonl"],
        Output("--format", metavar="NAME", help="table, csv, or jsonl: a JSON object per line."),
    ] = "table",
    output: Annotated[
        Path | None, Output("-o", "--output", metavar="FILE", help="Write to a .csv, .jsonl or .parquet file instead.")
    ] = None,
    sort: Annotated[
        Literal["given", "uncertain", "unfamiliar"],
        Output(
            metavar="HOW",
            help="uncertain: lowest probability of the predicted class first; unfamiliar: farthest first.",
        ),
    ] = "given",
    summary: Annotated[bool, Output("--summary", help="Only print how many images there are of each class.")] = False,
    raw: Raw = False,
    weights: Weights = None,
    precision: Precision = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
) -> None:
    """Predict the classes or the numbers of images, decoded and computed exactly like the head's training images.

    Images unlike the training images are marked: a head knows its own classes only, and can be sure of any image. Unreadable
    images are rows too, and are listed on standard error; the exit code is then 1. Losses while decoding (further pages,
    clipped values) are listed there, too.

    Examples
    --------
    headstart predict heads/data-logistic photo.jpg
    headstart predict heads/data-logistic new-images/ --format csv > predictions.csv
    headstart predict heads/data-logistic new-images/ -o predictions.parquet --sort uncertain
    find new-images -newer last-run | headstart predict heads/data-logistic -
    """
    from headstart.exchange.prediction_table import check_predictions_file, publish_predictions
    from headstart.predict import Predictor

    if output is not None:
        check_predictions_file(output, images, tuple(KINDS))
    predictor = Predictor(head, weights=weights, precision=precision, batch_size=batch_size, device=device)
    names, of_numbers = predictor.class_names, predictor.bundle.task == "regression"
    if sort == "uncertain" and of_numbers:
        raise typer.BadParameter("--sort uncertain goes with probabilities, and this head predicts a number.")
    seen = Seen()
    found: Iterable[Prediction] = seen.counted(predictor.predict(with_standard_input(images)))
    if unfamiliar == "refuse":
        found = map(refused, found)
    if sort != "given":
        found = sorted(found, key=uncertainty if sort == "uncertain" else distance)
    rows = map(partial(prediction_row, class_names=names, of_numbers=of_numbers), found)
    if summary:
        print_counts(list(rows), of_numbers=of_numbers)
    elif output is not None:
        publish_predictions(output, KINDS[output.suffix.lower()](list(rows)))
    elif output_format == "table":
        print_table(found, names, top, of_numbers=of_numbers, decides=predictor.bundle.decision is not None)
    else:
        print_rows(rows, output_format, raw=raw)
    seen.report(marked=unfamiliar != "keep", is_known=predictor.bundle.familiarity is not None)


def refused(prediction: Prediction) -> Prediction:
    """Return a prediction, without probabilities where the image is unfamiliar."""
    return replace(prediction, probabilities=None, failure=UNFAMILIAR) if prediction.is_unfamiliar else prediction


def uncertainty(prediction: Prediction) -> float:
    """Return the probability of the predicted class; images that could not be read come first."""
    return 0.0 if prediction.probabilities is None else float(prediction.probabilities.max())


def distance(prediction: Prediction) -> float:
    """Return how near an image is to the training images; images that could not be read come first."""
    return -float("inf") if prediction.unfamiliarity is None else -prediction.unfamiliarity


class Seen:
    """What is said of all predictions at the end."""

    def __init__(self) -> None:
        self.n_read, self.n_unfamiliar = 0, 0
        self.failed: list[Prediction] = []
        self.notes: Counter[str] = Counter()

    def counted(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Yield the predictions, and count them."""
        for prediction in predictions:
            if prediction.probabilities is None:
                self.failed.append(prediction)
            else:
                self.n_read += 1
                self.n_unfamiliar += prediction.is_unfamiliar
                self.notes.update(prediction.notes)
            yield prediction

    def report(self, *, marked: bool, is_known: bool) -> None:
        """Print unfamiliar images, losses while decoding, and unreadable images; exit with 1 if there are any of these."""
        from headstart.images.decode import sentences

        for sentence in sentences(self.notes, with_options=False):
            err.print(said(sentence))
        if marked and self.n_unfamiliar:
            err.print(
                f"[bold yellow]{self.n_unfamiliar:,} of {counted(self.n_read)} unfamiliar[/]: unlike the training images, so "
                "that their probabilities mean nothing."
            )
        elif marked and not is_known:
            err.print("Unfamiliar images are not marked: an older version saved the head. Fit it again.")
        for prediction in self.failed:
            err.print(f"{shown(prediction.path)}: {said(prediction.failure)}")
        if self.failed:
            err.print(f"[bold yellow]{counted(len(self.failed))} could not be read.[/]")
            raise typer.Exit(1)


def with_standard_input(images: Iterable[Path]) -> list[Path]:
    """Return what is to be predicted, with the lines of standard input in the place of ``-``."""
    found: list[Path] = []
    for path in images:
        if path == Path("-"):
            lines = sys.stdin.buffer.read().splitlines()
            found += [Path(os.fsdecode(line)) for line in lines if line.strip()]
        else:
            found.append(path)
    return found
