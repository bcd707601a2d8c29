"""Running ``headstart …`` inside the process of a test."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headstart_cli.app import COMMANDS, make_app, run

#: Takes the words of a command; returns exit code, standard output and standard error.
Cli = Callable[..., tuple[int, str, str]]


def exit_code(patch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Run a command, and return what the process would end with."""
    patch.setattr(sys, "argv", ["headstart", *map(str, arguments)])
    try:
        run(make_app(*COMMANDS))
    except SystemExit as end:
        return int(end.code or 0)
    return 0
