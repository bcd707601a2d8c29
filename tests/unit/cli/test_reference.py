from __future__ import annotations

import runpy
from pathlib import Path

from headstart_cli.app import COMMANDS

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_the_reference_is_what_help_says_now() -> None:
    reference = runpy.run_path(str(DOCS / "make_cli.py"))["reference"]
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == reference(), "make docs writes docs/cli.md anew"


def test_the_reference_has_every_command_and_no_markup() -> None:
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert [line.removeprefix("## headstart ") for line in text.splitlines() if line.startswith("## ")] == list(
        COMMANDS
    )
    assert "[bold]" not in text
    assert "[/]" not in text
