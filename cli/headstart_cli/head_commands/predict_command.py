"""``headstart predict``: class probabilities for images."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from headstart.texts import counted, csv_cell, printable
from headstart_cli.command_options import BatchSize, Device, Output, Precision, Raw, SavedHead, Weights
from headstart_cli.console import err, out, said, shown

if TYPE_CHECKING:
    from headstart.predict import Prediction

#: What prints predictions, given them, the names of the classes, and how many classes to show.
Show = Callable[["Iterable[Prediction]", Sequence[str], int], None]


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
    top: Annotated[int, Output("-k", "--top", min=1, metavar="N", help="Classes shown per image.")] = 3,
    output_format: Annotated[
        Literal["table", "csv", "jsonl"],
        Output("--format", metavar="NAME", help="table, csv, or jsonl: a JSON object per line."),
    ] = "table",
    raw: Raw = False,
    weights: Weights = None,
    precision: Precision = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
) -> None:
    """Predict the classes or the numbers of images, decoded and computed exactly like the head's training images.

    Unreadable images are listed on standard error, the others are predicted, and the exit code is 1. Losses while decoding
    (further pages, clipped values) are listed there, too.

    Examples
    --------
    headstart predict heads/data-logistic photo.jpg
    headstart predict heads/data-logistic new-images/ --format csv > predictions.csv
    find new-images -newer last-run | headstart predict heads/data-logistic -
    """
    from headstart.predict import Predictor

    predictor = Predictor(head, weights=weights, precision=precision, batch_size=batch_size, device=device)
    failed: list[Prediction] = []
    notes: Counter[str] = Counter()
    if predictor.bundle.task == "regression":
        predicted = readable(predictor.predict(with_standard_input(images)), failed, notes)
        print_numbers(predicted, output_format, raw=raw)
        report(failed, notes)
        return
    kinds: dict[str, Show] = {"table": print_table, "csv": partial(print_csv, raw=raw), "jsonl": print_jsonl}
    kinds[output_format](
        readable(predictor.predict(with_standard_input(images)), failed, notes), predictor.class_names, top
    )
    report(failed, notes)


def report(failed: Sequence[Prediction], notes: Counter[str]) -> None:
    """Print losses while decoding and images that could not be read; exit with 1 if there are any of these."""
    from headstart.images.decode import sentences

    for sentence in sentences(notes, with_options=False):
        err.print(said(sentence))
    for prediction in failed:
        err.print(f"{shown(prediction.path)}: {said(prediction.failure)}")
    if failed:
        err.print(f"[bold yellow]{counted(len(failed))} could not be read.[/]")
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


def readable(predictions: Iterable[Prediction], failed: list[Prediction], notes: Counter[str]) -> Iterable[Prediction]:
    """Yield the predictions of images that could be read, and count their notes; put the others into ``failed``."""
    for prediction in predictions:
        if prediction.probabilities is None:
            failed.append(prediction)
        else:
            notes.update(prediction.notes)
            yield prediction


def print_table(predictions: Iterable[Prediction], class_names: Sequence[str], top: int) -> None:
    table = Table("image", *(f"class {i + 1}" for i in range(min(top, len(class_names)))))
    for prediction in predictions:
        best = prediction.top(class_names, top)
        cells = (f"{shown(name)} [dim]{probability:.3f}[/]" for name, probability in best)
        table.add_row(shown(prediction.path), *cells)
    out.print(table)


def print_numbers(predictions: Iterable[Prediction], output_format: str, *, raw: bool) -> None:
    """Print path and predicted number of each image."""
    rows = ((one.path, float(one.probabilities[0])) for one in predictions if one.probabilities is not None)
    if output_format == "table":
        table = Table("image", "target")
        for path, number in rows:
            table.add_row(shown(path), f"{number:.4g}")
        out.print(table)
    elif output_format == "csv":
        writer = csv.writer(sys.stdout)
        writer.writerow(["path", "target"])
        writer.writerows((path if raw else safe_cell(path), number) for path, number in rows)
    else:
        for path, number in rows:
            typer.echo(json.dumps({"path": printable(path), "target": number}))


def print_csv(predictions: Iterable[Prediction], class_names: Sequence[str], top: int, *, raw: bool = False) -> None:
    """Print one line per image: path, then class and probability of the most probable classes.

    Unless ``raw``, text that a spreadsheet would take for a formula begins with ``'``, and control characters are escaped.
    """
    writer = csv.writer(sys.stdout)
    columns = [f"{part}_{i + 1}" for i in range(min(top, len(class_names))) for part in ("class", "probability")]
    writer.writerow(["path", *columns])
    for prediction in predictions:
        row = [prediction.path, *(cell for pair in prediction.top(class_names, top) for cell in pair)]
        writer.writerow(row if raw else map(safe_cell, row))


def safe_cell(value: Any) -> Any:
    """Return a value that neither a terminal nor a spreadsheet takes for something else than text or a number."""
    return csv_cell(printable(value)) if isinstance(value, str) else value


def print_jsonl(predictions: Iterable[Prediction], class_names: Sequence[str], top: int) -> None:
    for prediction in predictions:
        best = [{"class": name, "probability": value} for name, value in prediction.top(class_names, top)]
        typer.echo(json.dumps({"path": printable(prediction.path), "predictions": best}))
