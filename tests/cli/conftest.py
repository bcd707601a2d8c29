"""The commands as a person runs them, with a fake backbone in place of the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import Cli, exit_code
from fakes import FakeBackbone, FakeNetwork
from headstart import predict
from headstart.extract import estimate, run
from headstart_cli import console
from pictures import class_folders


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run ``headstart …`` in an empty folder; return exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    for stream in (console.out, console.err):  # whatever the terminal's own width was when they were made
        monkeypatch.setattr(stream, "width", 200)
    monkeypatch.setattr(run, "Network", lambda _options: FakeNetwork())
    monkeypatch.setattr(estimate, "MEASURED_SECONDS", 0.0)
    monkeypatch.setattr(predict, "build_backbone", lambda *_arguments, **_options: FakeBackbone())

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = exit_code(monkeypatch, *arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos", n_per_class=12)


@pytest.fixture
def head(cli: Cli, data: Path) -> Path:
    assert cli("extract-features", data)[0] == 0
    assert cli("fit-head", "features/photos.h5", "--type", "logistic")[0] == 0
    return Path("heads/photos-logistic")
