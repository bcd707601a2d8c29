"""``headstart export``: the whole classifier as one Keras file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from headstart_cli.console import out


def export(
    head: Annotated[Path, typer.Argument(help="Folder of a saved head.")],
    output: Annotated[Path, typer.Argument(help="The file to write, as model.keras.")],
    weights: Annotated[str, typer.Option(help="imagenet, or the file of the head's custom weights.")] = "imagenet",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
) -> None:
    """Write one Keras model: a batch of RGB images of any size in (0–255), class probabilities out.

    Resize and preprocessing are inside; loading it needs Keras and nothing of headstart. Class names are written beside it.

    [bold]Example[/]

    headstart export heads/data-dense model.keras
    """
    from headstart.export import export_keras

    names = export_keras(head, output, weights=weights, overwrite=overwrite)
    out.print(
        f"Wrote {escape(str(output))}; class names, in the order of its outputs, in {escape(str(names))}.",
        soft_wrap=True,
    )
