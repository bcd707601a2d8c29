"""``headstart backbones``: the networks that ``extract-features --backbone`` knows."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from headstart_cli.command_options import Json
from headstart_cli.console import err, out, print_json, said


def backbones(
    measure: Annotated[
        bool, typer.Option("--time", help="Measure images/s of those whose weights are here: some seconds each.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the backbones: input size, cost, features, licence of the weights, and whether they are on this machine.

    Examples
    --------
    headstart backbones
    headstart backbones --time
    """
    from headstart.backbones.registry import BACKBONES, measured_rate

    rows = [spec.to_dict() for spec in BACKBONES.values()]
    for row in rows if measure else []:
        if row["weights"]:
            with err.status(f"Measuring {row['name']}"):
                row["images_per_second"] = measured_rate(BACKBONES[row["name"]])
    if as_json:
        print_json(rows)
        return
    table = Table("name", "input", "GMAC", "stored layer", "licence", "weights", title="Backbones")
    if measure:
        table.add_column("images/s")
    for column in table.columns:
        column.no_wrap = column.header != "weights"
    for row in rows:
        rate = row.get("images_per_second")
        table.add_row(*map(said, cells(row)), *([f"{rate:.1f}" if rate else ""] if measure else []))
    out.print(table)


def cells(row: dict[str, Any]) -> list[str]:
    """Return the texts of a table row."""
    return [
        row["name"],
        str(row["input_size_px"]),
        f"{row['gmac']:.2f}" if row["gmac"] else "",
        "×".join(map(str, row["map_shape"])),
        row["weights_licence"],
        "here" if row["weights"] else row["weights_remedy"],
    ]
