"""``--help`` of a command: usage, examples, and its options in panels of two columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from inspect import cleandoc
from typing import Any

from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

from headstart_cli.console import out

#: Width of the first column, unless an option is longer.
OPTION_WIDTH = 20


#: At most this many options of a command are in one panel.
FEW = 6

#: Options that Typer adds to a program.
COMPLETION = ("install_completion", "show_completion")


class Command(TyperCommand):
    """A command with a page of help that fits a terminal of 80 columns."""

    def get_usage(self, ctx: Any) -> str:
        """Return the line that also stands above usage errors."""
        arguments = [usage(one) for one in self.params if one.param_type_name == "argument"]
        return " ".join(["Usage:", ctx.command_path, *arguments, "[OPTIONS]"])

    def format_help(self, ctx: Any, formatter: Any) -> None:
        visible = [one for one in self.params if not getattr(one, "hidden", False) and one.name not in COMPLETION]
        out.print(escape(self.get_usage(ctx)), end="\n\n", style="bold", highlight=False, soft_wrap=False)
        out.print(Text.from_markup(self.help or ""))
        for title, parameters in panels(visible).items():
            out.print(Panel(table(parameters), title=title, title_align="left", border_style="dim"))
        if len(visible) < len(self.params):
            out.print(
                f"[dim]{ctx.command_path} --install-completion: the shell completes options and values.[/]",
                highlight=False,
                soft_wrap=False,
            )


def panels(parameters: Sequence[Any]) -> dict[str, list[Any]]:
    """Return parameters by the title of their panel; few options are all in one panel."""
    titles = {one: one.rich_help_panel or "Options" for one in parameters if one.param_type_name == "option"}
    together = len(titles) <= FEW and len(set(titles.values())) > 1
    found: dict[str, list[Any]] = {}
    for parameter in parameters:
        title = titles.get(parameter, "Arguments")
        found.setdefault("Options" if together and parameter in titles else title, []).append(parameter)
    return found


def table(parameters: Iterable[Any]) -> Table:
    """Return one row for each parameter: how it is written, what it does."""
    rows = Table.grid(padding=(0, 2, 0, 0))
    rows.add_column(style="bold cyan", min_width=OPTION_WIDTH, no_wrap=True)
    rows.add_column(overflow="fold")
    for parameter in parameters:
        rows.add_row(spelling(parameter), Text.from_markup(f"{parameter.help or ''}{default_text(parameter)}"))
    return rows


def usage(argument: Any) -> str:
    """Return an argument as the usage line names it."""
    name = argument.metavar or argument.name.upper() + ("..." if argument.nargs != 1 else "")
    return name if argument.required or name.startswith("[") else f"[{name}]"


def spelling(parameter: Any) -> Text:
    """Return how a parameter is written; of a switch that is on by default, how it is turned off."""
    if parameter.param_type_name == "argument":
        return Text(usage(parameter))
    names = parameter.secondary_opts if parameter.default is True else [*parameter.opts, *parameter.secondary_opts]
    value = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper()}"
    return Text(", ".join(sorted(names, key=len)) + value)


def default_text(parameter: Any) -> str:
    """Return an option's default in brackets, or that it is required."""
    default = "required" if parameter.required and parameter.param_type_name == "option" else parameter.default
    return "" if default is None or isinstance(default, bool) else rf" [dim]\[{default}][/]"


def help_text(command: Callable[..., Any]) -> str:
    """Return a command's docstring for ``--help``: paragraphs without line ends, but the lines of examples kept."""
    prose, heading, examples = cleandoc(command.__doc__ or "").partition("Examples\n--------\n")
    paragraphs = [" ".join(paragraph.split()) for paragraph in prose.strip().split("\n\n")]
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    return "\n\n".join([*paragraphs, *(["\n".join(["[bold]Examples[/]", *lines])] if heading else [])])
