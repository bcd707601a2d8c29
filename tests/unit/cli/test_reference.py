from __future__ import annotations

import runpy
from importlib import metadata
from pathlib import Path

from typer.testing import CliRunner

import headstart
from headstart_cli.app import COMMANDS, make_app

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


def test_the_version_is_that_of_the_package() -> None:
    result = CliRunner().invoke(make_app(*COMMANDS), ["--version"])
    assert (result.exit_code, result.output) == (0, f"headstart {headstart.__version__}\n")
    assert metadata.version("headstart") == headstart.__version__
