"""``benchmark-heads`` and ``fit-head --search`` as a person runs them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from commands import Cli
from labelled import labelled_cache

pytestmark = pytest.mark.slow

LABELS = [row % 3 for row in range(90)]
SPLITS = ["test" if row >= 60 else "train" for row in range(90)]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return labelled_cache(tmp_path / "c.h5", LABELS, splits=SPLITS)


def test_a_comparison_in_every_form(cli: Cli, cache: Path, tmp_path: Path) -> None:
    code, output, messages = cli(
        "benchmark-heads", cache, "--heads", "ridge,majority", "-o", "r.csv", "--html", "pages/r.html"
    )
    assert code == 0, messages
    assert "Take ridge: accuracy" in output
    assert "latency from pixels was not measured" in messages  # features made elsewhere have no backbone here
    rows = list(csv.DictReader((tmp_path / "r.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["head"] for row in rows] == ["ridge", "majority"]
    page = (tmp_path / "pages" / "r.html").read_text(encoding="utf-8")
    assert "Take ridge: accuracy" in page
    assert "benchmark-heads" in page


def test_json_is_all_that_is_printed(cli: Cli, cache: Path) -> None:
    code, output, _ = cli("benchmark-heads", cache, "--heads", "ridge", "--json", "--no-latency", "--folds", "3")
    assert code == 0
    found = json.loads(output)
    assert found["recommended"] == "ridge"
    assert len(found["heads"][0]["fold_accuracy"]) == 3


def test_the_mean_of_the_best_heads_is_one_more_row(cli: Cli, cache: Path) -> None:
    code, output, _ = cli("benchmark-heads", cache, "--heads", "ridge,knn", "--ensemble", "--no-latency", "--json")
    assert code == 0
    found = {head["name"]: head for head in json.loads(output)["heads"]}
    assert set(found) == {"ridge", "knn", "ensemble"}
    assert {member["type"] for member in found["ensemble"]["spec"]["params"]["members"]} <= {"ridge", "knn"}
    assert len(found["ensemble"]["fold_settings"]) == 5


def test_wrong_usage_is_refused_before_any_work(cli: Cli, cache: Path, tmp_path: Path) -> None:
    assert cli("benchmark-heads", cache, "-o", "r.xlsx")[0] == 2
    assert cli("benchmark-heads", cache, "--data", tmp_path)[0] == 2
    assert cli("benchmark-heads", cache, "--address", "auto")[0] == 2
    assert cli("benchmark-heads", cache, "--join")[0] == 2
    assert cli("fit-head", cache, "--address", "auto")[0] == 2
    assert cli("fit-head", cache, "--type", "knn", "--engine", "ray")[0] == 2
    code, _, messages = cli("benchmark-heads", cache, "--heads", "forest", "--no-latency")
    assert code == 1
    assert "forest" in messages


def test_linear_heads_are_searched_unless_told_otherwise(cli: Cli, cache: Path) -> None:
    code, output, _ = cli("fit-head", cache)
    assert code == 0
    assert "Best of 8 settings in cross-validation (5 folds of 60 images" in output
    assert "Chosen" not in cli("fit-head", cache, "--no-search", "--overwrite")[1]
    assert "Chosen" not in cli("fit-head", cache, "--type", "knn")[1]
    assert "Best of 6 settings" in cli("fit-head", cache, "--type", "knn", "--search", "--overwrite")[1]
    assert "Best of 1 " not in cli("fit-head", cache, "--C", "1", "--overwrite")[1]
