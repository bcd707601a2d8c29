"""Options of ``fit-head`` for the parameters of heads, made from the catalogue."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from copy import copy
from typing import Annotated, Any

import typer

from headstart.heads.catalogue import HEAD_TYPES
from headstart.heads.head_specs import ACTIVATIONS, METRICS, SCHEDULES, Parameter
from headstart_cli.command_options import completed
from headstart_cli.help_page import Command

#: Values of parameters that are words.
WORDS = {*ACTIVATIONS, *SCHEDULES, *METRICS, "balanced", "scale", "auto"}

#: Options that are not named after their parameter: --metric is the metric of a search.
NAMES = {"metric": "--distance"}

#: Every parameter of every head; heads that share a name may have different defaults for it.
PARAMETERS: dict[str, Parameter] = {
    name: parameter for kind in reversed(HEAD_TYPES.values()) for name, parameter in kind.params.items()
}


def option_name(parameter: str) -> str:
    return NAMES.get(parameter, f"--{parameter.replace('_', '-')}")


def with_parameters(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one hidden option for each parameter of any head, in the place of its ``**`` argument."""
    signature = inspect.signature(command, eval_str=True)
    own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    options = [
        inspect.Parameter(f"param_{name}", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation(name))
        for name in PARAMETERS
    ]
    command.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    return command


def annotation(name: str) -> Any:
    """Return the type and option of a parameter: a switch, or text that is read once the head is known."""
    parameter = PARAMETERS[name]
    kind = bool if isinstance(parameter.default, bool) else str
    words = completed([word for word in WORDS if parameter.kind.accepts(word)])
    metavar = {float: "NUMBER", int: "N", tuple: "N,N"}.get(type(parameter.default), "VALUE")
    return Annotated[
        kind | None,
        typer.Option(
            option_name(name),
            metavar=metavar,
            help=parameter.help,
            hidden=name != "class_weight",
            autocompletion=words,
            rich_help_panel="Head",
        ),
    ]


def parameter_values(head_type: str, texts: Mapping[str, Any]) -> dict[str, Any]:
    own = HEAD_TYPES[head_type].params if head_type in HEAD_TYPES else {}
    given = {name.removeprefix("param_"): text for name, text in texts.items() if text is not None}
    return {name: parse(name, text, own.get(name, PARAMETERS[name])) for name, text in given.items()}


def parse(name: str, text: str | bool, parameter: Parameter) -> Any:
    """Return the value of a parameter; raise typer.BadParameter if it cannot have this value."""
    readers: dict[type, Callable[[Any], Any]] = {bool: bool, float: float, int: int, tuple: units}
    value: Any = text
    with suppress(ValueError):
        value = readers.get(type(parameter.default), number_or_word)(text)
    if not parameter.kind.accepts(value):
        raise typer.BadParameter(f"expected {parameter.kind.words}; received {text!r}", param_hint=option_name(name))
    return value


def units(text: str) -> tuple[int, ...]:
    """Return the units of the hidden layers; ``0`` means no hidden layer."""
    return tuple(int(part) for part in text.split(",") if int(part))


def number_or_word(text: str) -> float | str:
    """Return a number where the text is one."""
    try:
        return float(text)
    except ValueError:
        return text


class FitCommand(Command):
    """``fit-head``, whose ``--help`` describes one head after ``--type``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse ``--help`` last, so that ``--type`` is known."""
        return super().parse_args(ctx, sorted(args, key=lambda word: word in {"-h", "--help"}))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the page of the command, or that of a head."""
        head_type = ctx.params.get("head_type")
        page = copy(self)
        if head_type in HEAD_TYPES:
            page.help = head_help(head_type)
            page.params = list(head_options(self.params, head_type))
        super(FitCommand, page).format_help(ctx, formatter)


def head_help(head_type: str) -> str:
    """Return the defaults of a head, the grid of its search, and where its other options are."""
    kind = HEAD_TYPES[head_type]
    grid = "; ".join(f"{name} {', '.join(map(value_text, values))}" for name, values in kind.grid.items())
    return (
        f"[bold]{head_type}[/]: features {','.join(kind.features)}, scaling {kind.scaling}.\n\n"
        f"A search tries {grid}.\n\nAll other options: fit-head --help"
    )


def head_options(params: list[Any], head_type: str) -> Iterator[Any]:
    """Yield the arguments of the command, and the options for the parameters of a head with its defaults."""
    by_name = {one.name: one for one in params}
    yield from (one for one in params if one.param_type_name == "argument")
    for name, parameter in HEAD_TYPES[head_type].params.items():
        option = copy(by_name[f"param_{name}"])
        option.hidden, option.rich_help_panel = False, f"Parameters of {head_type}"
        if not isinstance(parameter.default, bool):
            values = parameter.kind.words
            option.help = f"{parameter.help} {values[:1].upper()}{values[1:]}."
            option.default = value_text(parameter.default)
        yield option


def value_text(value: Any) -> str:
    """Return a value as it is written on the command line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
