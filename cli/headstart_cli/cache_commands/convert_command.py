"""``headstart convert``: a cache for R, MATLAB, pandas and others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.texts import counted
from headstart_cli.command_options import FEATURES, FEATURES_HELP, Overwrite, Raw
from headstart_cli.console import out, shown


def convert(
    cache: Annotated[str, typer.Argument(help="A feature cache, e.g. features/data.h5.")],
    output: Annotated[Path, typer.Argument(help="The file to write: .npz, .h5 (with --portable), .parquet or .csv.")],
    features: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help=FEATURES_HELP,
            autocompletion=FEATURES,
        ),
    ] = "avg",
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

    names = tuple(name.strip() for name in features.split(","))
    written = convert_cache(cache, output, features=names, raw=raw, overwrite=overwrite)
    out.print(
        f"Wrote {shown(written.output)}: {counted(written.n_samples)} × {written.n_features:,} features "
        f"({shown(', '.join(written.features))}), {written.size_bytes / 1e6:.1f} MB",
        soft_wrap=True,
    )
