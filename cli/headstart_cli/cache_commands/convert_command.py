"""``headstart convert``: a cache for R, MATLAB, pandas and others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.texts import counted
from headstart_cli.console import out, shown


def convert(
    cache: Annotated[str, typer.Argument(help="A feature cache, as features/data.h5.")],
    output: Annotated[Path, typer.Argument(help="The file to write: .npz, .h5 (with --portable), .parquet or .csv.")],
    features: Annotated[
        str,
        typer.Option(
            help="avg, max, gem, crops or flatten of the stored layer, or a pooled layer as block4_conv3; several by commas."
        ),
    ] = "avg",
    portable: Annotated[
        bool, typer.Option("--portable", help="With .h5: plain HDF5, gzip and float32, that needs no plug-in.")
    ] = False,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="With .csv: text as it is. By default cells that begin with = + - @ get a ' for spreadsheets."
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
) -> None:
    r"""Write a cache's features, labels, paths, splits and recipe as a file that other programs read.

    Memory does not grow with the features. .parquet needs pyarrow: pip install "headstart\[parquet]".

    [bold]Examples[/]

    headstart convert features/data.h5 data.npz

    headstart convert features/data.h5 data-portable.h5 --portable --features flatten

    headstart convert features/data.h5 data.parquet --features avg,block4_conv3
    """
    if portable != (output.suffix == ".h5"):
        raise typer.BadParameter(
            "--portable goes with a file that ends in .h5, and .h5 with --portable: the cache itself is HDF5 already, "
            "but compressed by a filter that many programs lack."
        )
    from headstart.exchange.export_features import convert as convert_cache

    names = tuple(name.strip() for name in features.split(","))
    written = convert_cache(cache, output, features=names, raw=raw, overwrite=overwrite)
    out.print(
        f"Wrote {shown(written.output)}: {counted(written.n_samples)} × {written.n_features:,} features "
        f"({shown(', '.join(written.features))}), {written.size_bytes / 1e6:.1f} MB",
        soft_wrap=True,
    )
