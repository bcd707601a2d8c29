"""``headstart explain``: where in images the decisions of a head come from."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from headstart_cli.command_options import BatchSize, Device, Output, Overwrite, Precision, SavedHead, Weights
from headstart_cli.console import err, out, said, shown
from headstart_cli.head_commands.predict_command import Seen, with_standard_input

if TYPE_CHECKING:
    from headstart.explain.overlays import Entry


def explain(
    head: SavedHead,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGES...",
            help="Images, folders of images, a CSV with a column path, a .txt with a path a line, or - to read paths from "
            "standard input.",
        ),
    ],
    output: Annotated[Path, Output("-o", "--output", metavar="FOLDER", help="New folder of overlays and index.html.")],
    class_name: Annotated[
        str | None,
        Output("--class", metavar="NAME", help="Class to explain. Default: the one that the head decides for."),
    ] = None,
    method: Annotated[
        Literal["auto", "cam", "occlusion", "occlusion-pixels"],
        Output(metavar="NAME", help="cam, occlusion (of the map), occlusion-pixels (slow), or auto."),
    ] = "auto",
    overwrite: Overwrite = False,
    weights: Weights = None,
    precision: Precision = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
) -> None:
    """Show where in images the decisions of a head come from: a heat map over each image, and a page of all.

    cam is exact, for heads that are linear in avg. occlusion replaces each cell of the last map by the mean of the map and
    shows by how much the log-odds of the class fall; occlusion-pixels does so with pixels, by a forward pass for each cell.
    auto takes the first of these that is possible and shows the whole decision. Unreadable images are listed, and the exit
    code is 1.

    Examples
    --------
    headstart explain heads/data-logistic photo.jpg -o why/
    headstart explain heads/data-logistic new-images/ -o why-bees/ --class bees
    headstart explain heads/data-knn photo.jpg -o why/ --method occlusion-pixels --overwrite
    """
    from headstart.explain.explanations import explain_images
    from headstart.explain.overlays import check_target, write_explanations
    from headstart.predict import Predictor

    check_target(output, overwrite=overwrite)  # before the network is loaded
    predictor = Predictor(head, weights=weights, precision=precision, batch_size=batch_size, device=device)
    found = explain_images(predictor, with_standard_input(images), class_name=class_name, method=method)
    entries = write_explanations(found, output, title=str(head), overwrite=overwrite)
    print_entries(entries)
    out.print(f"{shown(output / 'index.html')}")
    seen = Seen()
    deque(seen.counted(entry.explanation.prediction for entry in entries), maxlen=0)
    seen.report(marked=True, is_known=predictor.bundle.familiarity is not None)


def print_entries(entries: Iterable[Entry]) -> None:
    """Print class, probability and method of each image, and what is not shown."""
    table = Table("image", "class", "value", "method")
    missing: dict[str, None] = {}
    for entry in entries:
        one = entry.explanation
        if entry.file:
            table.add_row(shown(one.prediction.path), shown(one.class_name), f"{one.value:.3f}", one.method)
            missing |= {one.missing: None} if one.missing else {}
    if table.row_count:
        out.print(table)
    for sentence in missing:
        err.print(said(sentence))
