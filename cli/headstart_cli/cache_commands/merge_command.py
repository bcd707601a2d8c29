"""``headstart merge``: several caches of one recipe as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from headstart.texts import counted
from headstart_cli.console import err, out, shown

#: Contradictions shown before the rest is counted.
LISTED = 10


def merge(
    caches: Annotated[
        list[Path], typer.Argument(help="Two caches or more, made by one recipe; or one folder of shards.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The new cache, as features/all.h5.")],
    on_conflict: Annotated[
        Literal["refuse", "later"],
        typer.Option(help="Where caches say different things of an image: stop, or believe the later one."),
    ] = "refuse",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
) -> None:
    """Put the images of several caches into one; features are copied as they are stored, and no image is read.

    A path that stands in several caches with the same bytes stands once. Classes are united. Different recipes are refused.

    [bold]Examples[/]

    headstart merge features/monday.h5 features/tuesday.h5 -o features/week.h5

    headstart merge features/data -o features/data.h5   [dim](a folder of shards becomes one file)[/]

    headstart merge features/all.h5 features/corrected.h5 -o features/all.h5 --on-conflict later --overwrite
    """
    from headstart.exchange.merge_caches import merge_caches

    merged = merge_caches(caches, output, on_conflict=on_conflict, overwrite=overwrite)
    if merged.resolved:
        err.print(f"[bold yellow]{len(merged.resolved):,} contradictions[/]: the later cache was believed.")
        for path, words in list(merged.resolved.items())[:LISTED]:
            err.print(f"  {shown(path)}: {shown(words)}", soft_wrap=True)
        if len(merged.resolved) > LISTED:
            err.print(f"  … and {len(merged.resolved) - LISTED:,} more")
    out.print(
        f"Wrote {escape(str(merged.output))}: {counted(merged.n_images)}, {counted(len(merged.class_names), 'class')}; "
        f"{merged.n_shared:,} stood in more than one cache; {merged.n_failures:,} could not be read.",
        soft_wrap=True,
    )
