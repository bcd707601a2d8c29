"""``headstart repair``: compute the damaged rows of a cache again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart_cli.command_options import BatchSize, Device, Weights
from headstart_cli.console import ProgressBar, out, shown

#: Images named before the rest is counted.
LISTED = 10


def repair(
    cache: Annotated[Path, typer.Argument(help="A feature cache, e.g. features/data.h5.")],
    folder: Annotated[Path | None, typer.Argument(metavar="[DATA]", help="The same as --data.")] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The folder of images that the cache was made from.")
    ] = None,
    weights: Weights = "imagenet",
    batch_size: BatchSize = None,
    device: Device = "auto",
) -> None:
    """Compute the damaged rows of a cache again from their images; all other rows stay as they are.

    The old file is replaced once the new one is complete. If more than rows of features is damaged, or an image has changed,
    nothing is written, and the message names what to do instead.

    Examples
    --------
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
        f"{shown(cache)} is whole again: {len(done.images):,} of {done.n_images:,} rows were computed again.",
        soft_wrap=True,
    )
    for image in done.images[:LISTED]:
        out.print(f"  {shown(image)}", soft_wrap=True)
    if len(done.images) > LISTED:
        out.print(f"  … and {len(done.images) - LISTED:,} more")
