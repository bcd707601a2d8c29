"""Write the end of docs/heads.md, every parameter of every head, from the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headstart.heads.catalogue import HEAD_TYPES, head_kind
from headstart.heads.parameters import HeadType

TARGET = Path(__file__).with_name("heads.md")

#: What stands above it is written by hand.
HEADING = "## Every parameter\n"


def page() -> str:
    """Return the whole page: what is written by hand, and the parameters as they are now."""
    written = TARGET.read_text(encoding="utf-8").partition(HEADING)[0]
    return "\n".join([written + HEADING, *(line for name in HEAD_TYPES for line in section(name, HEAD_TYPES[name]))])


def section(name: str, kind: HeadType) -> Iterator[str]:
    """Yield the lines of one head."""
    yield f"### {name}\n"
    yield f"Features `{','.join(kind.features)}`, scaling `{kind.scaling}`.{unscaled(name)}\n"
    yield "| parameter | default | may be | what it does | a search tries |\n|---|---|---|---|---|"
    for key, parameter in kind.params.items():
        tried = ", ".join(words(value) for value in kind.grid.get(key, ()))
        yield f"| `{key}` | {words(parameter.default)} | {parameter.kind.words} | {parameter.help} | {tried} |"
    yield ""


def unscaled(name: str) -> str:
    """Return in words how a head's defaults differ on features that are not scaled; empty where they do not."""
    usual, other = HEAD_TYPES[name], head_kind(name, "none")
    if other is usual:
        return ""
    changed = [
        f"`{key}` {words(p.default)}" for key, p in other.params.items() if p.default != usual.params[key].default
    ]
    return f" With scaling `none`, unless set otherwise: features `{','.join(other.features)}`, {', '.join(changed)}."


def words(value: Any) -> str:
    """Return a value as a person writes it on the command line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "nothing"
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
