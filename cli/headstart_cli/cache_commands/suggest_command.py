"""``headstart suggest``: which unlabelled images to label next."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from headstart.texts import counted, csv_cell, reason_of
from headstart_cli.command_options import Cache, Overwrite
from headstart_cli.console import err, out, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headstart.labelling.suggestions import Suggestion

#: Suggestions that are printed.
N_PRINTED = 20


def suggest(
    cache: Cache,
    head: Annotated[Path, typer.Option(metavar="FOLDER", help="A saved head, fitted on the labelled images.")],
    n_images: Annotated[int, typer.Option("-n", "--images", min=1, metavar="N", help="How many images.")] = 50,
    strategy: Annotated[
        Literal["diverse", "margin", "random"],
        typer.Option(metavar="NAME", help="diverse: uncertain and different; margin: the most uncertain; or random."),
    ] = "diverse",
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="CSV", help="Also write a manifest with an empty column label to fill in."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """List the unlabelled images of a cache whose labels would help the head most.

    Label them, extract again, and fit again. How many labels that saves: docs/labelling.md.

    Examples
    --------
    headstart suggest features/loose.h5 --head heads/photos-logistic -n 50
    headstart suggest features/loose.h5 --head heads/photos-logistic -o to-label.csv
    """
    from headstart.labelling.suggestions import suggest_images

    if output is not None and output.exists() and not overwrite:
        raise typer.BadParameter(f"{output} exists. Replace it with --overwrite, or name another file.")
    with err.status("Predicting …"):
        found = suggest_images(cache, head, n_images, strategy=strategy, random_state=seed)
    table = Table("image", "prediction", "probability", "margin")
    for one in found[:N_PRINTED]:
        table.add_row(shown(one.path), shown(one.prediction), f"{one.probability:.3f}", f"{one.margin:.3f}")
    out.print(table)
    if len(found) > N_PRINTED:
        out.print(f"… {counted(len(found))} in all; -o FILE.csv writes them.")
    if output is not None:
        write_manifest(output, found)
        out.print(f"Enter labels in {shown(output)}.")


def write_manifest(path: Path, found: Sequence[Suggestion]) -> None:
    """Write suggested images to a CSV; raise DataError if it cannot be written."""
    from headstart.errors import DataError

    try:
        with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "prediction", "probability", "margin"])
            writer.writerows(
                [csv_cell(one.path), "", csv_cell(one.prediction), f"{one.probability:.4f}", f"{one.margin:.4f}"]
                for one in found
            )
    except OSError as error:
        raise DataError(f"{path} cannot be written: {reason_of(error)}") from error
