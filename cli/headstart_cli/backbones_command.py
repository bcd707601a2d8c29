"""``headstart backbones``: the networks that ``extract-features --backbone`` knows, and a check of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from headstart_cli.command_options import Json
from headstart_cli.console import err, out, print_error, print_json, said

if TYPE_CHECKING:
    from headstart.backbones.own_networks.onnx_check import ModelCheck


def backbones(
    action: Annotated[Literal["list", "check"], typer.Argument(help="List all, or check an ONNX model.")] = "list",
    model: Annotated[Path | None, typer.Argument(help="The model to check, with its description beside it.")] = None,
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="Image to check a model on.")] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="NPY", help="Output of the original network for this image, for a check.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--time", help="Measure images/s of those whose weights are here: some seconds each.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the backbones: input size, cost, features, licence of the weights, and whether they are on this machine.

    check runs an ONNX model of your own on an image, and prints the values that it gets, its features and its speed. A
    description that is wrong or not proven ends with exit code 1.

    Examples
    --------
    headstart backbones
    headstart backbones --time
    headstart backbones check dinov2.onnx --image cat.png --reference cat.npy
    """
    if action == "check":
        check(model, image, reference, as_json=as_json)
        return
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


def check(model: Path | None, image: Path | None, reference: Path | None, *, as_json: bool) -> None:
    """Check a model, and print what was found; exit code 1 if there are problems."""
    if model is None or image is None:
        raise typer.BadParameter(
            "check needs a model and an image: headstart backbones check model.onnx --image cat.png"
        )
    from headstart.backbones.own_networks.onnx_check import check_model

    with err.status(f"Checking {said(model)}"):
        found = check_model(model, image, reference)
    if as_json:
        print_json(found.to_dict())
    else:
        out.print(Text("\n".join(check_lines(found))), soft_wrap=True)
    for problem in found.problems:
        print_error(problem)
    if found.problems:
        raise typer.Exit(1)


def check_lines(found: ModelCheck) -> Iterator[str]:
    """Yield the lines of a check."""
    from headstart.backbones.registry import engine_label

    network, features = found.model.network, found.features
    yield f"Input      {network.input}: {found.model.size_px}×{found.model.size_px}, {network}"
    for channel, (mean, deviation) in zip(network.channels, found.inputs, strict=True):
        yield f"           {channel}: mean {mean:.3f}, deviation {deviation:.3f}"
    yield f"Output     {found.model.output}: {'×'.join(map(str, network.map_shape))}"
    yield (
        f"Features   {features['least']:.4g} to {features['greatest']:.4g}, mean {features['mean']:.4g}, "
        f"{features['zeros']:.0%} zeros"
    )
    for engine, rate in found.images_per_second.items():
        yield f"Speed      {rate:.1f} images/s on {engine_label(engine)}"
    if found.cosine is not None:
        yield f"Reference  cosine {found.cosine:.6f}"


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
