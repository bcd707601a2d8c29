"""``headstart export``: the whole classifier as one Keras or ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from headstart_cli.console import out


def export(
    head: Annotated[Path, typer.Argument(help="Folder of a saved head.")],
    output: Annotated[Path, typer.Argument(help="The file to write, as model.keras or model.onnx.")],
    weights: Annotated[str, typer.Option(help="imagenet, or the file of the head's custom weights.")] = "imagenet",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
) -> None:
    r"""Write one model: a batch of RGB images of any size in (0–255), class probabilities out.

    Resize and preprocessing are inside; loading it needs Keras or an ONNX runtime, and nothing of headstart. Class names are
    written beside a Keras model, and into an ONNX model. .onnx needs onnx: pip install "headstart\[onnx]".

    [bold]Examples[/]

    headstart export heads/data-dense model.keras

    headstart export heads/data-logistic model.onnx
    """
    from headstart.export import export_model

    names = export_model(head, output, weights=weights, overwrite=overwrite)
    where = "in its metadata" if names == output else f"in {names}"
    out.print(
        f"Wrote {escape(str(output))}, {output.stat().st_size / 1e6:.1f} MB; class names, in the order of its outputs, "
        f"{escape(where)}.",
        soft_wrap=True,
    )
