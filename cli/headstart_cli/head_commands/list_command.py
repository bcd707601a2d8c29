"""``headstart heads``: list saved heads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from headstart.texts import counted
from headstart_cli.command_options import Json
from headstart_cli.console import err, out, said, shown

if TYPE_CHECKING:
    from headstart.bundles.metadata import SavedHead


def heads(
    folder: Annotated[Path, typer.Argument(help="The folder of saved heads.")] = Path("heads"), as_json: Json = False
) -> None:
    """List saved heads: accuracy, features, parameters and recipe; for damaged ones, what is wrong.

    The accuracy and its 95 % interval are those on the images held out when the head was fitted. Accuracies on different
    images cannot be compared. Of heads for numbers, the root mean squared error is shown.

    Examples
    --------
    headstart heads
    headstart heads .demo/heads --json
    """
    from headstart.bundles.metadata import list_heads

    found = list_heads(folder)
    if as_json:
        typer.echo(json.dumps([head.to_dict() for head in found], indent=2))
        return
    if not found:
        err.print(f"No saved heads in {shown(folder)}. fit-head makes them.")
        return
    whole = [head for head in found if not head.problem]
    if whole:
        out.print(table(whole))
    for head in found:
        if head.problem:
            out.print(f"[bold red]broken[/] {shown(head.path.name)}: {said(head.problem)}")


def table(found: list[SavedHead]) -> Table:
    """Return heads that can be read, a row of two or three lines each: eleven columns would need a wider terminal."""
    result = Table(show_lines=True)
    result.add_column("head", overflow="fold")
    result.add_column("fitted on", overflow="fold")
    result.add_column("accuracy", justify="right", no_wrap=True)
    result.add_column("recipe", overflow="fold")
    result.add_column("saved", justify="right", no_wrap=True)
    for head in found:
        result.add_row(*("\n".join(line for line in cell if line) for cell in cells(head)))
    return result


def cells(head: SavedHead) -> Iterator[tuple[str, ...]]:
    """Yield the lines of each cell of a head's row."""
    if head.metadata is None:
        return
    from headstart.bundles.metadata import recipe_in_short

    spec = head.metadata.spec
    yield f"[bold]{shown(head.path.name)}[/]", shown(spec.type) if spec.type not in head.path.name else ""
    yield f"{shown(', '.join(spec.features))} ({shown(spec.scaling)})", shown(head.cache)
    yield (
        "" if head.rmse is None else f"RMSE {head.rmse:.4g}",
        "" if head.accuracy is None else f"[bold]{head.accuracy:.3f}[/]",
        "" if head.interval is None else f"{head.interval[0]:.3f}–{head.interval[1]:.3f}",
        "" if head.n_scored is None else counted(head.n_scored),
    )
    yield tuple(shown(part) for recipe in head.metadata.recipes for part in recipe_in_short(recipe))
    size = f"{head.size_bytes / 1e6:,.1f} MB" if head.size_bytes >= 1e6 else f"{head.size_bytes / 1e3:.0f} kB"
    yield shown(head.metadata.created[:10]), size
