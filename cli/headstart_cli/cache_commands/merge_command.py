"""``headstart merge``: several caches of one recipe into one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from headstart.texts import counted
from headstart_cli.command_options import Overwrite
from headstart_cli.console import err, out, shown

#: Contradictions shown before the rest is counted.
LISTED = 10


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
        for path, words in list(merged.resolved.items())[:LISTED]:
            err.print(f"  {shown(path)}: {shown(words)}", soft_wrap=True)
        if len(merged.resolved) > LISTED:
            err.print(f"  … and {len(merged.resolved) - LISTED:,} more")
    out.print(
        f"Wrote {escape(str(merged.output))}: {counted(merged.n_images)}, {counted(len(merged.class_names), 'class')}; "
        f"{merged.n_shared:,} were in more than one cache; {merged.n_failures:,} could not be read.",
        soft_wrap=True,
    )
