"""``headstart convert``, ``import`` and ``merge``: caches to other files, other files to caches, caches to one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from headstart.texts import counted
from headstart_cli.command_options import Cache, Features, Overwrite, Raw, separated
from headstart_cli.console import err, out, print_first, shown

#: Contradictions shown before the rest is counted.
LISTED = 10


def convert(
    cache: Cache,
    output: Annotated[Path, typer.Argument(help="The file to write: .npz, .h5 (with --portable), .parquet or .csv.")],
    features: Features = "avg",
    portable: Annotated[
        bool, typer.Option("--portable", help="With .h5: plain HDF5 (gzip, float32) that needs no plug-in.")
    ] = False,
    raw: Raw = False,
    overwrite: Overwrite = False,
) -> None:
    r"""Write the features, labels, paths, splits and recipe of a cache as a file for other programs.

    Memory use does not grow with the number of images. .parquet needs pyarrow: pip install "headstart\[parquet]".

    Examples
    --------
    headstart convert features/data.h5 data.npz
    headstart convert features/data.h5 data-portable.h5 --portable
    headstart convert features/data.h5 data.parquet --features avg,block4_conv3
    """
    if portable != (output.suffix == ".h5"):
        raise typer.BadParameter(
            "--portable and a file that ends in .h5 need each other: the cache itself is HDF5 already, but its "
            "compression filter is missing in many programs."
        )
    from headstart.exchange.export_features import convert as convert_cache

    written = convert_cache(cache, output, features=separated(features), raw=raw, overwrite=overwrite)
    out.print(
        f"Wrote {shown(written.output)}: {counted(written.n_samples)} × {written.n_features:,} features "
        f"({shown(', '.join(written.features))}), {written.size_bytes / 1e6:.1f} MB"
    )


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

    names = separated(class_names) if class_names else None
    made = make_cache(features, output, name=name, class_names=names, overwrite=overwrite)
    for notice in made.notices:
        err.print(shown(notice))
    unlabelled = f", {made.n_unlabelled:,} of them unlabelled" if made.n_unlabelled else ""
    shape = " × ".join(map(str, made.map_shape))
    out.print(
        f"Wrote {shown(made.output)}: {counted(made.n_images)}{unlabelled}, {counted(len(made.class_names), 'class')}, "
        f"features {shape}; rows are identified by the {made.identity}."
    )


def merge(
    caches: Annotated[
        list[Path],
        typer.Argument(metavar="CACHE...", help="Two or more caches of one recipe, or one folder of shards."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="PATH", help="The new cache, e.g. features/all.h5.")
    ],
    on_conflict: Annotated[
        Literal["refuse", "later"],
        typer.Option(metavar="HOW", help="Where caches contradict each other: refuse, or later: the later cache wins."),
    ] = "refuse",
    overwrite: Overwrite = False,
) -> None:
    """Merge several caches into one; features are copied as they are stored, and no image is read.

    An image that is in several caches under one path is kept once. Classes are united. Different recipes are refused.

    Examples
    --------
    headstart merge features/monday.h5 features/tuesday.h5 -o features/week.h5
    headstart merge features/data -o features/data.h5   [dim](shards → one file)[/]
    headstart merge all.h5 corrected.h5 -o all.h5 --on-conflict later --overwrite
    """
    from headstart.exchange.merge_caches import merge_caches

    merged = merge_caches(caches, output, on_conflict=on_conflict, overwrite=overwrite)
    if merged.resolved:
        err.print(f"[bold yellow]{len(merged.resolved):,} contradictions[/]: the later cache was used.")
        print_first(err, (f"{shown(path)}: {shown(words)}" for path, words in merged.resolved.items()), LISTED)
    out.print(
        f"Wrote {shown(merged.output)}: {counted(merged.n_images)}, {counted(len(merged.class_names), 'class')}; "
        f"{merged.n_shared:,} were in more than one cache; {merged.n_failures:,} could not be read."
    )
