"""``headstart verify`` and ``headstart repair``: check a cache and compute its damaged rows again."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.texts import counted
from headstart_cli.command_options import BatchSize, Cache, Device, Json, Weights
from headstart_cli.console import ProgressBar, out, print_first, print_json, said, shown

if TYPE_CHECKING:
    from headstart.verify import Verification

#: Findings, and repaired images, shown before the rest is counted.
LISTED_FINDINGS, LISTED_IMAGES = 20, 10

#: The folder of images, without the name of its option.
SameAsData = Annotated[str | None, typer.Argument(metavar="[DATA]", help="The same as --data.")]


def verify(
    cache: Cache,
    folder: SameAsData = None,
    data: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="The images: compare them all, and compute some rows again.")
    ] = None,
    sample: Annotated[int, typer.Option(min=0, metavar="N", help="With --data: rows to compute again.")] = 16,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="With --data: random seed for those rows.")] = 0,
    weights: Weights = None,
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
    name, findings = shown(cache), found.findings
    if findings:
        count = f"{len(findings):,} finding{'s' if len(findings) > 1 else ''}"
        out.print(f"[bold red]{name} is not as it should be[/], {count}:")
    else:
        out.print(f"{name} is whole.")
    print_first(out, map(said, findings), LISTED_FINDINGS, " (--json lists all)")
    if found.n_images:
        out.print(f"{counted(found.n_images)} read and compared.")
    if found.n_recomputed:
        worst = (
            f"lowest cosine {found.lowest_cosine:.5f}, largest error {found.largest_error:.2g} of a row's largest value"
        )
        out.print(f"{counted(found.n_recomputed, 'row')} computed again: {worst}.")
    if found.not_compared:
        out.print(said(found.not_compared))
    if found.remedies:
        out.print("To bring it up to date, then verify it again:" if len(found.remedies) == 1 else
                  "To bring it up to date, one after the other, then verify it again:")  # fmt: skip
    for remedy in found.remedies:
        out.print(f"  {shown(remedy)}")


def repair(
    cache: Cache,
    folder: SameAsData = None,
    data: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="The folder of images that the cache was made from.")
    ] = None,
    weights: Weights = None,
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
        out.print(f"{shown(cache)} is whole: nothing was changed.")
        return
    out.print(f"{shown(cache)} is whole again: {len(done.images):,} of {done.n_images:,} rows were computed again.")
    print_first(out, map(shown, done.images), LISTED_IMAGES)
