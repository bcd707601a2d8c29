"""What a command does not need it does not import: an unchanged folder and a linear head are done without TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fakes import FakeBackbone, FakeNetwork
from headstart.extract.network import Network
from headstart.extract.options import ExtractOptions
from headstart.extract.run import extract_features
from pictures import class_folders

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]

#: Runs a statement, then says on the last line which of the packages that take long to import it needed.
PROBE = """
import sys
sys.path.insert(0, {tests!r})
{statement}
print(*sorted({{"tensorflow", "keras", "sklearn", "scipy", "matplotlib"}} & set(sys.modules)))
"""

COMMAND = """
from headstart_cli.app import COMMANDS, make_app
try:
    make_app(*COMMANDS)({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
"""

PREDICT = """
from fakes import FakeBackbone
from headstart import Predictor, load_bundle
bundle = load_bundle(__import__("pathlib").Path({head!r}))
found = list(Predictor(bundle, backbone=FakeBackbone(bundle.recipe)).predict([{data!r}]))
assert len(found) == 16, found
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 16 images in ``data`` and a cache of them that ``extract-features`` takes for its own."""
    folder = tmp_path_factory.mktemp("start")
    network = FakeNetwork()
    network.made = FakeBackbone(Network(ExtractOptions()).wanted(None))
    extract_features(class_folders(folder / "data", n_per_class=8), folder / "data.h5", network=network)
    return folder


def imported(statement: str) -> tuple[str, set[str]]:
    """Return what a fresh interpreter prints, and the slow packages that it has imported at the end."""
    command = [sys.executable, "-c", PROBE.format(tests=str(TESTS), statement=statement)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *text, names = done.stdout.splitlines()
    return "\n".join(text), set(names.split())


def command(*arguments: object) -> str:
    return COMMAND.format(arguments=list(map(str, arguments)))


def test_an_unchanged_folder_imports_nothing_slow(folder: Path) -> None:
    extraction = command("extract-features", folder / "data", "-o", folder / "data.h5")
    forecast = command("extract-features", folder / "data", "-o", folder / "data.h5", "--dry-run")
    text, names = imported(extraction + forecast)
    assert "0 images computed; reused: 16 unchanged" in text
    assert "Nothing to do" in text
    assert names == set()


def test_only_keras_heads_and_images_need_keras(folder: Path) -> None:
    fit = command("fit-head", folder / "data.h5", "--type", "logistic", "-o", folder / "head")
    evaluation = command("evaluate", folder / "head", folder / "data.h5")
    prediction = PREDICT.format(head=str(folder / "head"), data=str(folder / "data"))
    _, names = imported(fit + evaluation + prediction)
    assert "sklearn" in names, "the probe sees what is imported"
    assert not names & {"tensorflow", "keras"}
