"""Write docs/cli.md, the reference of every command, from what ``--help`` says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from rich.text import Text

from headstart_cli.app import COMMANDS, make_app

TARGET = Path(__file__).with_name("cli.md")

INTRODUCTION = """\
# Commands

Made from `--help` by `make docs`. Paths are relative to the folder that a command is run in. `extract-features` and
`fit-head` are also commands of their own. Results go to standard output, everything else to standard error. Exit codes:
0 done, 1 an expected failure, 2 wrong usage, 128 + n ended by signal n (130: Ctrl-C).
"""


def reference() -> str:
    """Return the whole reference as Markdown."""
    application: Any = typer.main.get_command(make_app(*COMMANDS))
    return "\n".join([INTRODUCTION, *("\n".join(section(name, application.commands[name])) for name in COMMANDS)])


def section(name: str, command: Any) -> Iterator[str]:
    """Yield the lines of one command: usage, what it does, examples, arguments and options."""
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    arguments = [parameter for parameter in shown if parameter.param_type_name == "argument"]
    options = [parameter for parameter in shown if parameter.param_type_name == "option" and parameter.name != "help"]
    yield f"## headstart {name}\n"
    yield f"`headstart {' '.join([name, *(usage(argument) for argument in arguments), '[OPTIONS]'])}`\n"
    yield from description(command.help)
    if arguments:
        yield "| argument | |\n|---|---|"
        yield from (f"| `{usage(argument)}` | {cell(argument.help)} |" for argument in arguments)
        yield ""
    if options:
        yield "| option | | default |\n|---|---|---|"
        yield from (f"| {flags(option)} | {cell(option.help)} | {default(option)} |" for option in options)
        yield ""


def description(text: str) -> Iterator[str]:
    """Yield a command's own words as Markdown; what follows the heading Example or Examples is code."""
    lines = [line.strip() for line in Text.from_markup(text).plain.splitlines()]
    heading = next((i for i, line in enumerate(lines) if line in {"Example", "Examples"}), len(lines))
    yield "\n".join(lines[:heading]).strip().replace("<", "\\<") + "\n"
    examples = [f"$ {line}" for line in lines[heading + 1 :] if line]
    if examples:
        yield "\n".join(["```console", *examples, "```\n"])


def usage(argument: Any) -> str:
    """Return an argument as the usage line names it."""
    name = argument.name.upper() + ("..." if argument.nargs != 1 else "")
    return name if argument.required else f"[{name}]"


def flags(option: Any) -> str:
    """Return the spellings of an option, and the variable of the environment that sets it."""
    spellings = ", ".join(f"`{flag}`" for flag in [*option.opts, *option.secondary_opts])
    return f"{spellings}, `${option.envvar}`" if option.envvar else spellings


def default(option: Any) -> str:
    """Return an option's default; a switch that is off, or an option that is not given, has none to tell."""
    if option.default is None or option.default is False or option.default is True:
        return f"`{option.opts[0]}`" if option.default else ""
    return f"`{option.default}`"


def cell(text: str | None) -> str:
    """Return a help text as one cell of a table."""
    return Text.from_markup(text or "").plain.replace("|", "\\|").replace("<", "\\<").replace("\n", " ")


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
