"""Write the end of docs/heads.md, every parameter of every head, from the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from headstart.heads.catalogue import HEAD_TYPES, HeadType, head_kind
from headstart_cli.head_commands.parameter_options import option_name, value_text

TARGET = Path(__file__).with_name("heads.md")

#: What stands above it is written by hand.
HEADING = "## Every parameter\n"


def page() -> str:
    """Return the whole page: what is written by hand, and the parameters as they are now."""
    written = TARGET.read_text(encoding="utf-8").partition(HEADING)[0]
    return "\n".join([written + HEADING, *(line for name in HEAD_TYPES for line in section(name, HEAD_TYPES[name]))])


def section(head_type: str, kind: HeadType) -> Iterator[str]:
    """Yield the lines of one head."""
    yield f"### {head_type}\n"
    yield f"Features `{','.join(kind.features)}`, scaling `{kind.scaling}`.{unscaled(head_type)}\n"
    yield "| parameter | option | default | may be | what it does | a search tries |\n|---|---|---|---|---|---|"
    for name, parameter in kind.params.items():
        tried = ", ".join(value_text(value) for value in kind.grid.get(name, ()))
        cells = (
            f"`{name}`",
            f"`{option_name(name)}`",
            value_text(parameter.default),
            parameter.kind.words,
            parameter.help,
            tried,
        )
        yield f"| {' | '.join(cells)} |"
    yield ""


def unscaled(name: str) -> str:
    """Return a sentence on defaults of a head that differ with scaling none; empty if none does."""
    usual, other = HEAD_TYPES[name], head_kind(name, "none")
    if other is usual:
        return ""
    changed = [
        f"`{key}` {value_text(p.default)}" for key, p in other.params.items() if p.default != usual.params[key].default
    ]
    return f" With scaling `none`, unless set otherwise: features `{','.join(other.features)}`, {', '.join(changed)}."


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
