"""``headstart import``: features that were made elsewhere, as a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from headstart.texts import counted
from headstart_cli.console import err, out, shown


def import_features(
    features: Annotated[
        Path,
        typer.Argument(
            help="An .npz or HDF5 file with X, and optionally y, paths, class_names, split, group, sha256; or an .h5 or "
            ".parquet as headstart convert writes them."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The cache to write, as features/dinov2.h5.")],
    name: Annotated[str, typer.Option(help="Of what made the features, as dinov2.")],
    class_names: Annotated[
        str | None, typer.Option(help="Names for the numbers in y, by commas, in place of those in the file.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the cache if it exists.")] = False,
) -> None:
    """Make a cache of features that another network made, so that heads can be fitted and compared on them.

    X (or features, embeddings) has the shape (n, features) or (n, height, width, channels); y (or labels, targets) holds
    numbers or names; paths are relative to the folder of images. Nothing in the file is unpickled. Give sha256, the digests
    of the image files, if you can: copies of one image are then known as such.

    [bold]Examples[/]

    headstart import dinov2.npz -o features/dinov2.h5 --name dinov2

    headstart import dinov2.npz -o features/dinov2.h5 --name dinov2 --class-names ants,bees
    """
    from headstart.exchange.import_features import import_features as make_cache

    names = [one.strip() for one in class_names.split(",")] if class_names else None
    made = make_cache(features, output, name=name, class_names=names, overwrite=overwrite)
    for notice in made.notices:
        err.print(shown(notice), soft_wrap=True)
    unlabelled = f", {made.n_unlabelled:,} of them unlabelled" if made.n_unlabelled else ""
    shape = " × ".join(map(str, made.map_shape))
    out.print(
        f"Wrote {escape(str(made.output))}: {counted(made.n_images)}{unlabelled}, {counted(len(made.class_names), 'class')}, "
        f"features {shape}; rows are known by the {made.identity}.",
        soft_wrap=True,
    )
