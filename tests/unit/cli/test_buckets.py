"""Commands read a cache at an address as they read one on a disk, and never say a key."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from buckets import KEY, SECRET, put_folder
from fakes import FakeNetwork
from headstart.bundles.bundle import load_bundle
from headstart.extract import estimate, run
from headstart_cli.app import COMMANDS, make_app
from headstart_cli.app import run as run_app
from pictures import class_folders

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]

CACHE = "s3://photos/features/set.h5"


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run a command in this process, and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["headstart", *words])
    with pytest.raises(SystemExit) as end:
        run_app(make_app(*COMMANDS))
    return int(end.value.code or 0)


@pytest.fixture
def data(tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images, the same in a bucket, and a cache of it there."""
    folder = class_folders(tmp_path / "data", n_per_class=20)
    put_folder(s3, folder, "photos", "set/")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(run, "Network", lambda _options: FakeNetwork())
    monkeypatch.setattr(estimate, "MEASURED_SECONDS", 0.0)
    assert command(monkeypatch, "extract-features", "s3://photos/set", "-o", CACHE) == 0
    return folder


def test_every_command_that_reads_a_cache_takes_an_address(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said = ""
    for words in (
        ["inspect", CACHE],
        ["inspect", CACHE, "--quality"],
        ["verify", CACHE],
        ["verify", CACHE, "s3://photos/set", "--sample", "0"],
        ["verify", CACHE, "--data", str(data), "--sample", "0"],
        ["fit-head", CACHE, "--type", "ridge", "--no-search"],
        ["evaluate", "heads/set-ridge", CACHE],
        ["benchmark-heads", CACHE, "--heads", "ridge", "--folds", "2", "--no-latency"],
        ["convert", CACHE, "set.npz"],
    ):
        assert command(monkeypatch, *words) == 0, (words, capfd.readouterr())
        said += "".join(capfd.readouterr())
    assert load_bundle(Path("heads/set-ridge"))
    assert json.loads(Path("heads/set-ridge/metrics.json").read_text())["cache"] == CACHE
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in (KEY, SECRET):
        assert secret not in said
        assert not any(secret.encode() in content for content in written)


def test_json_names_the_address(data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert command(monkeypatch, "inspect", CACHE, "--json") == 0
    facts = json.loads(capfd.readouterr().out)
    assert (facts["path"], facts["n_images"]) == (CACHE, 40)
    assert command(monkeypatch, "extract-features", "s3://photos/set", "-o", CACHE, "--dry-run", "--json") == 0
    assert json.loads(capfd.readouterr().out)["output"] == CACHE


def test_an_image_that_is_gone_from_the_bucket_is_found_by_verify(
    data: Path, s3: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    s3.delete_object(Bucket="photos", Key="set/ant/000.png")
    assert command(monkeypatch, "verify", CACHE, "s3://photos/set", "--sample", "0") == 1
    assert "gone" in "".join(capfd.readouterr())


@pytest.mark.parametrize("words", [["inspect"], ["fit-head"], ["verify"], ["benchmark-heads"], ["extract-features"]])
def test_a_key_in_an_address_is_refused_and_not_repeated(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for address in (f"s3://{KEY}:{SECRET}@photos/set.h5", f"s3://photos/set.h5?secret={SECRET}"):
        assert command(monkeypatch, *words, address) == 1
        said = "".join(capfd.readouterr())
        assert "refused" in said
        assert SECRET not in said
        assert KEY not in said
