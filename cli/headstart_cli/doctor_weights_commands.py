"""``headstart doctor`` and ``headstart weights``: this machine's devices, speed, problems and ImageNet weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from headstart_cli.command_options import Json
from headstart_cli.console import err, out, print_error, print_json, said

if TYPE_CHECKING:
    from headstart.doctor.examine import Examination


def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Measure nothing: seconds instead of half a minute.")] = False,
    as_json: Json = False,
) -> None:
    """Show the devices, precisions and weights of this machine, and how fast it decodes, computes and writes.

    Names the slowest step of an extraction here and the options that help. Exit code 1 if extraction is impossible.

    Examples
    --------
    headstart doctor
    headstart doctor --quick --json
    """
    from headstart.doctor.examine import examine_machine

    with err.status("Looking") as status:
        found = examine_machine(quick=quick, on_step=lambda text: status.update(escape(text)))
    if as_json:
        print_json(found.to_dict())
    else:
        print_examination(found)
    if found.problems:
        raise typer.Exit(1)


def print_examination(found: Examination) -> None:
    table = Table(title="This machine", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in (*machine_rows(found), *rate_rows(found)):
        table.add_row(name, said(text))
    out.print(table)
    for sentence in found.advice:
        out.print(f"• {said(sentence)}")
    for problem in found.problems:
        print_error(problem)


def machine_rows(found: Examination) -> list[tuple[str, str]]:
    """Return processor, devices, engines, memory, disk, weights and versions: name and text."""
    from headstart.runtime import size_text

    machine, state = found.machine, found.weights
    rows = [
        ("processor", f"{machine.processor}; {machine.cores} cores; {', '.join(machine.flags) or 'no flags known'}"),
        *((f"device {name}", ", ".join(types)) for name, types in machine.precisions.items()),
        ("engines", engines_text(found)),
        ("memory", f"{size_text(machine.free_memory_bytes)} free"),
        ("disk", f"{size_text(machine.free_disk_bytes)} free in {machine.folder}"),
    ]
    if state is not None:
        rows.append(("weights", weights_text(found)))
    rows.append(("versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())))
    return rows


def engines_text(found: Examination) -> str:
    """Return the installed engines, and those that could be installed."""
    from headstart.backbones.registry import ENGINE_NAMES

    installed = found.machine.engines
    missing = [name for name in ENGINE_NAMES if name not in installed]
    extras = f"; not installed: {', '.join(ENGINE_NAMES[name] for name in missing)}" if missing else ""
    return ", ".join(ENGINE_NAMES[name] for name in installed) + extras


def weights_text(found: Examination) -> str:
    """Return where the weights of VGG16 are, or whether they could be downloaded."""
    state = found.weights
    if state is None or not state.source:
        reachable = state is not None and state.reachable
        where = "none here; Keras would download them" if reachable else "none here, and the download is unreachable"
    else:
        where = f"{state.source} ({'all 26 tensors as published' if state.weights else 'not as published'})"
    return f"VGG16: {where}. Others: headstart backbones"


def rate_rows(found: Examination) -> list[tuple[str, str]]:
    """Return the measured rates, name and text; empty without a measurement."""
    rates = found.rates
    if rates is None:
        return []
    decode, draft = (
        ", ".join(f"{rate:,.1f} at {size:g} megapixels" for size, rate in by_size.items())
        for by_size in (rates.decode, rates.draft)
    )
    forward = ", ".join(f"{rate:,.1f} in {name}" for name, rate in rates.forward.items())
    return [
        ("decode", f"images/s a thread: {decode}"),
        ("decode, jpeg-draft", f"images/s a thread: {draft}"),
        ("network", f"images/s: {forward}"),
        ("write", f"{rates.write:,.0f} rows/s"),
    ]


def weights(
    check: Annotated[bool, typer.Option("--check/--no-check", help="Do not read and compare the tensors.")] = True,
) -> None:
    """Show where the ImageNet weights of VGG16 are found, in the order of the search; and the weights of the other backbones.

    Examples
    --------
    headstart weights
    """
    from headstart.backbones.vgg16 import checked, local_sources
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
    print_others()
    if not used:
        raise typer.Exit(1)


def print_others() -> None:
    """Print where the default weights of the other backbones are."""
    from headstart.backbones.registry import BACKBONES

    table = Table("backbone", "found", "licence", "remedy", title="Default weights of the other backbones")
    for name, spec in BACKBONES.items():
        row = spec.to_dict()
        if name != "vgg16":
            table.add_row(name, *map(said, (row["weights"] or "no", row["weights_licence"], row["weights_remedy"])))
    out.print(table)
