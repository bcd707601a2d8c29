"""``headstart weights``: where ImageNet weights are found."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from headstart_cli.console import out, said


def weights(
    check: Annotated[bool, typer.Option("--check/--no-check", help="Do not read and compare the tensors.")] = True,
) -> None:
    """Show where ImageNet weights are found, in the order of the search.

    Examples
    --------
    headstart weights
    """
    from headstart.backbones.weights import checked, local_sources
    from headstart.errors import WeightsError

    table = Table("source", title="ImageNet weights of VGG16")
    table.add_column("found", overflow="fold")
    table.add_column("what it is", overflow="fold")
    table.add_row("--weights PATH", "", "a Keras .h5 file that you name")
    used = ""
    for source in local_sources():
        if source.read is None:
            table.add_row(source.name, "no", said(source.remedy))
            continue
        try:
            state = "all 26 tensors as published" if not check or checked(source.read(), source=source.location) else ""
        except WeightsError as error:
            state = f"[red]{said(error)}[/]"
        used = used or source.name
        table.add_row(source.name, escape(source.location), state if check else "not compared")
    table.add_row("download by Keras", "", "tried last, where the others have nothing")
    out.print(table)
    out.print(f"Used: {used}." if used else "Used: the download, if its host can be reached.")
    if not used:
        raise typer.Exit(1)
