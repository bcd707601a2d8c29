"""``headstart verify``: check a cache against its checksums and its images."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.texts import counted
from headstart_cli.command_options import Device, Json, Weights
from headstart_cli.console import ProgressBar, out, print_json, said, shown

if TYPE_CHECKING:
    from headstart.verify import Verification

#: Findings shown before the rest is counted.
LISTED = 20


def verify(
    cache: Annotated[str, typer.Argument(help="A feature cache, e.g. features/data.h5.")],
    folder: Annotated[str | None, typer.Argument(metavar="[DATA]", help="The same as --data.")] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="The images: compare them all, and compute some rows again."),
    ] = None,
    sample: Annotated[int, typer.Option(min=0, metavar="N", help="With --data: rows to compute again.")] = 16,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="With --data: random seed for those rows.")] = 0,
    weights: Weights = "imagenet",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Check a cache: read it in full and list everything that is wrong. Exit code 0 if nothing is.

    Checks checksums, digests of every column and row, types, shapes, labels and finite values. With --data it also checks
    the images: it lists missing and changed ones, and computes some rows again.

    Examples
    --------
    headstart verify features/data.h5
    headstart verify features/data.h5 data/ --sample 64
    """
    if folder and data:
        raise typer.BadParameter("The folder of images is given twice.")
    from headstart.verify import verify_cache

    with ProgressBar("Reading") as progress:
        found = verify_cache(
            cache, folder or data, n_sample=sample, seed=seed, weights=weights, device=device, progress=progress
        )  # fmt: skip
    if as_json:
        print_json({"path": str(cache), "whole": not found.findings, **asdict(found)})
    else:
        print_verification(cache, found)
    if found.findings:
        raise typer.Exit(1)


def print_verification(cache: str, found: Verification) -> None:
    """Print what was compared and what is wrong."""
    name, findings = shown(cache), found.findings
    if findings:
        count = f"{len(findings):,} finding{'s' if len(findings) > 1 else ''}"
        out.print(f"[bold red]{name} is not as it should be[/], {count}:", soft_wrap=True)
    else:
        out.print(f"{name} is whole.", soft_wrap=True)
    for finding in findings[:LISTED]:
        out.print(f"  {said(finding)}", soft_wrap=True)
    if len(findings) > LISTED:
        out.print(f"  … and {len(findings) - LISTED:,} more (--json lists all)")
    if found.n_images:
        out.print(f"{counted(found.n_images)} read and compared.")
    if found.n_recomputed:
        worst = (
            f"lowest cosine {found.lowest_cosine:.5f}, largest error {found.largest_error:.2g} of a row's largest value"
        )
        out.print(f"{counted(found.n_recomputed, 'row')} computed again: {worst}.", soft_wrap=True)
    if found.not_compared:
        out.print(said(found.not_compared), soft_wrap=True)
    if found.remedies:
        out.print("To bring it up to date, then verify it again:" if len(found.remedies) == 1 else
                  "To bring it up to date, one after the other, then verify it again:")  # fmt: skip
    for remedy in found.remedies:
        out.print(f"  {shown(remedy)}", soft_wrap=True)
