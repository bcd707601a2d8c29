from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.bundles.metadata import list_heads
from headstart.errors import BundleError

GOLDEN = Path(__file__).resolve().parents[2] / "data" / "bundles_v1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("ridge", "knn"):
        shutil.copytree(GOLDEN / name, tmp_path / "heads" / name)
    return tmp_path / "heads"


def test_heads_are_listed_by_name_with_what_is_known(folder: Path) -> None:
    knn, ridge = list_heads(folder)
    assert (knn.path.name, ridge.path.name) == ("knn", "ridge")
    assert ridge.problem == ""
    assert ridge.metadata is not None
    assert (ridge.metadata.spec.type, ridge.metadata.spec.features, ridge.metadata.spec.scaling) == (
        "ridge",
        ("avg", "gem"),
        "l2",
    )
    assert (ridge.accuracy, ridge.interval, ridge.n_scored) == (0.75, (0.5, 0.9), 24)
    assert ridge.size_bytes == sum(path.stat().st_size for path in ridge.path.iterdir())
    values = ridge.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["recipe"] == f"foreign:golden last, 32 px, {ridge.metadata.recipe.fingerprint[:8]}"


def test_a_head_itself_is_a_list_of_one(folder: Path) -> None:
    assert [head.path for head in list_heads(folder / "knn")] == [folder / "knn"]


def test_what_is_no_head_is_passed_over(folder: Path) -> None:
    (folder / "photos").mkdir()
    (folder / ".knn.partial").mkdir()
    shutil.copy(folder / "knn" / "bundle.json", folder / ".knn.partial")
    (folder / "bundle.txt").touch()
    assert [head.path.name for head in list_heads(folder)] == ["knn", "ridge"]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="absent cannot be listed"):
        list_heads(tmp_path / "absent")


def break_json(head: Path) -> None:
    (head / "bundle.json").write_text("{")


def remove_head(head: Path) -> None:
    (head / "head.skops").unlink()


def break_metrics(head: Path) -> None:
    (head / "metrics.json").write_text("[")


def link_to_nowhere(head: Path) -> None:
    (head / "bundle.json").unlink()
    (head / "bundle.json").symlink_to("nowhere")


def newer(head: Path) -> None:
    (head / "bundle.json").write_text(json.dumps({"format": "headstart-bundle", "format_version": 99}))


def pipe(head: Path) -> None:
    (head / "metrics.json").unlink()
    os.mkfifo(head / "metrics.json")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_json, "cannot be read"),
        (remove_head, "head.skops"),
        (break_metrics, "metrics.json"),
        (link_to_nowhere, "not a regular file"),
        (newer, "format version 99"),
        (pipe, "not a regular file"),
    ],
)
def test_a_broken_head_is_listed_as_broken_and_the_others_as_ever(damage, words: str, folder: Path) -> None:
    damage(folder / "knn")
    knn, ridge = list_heads(folder)
    assert words in knn.problem
    assert knn.to_dict()["problem"] == knn.problem
    assert ridge.accuracy == 0.75


@pytest.mark.parametrize(
    "metrics",
    [[], {"accuracy": "0.9"}, {"accuracy": None, "accuracy_interval": [1]}, {"n_samples": -3, "cache": 3, "split": []}],
)
def test_metrics_of_the_wrong_kind_count_as_none(metrics: object, folder: Path) -> None:
    (folder / "knn" / "metrics.json").write_text(json.dumps(metrics))
    knn = list_heads(folder)[0]
    assert (knn.problem, knn.accuracy, knn.interval, knn.n_scored, knn.cache, knn.split) == (
        "",
        None,
        None,
        None,
        "",
        "",
    )


def test_listing_imports_nothing_heavy(folder: Path) -> None:
    code = (
        f"import sys; from headstart_cli.app import make_app; sys.argv = ['headstart', 'heads', {str(folder)!r}]\n"
        "from headstart_cli.app import COMMANDS\n"
        "try: make_app(*COMMANDS)()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'sklearn', 'scipy', 'h5py', 'tensorflow', 'keras', 'skops'}.intersection(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    assert "ridge" in run.stdout


def test_a_head_that_may_not_be_read_is_listed_as_broken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iterdir = Path.iterdir

    def refuses(path: Path) -> Iterator[Path]:
        if path.name == "knn":
            raise PermissionError("Permission denied")
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuses)
    knn, ridge = list_heads(folder)
    assert "knn cannot be read: Permission denied" in knn.problem
    assert ridge.problem == ""
