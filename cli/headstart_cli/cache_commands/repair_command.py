"""``headstart repair``: damaged rows of a cache computed again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart_cli.console import ProgressBar, out, shown

#: Images named before the rest is counted.
LISTED = 10


def repair(
    cache: Annotated[Path, typer.Argument(help="A feature cache, as features/data.h5.")],
    folder: Annotated[Path | None, typer.Argument(metavar="[DATA]", help="The same as --data.")] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The folder of images that it was made from.")
    ] = None,
    weights: Annotated[str, typer.Option(help="imagenet, or the file of the cache's custom weights.")] = "imagenet",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per forward pass.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or gpu:N.")] = "auto",
) -> None:
    """Compute the damaged rows of a cache again from their images; all others stay as they are.

    The old file stays until the new one is whole. Where more than rows of features is damaged, or an image has changed,
    nothing is done, and it is said what to do instead.

    [bold]Examples[/]

    headstart repair features/data.h5 data/
    """
    images = folder or data
    if images is None or (folder and data):
        raise typer.BadParameter("Name the folder of images, once: headstart repair features/data.h5 data/")
    from headstart.repair import repair_cache

    with ProgressBar("Repairing") as progress:
        done = repair_cache(
            cache, images, weights=weights, batch_size=batch_size, device=device, progress=progress
        )  # fmt: skip
    if not done.images:
        out.print(f"{shown(cache)} is whole: nothing was changed.", soft_wrap=True)
        return
    out.print(
        f"{shown(cache)} is whole again: {len(done.images):,} of {done.n_images:,} rows were computed anew.",
        soft_wrap=True,
    )
    for image in done.images[:LISTED]:
        out.print(f"  {shown(image)}", soft_wrap=True)
    if len(done.images) > LISTED:
        out.print(f"  … and {len(done.images) - LISTED:,} more")
