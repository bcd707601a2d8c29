"""``headstart verify``: whether a cache is whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from headstart_cli.console import ProgressBar, out, printable

if TYPE_CHECKING:
    from headstart.cache.verify import Finding

#: Findings shown before the rest is counted.
LISTED = 20


def verify(
    cache: Annotated[Path, typer.Argument(help="A feature cache, as features/data.h5.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of sentences.")] = False,
) -> None:
    """Read every byte of a cache that matters and say all that is wrong with it; the exit code is 0 where nothing is.

    Checksums, digests of every column and row, types, shapes, labels and finite values are compared with the format.

    [bold]Examples[/]

    headstart verify features/data.h5

    headstart verify features/data.h5 --json
    """
    from headstart.cache.verify import verify_file

    with ProgressBar("Reading") as progress:
        findings = list(verify_file(cache, start=progress.start, advance=progress.advance))
    if as_json:
        typer.echo(json.dumps({"path": str(cache), "whole": not findings, "findings": plain(findings)}, indent=2))
    else:
        print_findings(cache, findings)
    if findings:
        raise typer.Exit(1)


def plain(findings: Sequence[Finding]) -> list[dict[str, object]]:
    """Return findings as plain JSON types."""
    return [{**asdict(finding), "image": printable(finding.image)} for finding in findings]


def print_findings(cache: Path, findings: Sequence[Finding]) -> None:
    """Print findings for a person."""
    if not findings:
        out.print(f"{escape(str(cache))} is whole.", soft_wrap=True)
        return
    count = f"{len(findings):,} finding{'s' if len(findings) > 1 else ''}"
    out.print(f"[bold red]{escape(str(cache))} is damaged[/], {count}:", soft_wrap=True)
    for finding in findings[:LISTED]:
        out.print(f"  {escape(printable(str(finding)))}", soft_wrap=True)
    if len(findings) > LISTED:
        out.print(f"  … and {len(findings) - LISTED:,} more (--json lists all)")
    out.print("Make it anew with extract-features --overwrite.")
