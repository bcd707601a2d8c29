from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

import headstart
from headstart import errors
from headstart.errors import CacheError, DataError, HeadstartError, MissingExtraError
from headstart_cli.app import COMMANDS, make_app
from headstart_cli.console import OPTIONS, with_options

SOURCES = Path(headstart.__file__).parent

#: Commands that are printed as remedies have options: their lines name the program.
PROGRAMS = re.compile(r"headstart \w|extract-features|benchmark-heads|fit-head|pip install|ray start|gunicorn|gdcmconv")

#: Modules that make such commands out of parts.
COMMAND_MAKERS = ("verify.py", "report/comparison.py")

OPTION = re.compile(r"(?<![\w-])(--[a-z]|-o\b)")


def lines_of_the_library() -> list[tuple[str, str]]:
    """Return (module, line) of the texts of the library."""
    files = [path for suffix in ("*.py", "*.html") for path in SOURCES.rglob(suffix)]
    return [
        (path.relative_to(SOURCES).as_posix(), line) for path in files for line in path.read_text("utf-8").split("\n")
    ]


def test_the_library_names_parameters_and_no_options() -> None:
    found = [
        f"{module}: {line.strip()}"
        for module, line in lines_of_the_library()
        if OPTION.search(line) and not PROGRAMS.search(line) and module not in COMMAND_MAKERS
    ]
    assert found == []


def texts(module: ast.Module) -> Iterator[str]:
    """Yield the strings of a module that are no docstrings."""
    for node in ast.walk(module):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for child in [] if docstring else ast.iter_child_nodes(node):
            if isinstance(child, ast.Constant) and isinstance(child.value, str):
                yield child.value


def test_every_parameter_that_a_message_names_has_an_option() -> None:
    modules = [ast.parse(path.read_text("utf-8")) for path in SOURCES.rglob("*.py")]
    named = {
        name for module in modules for text in texts(module) for name in re.findall(r"`([a-z_]+)(?:=[^`]*)?`", text)
    }
    assert {"overwrite", "output"} <= named
    assert named <= {*OPTIONS, "search"}


def test_every_option_of_the_table_is_one_of_a_command() -> None:
    application: Any = typer.main.get_command(make_app(*COMMANDS))
    options = {
        option
        for command in application.commands.values()
        for parameter in command.params
        for option in [*parameter.opts, *parameter.secondary_opts]
    }
    assert set(OPTIONS.values()) <= options


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        ("Replace it with `overwrite=True`.", "Replace it with --overwrite."),
        ("Choose another folder (`output`).", "Choose another folder (-o)."),
        ("Use `precision='auto'`, or `page=2`.", "Use --precision auto, or --page 2."),
        ("Take `features=['avg']`.", "Take --features avg."),
        ("Leave out `search='none'`.", "Leave out --no-search."),
        ("`headstart weights` and `other=1` stay.", "`headstart weights` and `other=1` stay."),
    ],
)
def test_options_take_the_place_of_parameters(message: str, printed: str) -> None:
    assert with_options(message) == printed


@pytest.mark.parametrize("kind", [HeadstartError, DataError, CacheError, MissingExtraError, errors.StorageError])
def test_an_error_ends_with_its_hint_and_keeps_it_in_another_process(kind: type[HeadstartError]) -> None:
    error = kind("x.h5 exists already.", hint="Replace it with `overwrite=True`.")
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert str(one) == "x.h5 exists already. Replace it with `overwrite=True`."
        assert one.hint == "Replace it with `overwrite=True`."
    assert (str(kind("x")), kind("x").hint) == ("x", "")
