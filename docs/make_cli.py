"""Write docs/cli.md, the reference of every command, from what ``--help`` says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from rich.text import Text

from headstart_cli.app import COMMANDS, make_app
from headstart_cli.help_page import panels, spelling, usage

TARGET = Path(__file__).with_name("cli.md")

INTRODUCTION = """\
# Commands

Made from `--help` by `make docs`. Paths are relative to the current folder. `extract-features`, `fit-head` and
`benchmark-heads` are also commands of their own. Results go to standard output, everything else to standard error. Exit
codes: 0 done, 1 an expected failure, 2 wrong usage, 128 + n ended by signal n (130: Ctrl-C).
"""


def reference() -> str:
    """Return the whole reference as Markdown."""
    application: Any = typer.main.get_command(make_app(*COMMANDS))
    return "\n".join([INTRODUCTION, *("\n".join(section(name, application.commands[name])) for name in COMMANDS)])


def section(name: str, command: Any) -> Iterator[str]:
    """Yield the lines of one command: usage, what it does, examples, arguments and options."""
    visible = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    arguments = [usage(parameter) for parameter in visible if parameter.param_type_name == "argument"]
    yield f"## headstart {name}\n"
    yield f"`headstart {' '.join([name, *arguments, '[OPTIONS]'])}`\n"
    yield from description(command.help)
    for title, parameters in panels(visible).items():
        yield f"| {title} | | default |\n|---|---|---|"
        yield from (f"| {words(one)} | {cell(one.help)} | {default(one)} |" for one in parameters)
        yield ""
    if len(visible) < len(command.params):
        yield "The parameters of each head, and their options: [heads](heads.md#every-parameter).\n"


def description(text: str) -> Iterator[str]:
    """Yield a command's own words as Markdown; the lines after the heading Examples are code."""
    prose, heading, examples = Text.from_markup(text).plain.partition("Examples\n")
    yield prose.strip().replace("<", "\\<") + "\n"
    if heading:
        yield "\n".join(["```console", *(f"$ {line}" for line in examples.splitlines()), "```\n"])


def words(parameter: Any) -> str:
    """Return how a parameter is written, and the variable of the environment that sets it."""
    written = f"`{spelling(parameter)}`".replace("|", "\\|")
    return f"{written}, `${parameter.envvar}`" if parameter.envvar else written


def default(parameter: Any) -> str:
    """Return a parameter's default; a switch, or an option that is not given, has none."""
    return "" if parameter.default is None or isinstance(parameter.default, bool) else f"`{parameter.default}`"


def cell(text: str | None) -> str:
    """Return a help text as one cell of a table."""
    return Text.from_markup(text or "").plain.replace("|", "\\|").replace("<", "\\<").replace("\n", " ")


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
