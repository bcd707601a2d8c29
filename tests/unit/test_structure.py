"""The structure of the code: layers of imports, names and sizes of folders; nothing heavy is imported before it is needed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import typer.main

from headstart_cli.app import COMMANDS, make_app

ROOT = Path(__file__).resolve().parents[2]

MODULES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "cli").rglob("*.py")])

#: Packages that take long to import; each is imported by the function that needs it.
HEAVY = (
    "tensorflow",
    "keras",
    "sklearn",
    "scipy",
    "h5py",
    "hdf5plugin",
    "matplotlib",
    "onnx",
    "pandas",
    "pyarrow",
    "fsspec",
    "botocore",
)

#: Runs a statement, and prints the heavy packages that are imported then.
PROBE = f"""
import sys
{{statement}}
print(*sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.__stdout__)
"""

#: Asks for the help of one application.
ASK = """
from contextlib import redirect_stdout
from io import StringIO
from headstart_cli.app import make_app
with redirect_stdout(StringIO()) as text:
    try:
        make_app(*{names!r})([*{command!r}, "--help"])
    except SystemExit as end:
        assert not end.code, end.code
assert "Usage" in text.getvalue(), text.getvalue()
"""


def heavy_imports(statement: str) -> str:
    """Return the heavy packages that a fresh interpreter has imported after a statement, by blanks."""
    command = [sys.executable, "-c", PROBE.format(statement=statement)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_probe_sees_a_heavy_import() -> None:
    assert "h5py" in heavy_imports("import h5py").split()


def test_importing_headstart_imports_nothing_heavy() -> None:
    assert heavy_imports("import headstart") == ""


def test_the_table_of_commands_is_what_the_application_offers() -> None:
    application = typer.main.get_command(make_app(*COMMANDS))
    assert list(application.commands) == list(COMMANDS)  # type: ignore[attr-defined]  # a group


def test_no_help_imports_anything_heavy() -> None:
    names = list(COMMANDS)
    questions = {f"headstart {name}": ASK.format(names=names, command=[name]) for name in names}
    questions["headstart"] = ASK.format(names=names, command=[])
    questions |= {name: ASK.format(names=[name], command=[]) for name in ("extract-features", "fit-head")}
    if heavy_imports("\n".join(questions.values())):  # one process for all; one each only to find who it was
        assert not {name: found for name, question in questions.items() if (found := heavy_imports(question))}


@pytest.mark.slow  # make check runs this program itself
def test_the_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


def test_no_two_modules_have_one_name() -> None:
    names = Counter(path.name for path in MODULES if path.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_a_folder_has_at_most_14_modules() -> None:
    folders = Counter(path.parent for path in MODULES)
    assert [folder for folder, count in folders.items() if count > 14] == []


def test_every_package_is_in_the_description_of_the_architecture() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = (
        path.parent.relative_to(ROOT / "src" / "headstart").parts
        for path in MODULES
        if path.name == "__init__.py" and ROOT / "src" in path.parents
    )
    assert [name for name in map(".".join, packages) if name and f"`{name}`" not in page] == []


def test_every_decision_has_a_number_of_its_own() -> None:
    decisions = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    numbers = [path.name.partition("-")[0] for path in decisions]
    assert len(numbers) == len(set(numbers))
    for path, number in zip(decisions, numbers, strict=True):
        assert path.read_text(encoding="utf-8").startswith(f"# {number}. ")
