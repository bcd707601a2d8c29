"""Predictions as a table for people, and as rows for programs."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from headstart.texts import counted, csv_cell, printable
from headstart_cli.console import out, shown

if TYPE_CHECKING:
    from headstart.predict import Prediction

#: Prefix of the columns of probabilities.
PROBABILITY = "probability_"

Row = dict[str, Any]


def prediction_row(one: Prediction, class_names: Sequence[str], *, of_numbers: bool) -> Row:
    """Return what is known of an image by name; None where it could not be read, or an older version saved the head."""
    values: list[float | None] = [None] * len(class_names) if one.probabilities is None else one.probabilities.tolist()
    if of_numbers:
        predicted: Row = {"prediction": values[0]}
    else:
        predicted = class_values(one, class_names) | {"probabilities": dict(zip(class_names, values, strict=True))}
    image, label = one.nearest or (None, None)
    return {
        "path": one.path,
        **predicted,
        "unfamiliar": None if one.unfamiliarity is None else one.is_unfamiliar,
        "unfamiliarity": one.unfamiliarity,
        "nearest_image": image,
        "nearest_label": label,
        "failure": one.failure or None,
    }


def class_values(one: Prediction, class_names: Sequence[str]) -> Row:
    """Return the most probable class, the one that the head decides for, and its set of classes where it has sets."""
    best = one.top(class_names, 1)
    prediction = best[0][0] if best else None
    rule = one.decision if best else None
    classes = rule.classes if rule else None
    return {
        "prediction": prediction,
        "decision": rule.class_name if rule else prediction,
        "unsure": None if rule is None or classes is None else rule.unsure,
        "classes": None if classes is None else list(classes),
    }


def flat(row: Row) -> Row:
    """Return a row with a column per class, and the classes of a set in one, separated by ``;``."""
    if row.get("classes") is not None:
        row = row | {"classes": ";".join(row["classes"])}
    probabilities = {f"{PROBABILITY}{name}": value for name, value in row.get("probabilities", {}).items()}
    return {
        name: value
        for key, one in row.items()
        for name, value in (probabilities if key == "probabilities" else {key: one}).items()
    }


def csv_text(rows: Iterable[Row], *, raw: bool = False) -> Iterator[str]:
    """Yield a header and a line per image.

    Unless ``raw``, text that a spreadsheet would take for a formula begins with ``'``, and control characters are escaped.
    """
    for number, row in enumerate(map(flat, rows)):
        text = io.StringIO()
        lines = [list(row), list(row.values())] if number == 0 else [list(row.values())]
        csv.writer(text, lineterminator="\n").writerows([_cell(one, raw=raw) for one in line] for line in lines)
        yield text.getvalue()


def _cell(value: Any, *, raw: bool) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return csv_cell(printable(value)) if isinstance(value, str) and not raw else value


def json_lines(rows: Iterable[Row], *, raw: bool = False) -> Iterator[str]:
    """Yield a JSON object per image, in a line of its own; control characters of a path are escaped unless ``raw``."""
    for row in rows:
        path = row["path"] if raw else printable(row["path"])
        yield json.dumps(row | {"path": path}) + "\n"


def parquet_bytes(rows: Sequence[Row]) -> bytes:
    r"""Return a Parquet table with the columns of the CSV; an undecodable byte of a path becomes ``\xff``."""
    from headstart.exchange.export_features import import_pyarrow, valid

    pa, parquet = import_pyarrow()
    columns = {name: [flat(row)[name] for row in rows] for name in flat(rows[0])}
    arrays = {}
    for name, values in columns.items():
        kinds = {type(value) for value in values if value is not None}
        texts = [valid(value) if isinstance(value, str) else value for value in values]
        arrays[valid(name)] = pa.array(texts, None if kinds - {str} else pa.string())
    target = io.BytesIO()
    parquet.write_table(pa.table(arrays), target)
    return target.getvalue()


#: Suffix of a file → what it holds.
KINDS: dict[str, Callable[[Sequence[Row]], bytes]] = {
    ".csv": lambda rows: "".join(csv_text(rows)).encode("utf-8", "surrogateescape"),
    ".jsonl": lambda rows: "".join(json_lines(rows)).encode(),
    ".parquet": parquet_bytes,
}


def print_rows(rows: Iterable[Row], output_format: str, *, raw: bool) -> None:
    """Print rows as ``csv`` or ``jsonl``, each as soon as it is there."""
    for text in csv_text(rows, raw=raw) if output_format == "csv" else json_lines(rows):
        sys.stdout.write(text)


def print_table(
    predictions: Iterable[Prediction], class_names: Sequence[str], top: int, *, of_numbers: bool, decides: bool = False
) -> None:
    """Print the most probable classes of each image that could be read, or its number; and the nearest training image."""
    columns = ["target"] if of_numbers else [f"class {i + 1}" for i in range(min(top, len(class_names)))]
    table = Table("image", *columns, *(["decision"] if decides else []), "nearest training image")
    for one in predictions:
        if one.probabilities is not None or one.is_unfamiliar:
            cells = number_cells(one) if of_numbers else class_cells(one.top(class_names, top), len(columns))
            table.add_row(shown(one.path), *cells, *([decision_cell(one)] if decides else []), familiarity_cell(one))
    out.print(table)


def class_cells(best: Sequence[tuple[str, float]], n: int) -> list[str]:
    """Return ``n`` cells: classes with their probabilities, or a hyphen in place of a refused one."""
    cells = [f"{shown(name)} [dim]{probability:.3f}[/]" for name, probability in best]
    return cells or ["-"] * n


def number_cells(one: Prediction) -> list[str]:
    """Return the predicted number, or a hyphen."""
    return ["-"] if one.probabilities is None else [f"{one.probabilities[0]:.4g}"]


def decision_cell(one: Prediction) -> str:
    """Return the class that the head decides for, and the set of classes where it is unsure."""
    if one.decision is None or one.probabilities is None:
        return "-"
    doubt = f" [yellow]unsure:[/] {shown(', '.join(one.decision.classes or ()) or 'no class')}"
    return f"[bold]{shown(one.decision.class_name)}[/]{doubt if one.decision.unsure else ''}"


def familiarity_cell(one: Prediction) -> str:
    """Return label and path of the nearest training image, and whether the image is unlike all of them."""
    if one.nearest is None:
        return ""
    image, label = map(shown, one.nearest)
    return f"{'[bold yellow]unfamiliar[/]; ' if one.is_unfamiliar else ''}{label} [dim]{image}[/]"


def print_counts(rows: Sequence[Row], *, of_numbers: bool) -> None:
    """Print how many images there are of each predicted class, unfamiliar and unreadable ones."""
    read = [row for row in rows if row["failure"] is None]
    table = Table("decision", "images")
    for name, n in [] if of_numbers else Counter(row["decision"] for row in read).most_common():
        table.add_row(shown(name), f"{n:,}")
    out.print(table if not of_numbers else f"{counted(len(read))} predicted")
    if not of_numbers and any(row["unsure"] is not None for row in read):
        out.print(f"{sum(bool(row['unsure']) for row in read):,} of {counted(len(read))} are unsure.")
    out.print(f"{sum(bool(row['unfamiliar']) for row in read):,} of {counted(len(read))} are unfamiliar.")
