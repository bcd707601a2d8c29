"""``headstart export``: the whole classifier as one Keras or ONNX file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from headstart_cli.command_options import Overwrite, SavedHead, Weights
from headstart_cli.console import err, out, said


def export(
    head: SavedHead,
    output: Annotated[Path, typer.Argument(help="The file to write, e.g. model.keras or model.onnx.")],
    weights: Weights = None,
    overwrite: Overwrite = False,
) -> None:
    r"""Write backbone and head as one model: RGB images of any size in (0–255), class probabilities out.

    Resize and preprocessing are part of the model; it needs Keras or an ONNX runtime, but not headstart. Class names are
    written beside a Keras model, and into an ONNX model. .onnx needs onnx: pip install "headstart\[onnx]".

    Examples
    --------
    headstart export heads/data-dense model.keras
    headstart export heads/data-logistic model.onnx
    """
    from headstart.bundles.metadata import read_metadata
    from headstart.exchange import export_model
    from headstart.exchange.keras_file import WITHOUT_DECISION

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", WITHOUT_DECISION)  # it is printed below
        names = export_model(head, output, weights=weights, overwrite=overwrite)
    where = "in its metadata" if names == output else f"in {names}"
    out.print(
        f"Wrote {escape(str(output))}, {output.stat().st_size / 1e6:.1f} MB; class names, in the order of its outputs, "
        f"{escape(where)}."
    )
    rule = read_metadata(head).decision
    if rule:
        err.print(f"[yellow]{said(f'{WITHOUT_DECISION} {rule.in_words()}')}[/]")
