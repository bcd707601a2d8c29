"""Fitted heads: what they predict, how they are chosen and named, and what is refused."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caches import RECIPE
from commands import Cli
from headstart.bundles.bundle import load_bundle
from headstart.fit import fit_head
from labelled import labelled_cache
from pictures import class_folders, picture

pytestmark = pytest.mark.slow


def test_a_saved_head_is_replaced_when_asked_alone(cli: Cli, head: Path) -> None:
    saved = (head / "bundle.json").read_bytes()
    for arguments in (["--type", "logistic", "--C", "3"], ["--type", "ridge", "-o", head]):
        code, _, err = cli("fit-head", "features/photos.h5", *arguments)
        assert code == 1
        assert f"{head} is a saved head already. Replace it with --overwrite, or choose another folder" in err
        assert (head / "bundle.json").read_bytes() == saved
    assert cli("fit-head", "features/photos.h5", "--type", "ridge", "-o", head, "--overwrite")[0] == 0
    assert json.loads((head / "bundle.json").read_text())["spec"]["type"] == "ridge"


@pytest.mark.parametrize("head_type", ["logistic", "knn"])
def test_a_head_is_the_same_from_the_command_and_from_python(cli: Cli, data: Path, head_type: str) -> None:
    assert cli("extract-features", data)[0] == 0
    code, out, _ = cli("fit-head", "features/photos.h5", "--type", head_type, "-o", "head")
    assert code == 0
    assert "not used for fitting" in out
    assert load_bundle(Path("head")).spec == fit_head("features/photos.h5", head_type).spec


def test_several_caches_of_the_same_images_are_chosen_among(cli: Cli, data: Path) -> None:
    for name in ("one.h5", "two.h5"):
        assert cli("extract-features", data, "-o", name)[0] == 0
    code, out, err = cli("fit-head", "one.h5", "two.h5", "--type", "ridge")
    assert code == 0, err
    assert "Cache: one.h5 (best accuracy: one.h5 1.000, two.h5 1.000)" in out
    code, _, err = cli("fit-head", "one.h5", "two.h5", "--type", "ridge", "--no-search")
    assert code == 1
    assert "needs a search" in err


def test_several_caches_are_joined_on_request(cli: Cli, tmp_path: Path) -> None:
    labels = [row % 3 for row in range(60)]
    labelled_cache(tmp_path / "one.h5", labels)
    labelled_cache(tmp_path / "two.h5", labels, seed=1, recipe=replace(RECIPE, input_size_px=16))
    code, out, err = cli("fit-head", "one.h5", "two.h5", "--join", "--type", "ridge")
    assert code == 0, err
    assert "Side by side: one.h5, two.h5" in out
    assert "ridge on 1:avg, 2:avg (scaling sqrt-l2)" in out
    head = "heads/one+two-ridge"
    assert "one.h5 + two.h5" in cli("heads")[1]
    assert json.loads(cli("evaluate", head, "two.h5", "one.h5", "--json")[1])["n_samples"] == 15
    code, _, err = cli("evaluate", head, "two.h5")
    assert code == 1
    assert "None is of: foreign:test last, 8 px" in err
    code, _, err = cli("fit-head", "one.h5", "--join")
    assert code == 2
    assert "--join goes with several caches" in err


def test_paths_to_predict_on_standard_input(
    cli: Cli, head: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one.png", "zwei ö.png"):
        picture(tmp_path / "new" / name, 5)
    lines = "new/one.png\r\n\nnew/zwei ö.png\n".encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
    code, out, _ = cli("predict", head, "-", "--format", "csv")
    assert code == 0
    assert [line.split(",")[0] for line in out.splitlines()[1:]] == ["new/one.png", "new/zwei ö.png"]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_predictions_for_programs(cli: Cli, head: Path, tmp_path: Path, form: str) -> None:
    picture(tmp_path / "new" / "one.png", 5)
    (tmp_path / "new" / "bad.jpg").write_bytes(b"no")
    code, out, err = cli("predict", head, "new", "--format", form)
    assert code == 1
    assert "new/bad.jpg: " in err
    rows = list(csv.DictReader(io.StringIO(out))) if form == "csv" else [json.loads(line) for line in out.splitlines()]
    assert [row["path"] for row in rows] == ["new/bad.jpg", "new/one.png"]
    assert rows[0]["failure"]
    assert not rows[0]["prediction"]
    assert rows[1]["nearest_label"] == rows[1]["prediction"]


def test_images_unlike_the_training_images_are_marked(cli: Cli, head: Path, tmp_path: Path) -> None:
    picture(tmp_path / "new" / "one.png", 5)
    Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(tmp_path / "new" / "drawing.png")
    code, out, err = cli("predict", head, "new")
    assert code == 0, err
    assert out.count("unfamiliar") == 1
    assert "1 of 2 images unfamiliar" in err
    code, out, _ = cli("predict", head, "new", "--unfamiliar", "refuse", "-o", "new.csv", "--sort", "unfamiliar")
    rows = list(csv.DictReader(io.StringIO(Path("new.csv").read_text())))
    assert (code, out) == (0, "")
    assert [(row["path"], row["prediction"] == "") for row in rows] == [
        ("new/drawing.png", True),
        ("new/one.png", False),
    ]
    Path("list.csv").write_text("path\nnew/one.png\n")
    for name, words in (("list.csv", "is read by this command"), ("new.xlsx", ".csv, .jsonl, .parquet")):
        code, _, err = cli("predict", head, "list.csv", "-o", name)
        assert code == 1
        assert words in " ".join(err.split())
    assert Path("list.csv").read_text() == "path\nnew/one.png\n"
    _, out, _ = cli("predict", head, "new", "--summary")
    assert "1 of 2 images are unfamiliar." in out


def test_wrong_parameters_of_a_head_are_named(cli: Cli, head: Path) -> None:
    code, _, err = cli("fit-head", "features/photos.h5", "--type", "logistic", "--epochs", "3")
    assert code == 1
    assert "A logistic head takes no epochs" in err


def test_a_classifier_by_its_import_path(cli: Cli, head: Path) -> None:
    code, out, err = cli("fit-head", "features/photos.h5", "--type", "sklearn.naive_bayes.GaussianNB")
    assert code == 0, err
    assert "sklearn.naive_bayes.GaussianNB on avg (scaling sqrt-l2)" in out
    assert cli("evaluate", "heads/photos-GaussianNB", "features/photos.h5")[0] == 0
    code, _, err = cli("fit-head", "features/photos.h5", "--type", "sklearn.tree.DecisionTreeClassifier")
    assert code == 1
    assert "cannot be saved" in err
    assert "Traceback" not in err


def test_a_head_as_a_config_file(cli: Cli, head: Path) -> None:
    Path("head.toml").write_text('type = "knn"\nfeatures = ["max"]\nscaling = "l2"\n[params]\nn_neighbors = 3\n')
    assert (
        cli("fit-head", "features/photos.h5", "--config", "head.toml", "--scaling", "none", "--distance", "euclidean")[
            0
        ]
        == 0
    )
    spec = json.loads(Path("heads/photos-knn/bundle.json").read_text())["spec"]
    assert (spec["features"], spec["scaling"]) == (["max"], "none")
    assert spec["params"] == {"n_neighbors": 3, "metric": "euclidean"}
    code, _, err = cli("fit-head", "features/photos.h5", "--config", "head.toml", "--type", "ridge")
    assert code == 2
    assert "head.toml has type knn" in err
    Path("head.toml").write_text('type = "knn"\nneighbours = 3\n')
    code, _, err = cli("fit-head", "features/photos.h5", "--config", "head.toml")
    assert code == 1
    assert "head.toml: neighbours. Expected" in err


def test_saved_heads_are_listed(cli: Cli, head: Path) -> None:
    cli("fit-head", "features/photos.h5", "--type", "ridge", "--alpha", "2", "-o", "heads/[red]")
    code, out, _ = cli("heads")
    assert code == 0
    assert "photos-logistic" in out
    assert "[red]" in out
    assert "features/photos.h5" in out
    (head / "head.skops").unlink()
    code, out, _ = cli("heads")
    assert code == 0
    assert "broken photos-logistic" in out
    code, out, _ = cli("heads", "--json")
    red, logistic = json.loads(out)
    assert (red["type"], red["params"], red["cache"]) == ("ridge", {"alpha": 2.0}, "features/photos.h5")
    assert red["accuracy_interval"][0] <= red["accuracy"] <= red["accuracy_interval"][1]
    assert "head.skops" in logistic["problem"]


def test_no_saved_heads_is_said(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("heads")
    assert code == 1
    assert "heads cannot be listed" in err
    (tmp_path / "heads").mkdir()
    code, out, err = cli("heads")
    assert (code, out) == (0, "")
    assert "No saved heads" in err
    assert json.loads(cli("heads", "--json")[1]) == []


def test_splits_of_the_data_are_used(cli: Cli, tmp_path: Path) -> None:
    class_folders(tmp_path / "data" / "train", n_per_class=8)
    class_folders(tmp_path / "data" / "val", n_per_class=4)
    cli("extract-features", "data")
    code, out, _ = cli("fit-head", "features/data.h5", "--type", "linear-svm", "--class-weight", "balanced")
    assert code == 0
    assert "the 8 images of the split validation" in out
    assert "8 training images were left out" in out  # the same pictures stand in both
    assert cli("fit-head", "features/data.h5", "--validation", "test")[0] == 1
    code, out, _ = cli("fit-head", "features/data.h5", "--validation", "val", "--type", "rbf-svm", "--C", "2")
    assert "split validation" in out


def test_a_bound_of_memory_is_a_size(cli: Cli, data: Path) -> None:
    cli("extract-features", data, "-o", "photos.h5")
    code, _, err = cli("fit-head", "photos.h5", "--max-memory", "much")
    assert code == 1
    assert "'much' is not a memory size" in err
    code, _, err = cli("fit-head", "photos.h5", "--max-memory", "1MiB")
    assert code == 1
    assert "a bound of 1 MiB" in err
    code, out, _ = cli("fit-head", "photos.h5", "--max-memory", "4GiB")
    assert code == 0
    assert "in parts" not in out


def test_images_to_label_next(cli: Cli, tmp_path: Path) -> None:
    labelled_cache(tmp_path / "c.h5", [0, 1] * 20 + [-1] * 30)
    assert cli("fit-head", "c.h5", "--type", "ridge", "-o", "head")[0] == 0
    code, out, err = cli("suggest", "c.h5", "--head", "head", "-n", "25", "-o", "label.csv")
    assert code == 0, err
    assert "25 images in all" in out
    rows = list(csv.DictReader(io.StringIO(Path("label.csv").read_text())))
    assert len(rows) == 25
    assert {row["label"] for row in rows} == {""}
    assert cli("suggest", "c.h5", "--head", "head", "-o", "label.csv")[0] == 2
