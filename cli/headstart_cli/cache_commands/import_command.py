"""``headstart import``: a cache of features made by another program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from headstart.texts import counted
from headstart_cli.command_options import Overwrite
from headstart_cli.console import err, out, shown


def import_features(
    features: Annotated[
        Path,
        typer.Argument(
            help="An .npz or HDF5 file with X, and optionally y, paths, class_names, split, group, sha256; or an .h5 or "
            ".parquet from headstart convert."
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="PATH", help="The cache to write, e.g. features/dinov2.h5.")
    ],
    name: Annotated[str, typer.Option(help="Name of the network, e.g. dinov2.")],
    class_names: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Names of the classes in y, by number, commas between.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Make a cache of another network's features, so that heads can be fitted and compared on them.

    X (or features, embeddings) has the shape (n, features) or (n, height, width, channels); y (or labels, targets) holds
    numbers or names; paths are relative to the folder of images. Nothing in the file is unpickled. Include sha256, the
    digests of the image files, if you can: copies of an image are then recognised.

    Examples
    --------
    headstart import dinov2.npz -o features/dinov2.h5 --name dinov2
    headstart import clip.npz -o clip.h5 --name clip --class-names ants,bees
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
        f"features {shape}; rows are identified by the {made.identity}.",
        soft_wrap=True,
    )
