"""One row per scored image: in a saved head, and as CSV, Parquet and JSON."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from headstart.bundles.bundle import load_bundle
from headstart.cache.reader import open_cache
from headstart.errors import DataError, MissingExtraError, ParameterError
from headstart.evaluation import evaluate_head
from headstart.exchange.prediction_table import (
    ScoredImages,
    check_predictions_file,
    fold_names,
    predictions_csv,
    split_names,
    write_predictions,
)
from headstart.fit import fit_head
from headstart.heads.catalogue import default_spec
from headstart.selection.compare import compare_heads
from headstart_cli.app import COMMANDS, make_app
from headstart_cli.head_commands.benchmark_command import scored_by_head
from labelled import labelled_cache

pytestmark = pytest.mark.slow

SPEC = default_spec("knn", features=["avg"])
PROBABILITIES = np.array([[0.75, 0.25], [0.5, 0.5], [0.125, 0.875]])
HOSTILE = ScoredImages(
    ["=1+1.png", "a\udcff.png", "x,\r\n.png"], np.array([0, 1, 1]), PROBABILITIES, ("@ant", "bee"), ["", "test", "2 1"]
)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return labelled_cache(tmp_path / "c.h5", [row % 2 for row in range(40)], distance=0.3)


def rows_of(data: bytes) -> list[list[str]]:
    """Return the cells of a CSV file."""
    return list(csv.reader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")))


def test_csv_holds_every_probability_and_no_formula() -> None:
    assert rows_of(predictions_csv([HOSTILE])) == [
        ["path", "truth", "prediction", "split", "probability_@ant", "probability_bee"],
        ["'=1+1.png", "'@ant", "'@ant", "", "0.75", "0.25"],
        ["a\udcff.png", "bee", "'@ant", "test", "0.5", "0.5"],
        ["x,\r\n.png", "bee", "bee", "2 1", "0.125", "0.875"],
    ]


def test_json_and_parquet_hold_the_same_with_text_as_it_is(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    paths = ["=1+1.png", "a\\xff.png", "x,\r\n.png"]
    write_predictions(tmp_path / "new" / "p.json", [HOSTILE])
    rows = json.loads((tmp_path / "new" / "p.json").read_text(encoding="utf-8"))
    assert [row["path"] for row in rows] == paths
    assert rows[2]["probabilities"] == {"@ant": 0.125, "bee": 0.875}
    assert (rows[1]["truth"], rows[1]["prediction"], rows[1]["split"]) == ("bee", "@ant", "test")
    write_predictions(tmp_path / "p.parquet", [HOSTILE, HOSTILE])
    table = parquet.read_table(tmp_path / "p.parquet").to_pydict()
    assert table["path"] == paths * 2
    assert table["probability_bee"] == [0.25, 0.5, 0.875] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "p.parquet"]


def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"ends in \.csv, \.parquet, \.json\. Received: p\.xlsx"):
        check_predictions_file(Path("p.xlsx"))
    own = tmp_path / "data.csv"
    own.write_text("path,label\n", encoding="utf-8")
    with pytest.raises(DataError, match="is read by this command"):
        check_predictions_file(own, [own])
    (tmp_path / "f.csv").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        check_predictions_file(tmp_path / "f.csv")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"headstart\[parquet\]"):
        check_predictions_file(Path("p.parquet"))


def test_a_saved_head_holds_what_it_says_of_each_held_out_image(cache: Path, tmp_path: Path) -> None:
    found = fit_head(cache, SPEC, output=tmp_path / "head")
    header, *rows = rows_of((tmp_path / "head" / "predictions.csv").read_bytes())
    assert header == ["path", "truth", "prediction", "split", "probability_ants", "probability_bees"]
    assert len(rows) == found.score.n_samples
    assert {row[3] for row in rows} == {"held-out"}
    assert np.mean([row[1] == row[2] for row in rows]) == found.score.accuracy < 1
    with open_cache(cache) as opened:
        classes = {path: opened.class_names[label] for path, label in zip(opened.paths, opened.labels, strict=True)}
    assert all(classes[row[0]] == row[1] for row in rows)
    (tmp_path / "head" / "predictions.csv").write_text("path\n", encoding="utf-8")
    load_bundle(tmp_path / "head")  # a spreadsheet that saves it again does not damage the head
    assert fit_head(cache, SPEC, output=tmp_path / "head", overwrite=True).folder


def test_evaluate_returns_the_images_that_it_scored(cache: Path, tmp_path: Path) -> None:
    fitted = fit_head(cache, SPEC, output=tmp_path / "head").scored
    scored = evaluate_head(tmp_path / "head", cache).scored
    assert scored is not None
    assert fitted is not None
    assert sorted(scored.paths) == sorted(fitted.paths)
    assert len(evaluate_head(tmp_path / "head", cache, include_training=True).scored or ()) == 40


def test_the_splits_of_held_out_images_are_named() -> None:
    splits, rows = ["train", "test", "test", ""], np.array([1, 2])
    assert split_names(splits, rows) == ["test", "test"]
    assert split_names(splits, np.array([0, 1])) == split_names(splits, np.array([3, 3])) == ["held-out"] * 2


def test_a_comparison_has_a_row_for_every_image_of_the_folds_and_of_the_held_out_split(tmp_path: Path) -> None:
    splits = ["test" if row % 4 == 0 else "train" for row in range(40)]
    cache = labelled_cache(tmp_path / "c.h5", [row % 2 for row in range(40)], splits=splits, distance=0.5)
    found = compare_heads(cache, heads=("ridge", "majority"), features=("avg",), n_splits=2)
    folds, held_out, *majority = scored_by_head(found)
    assert (len(folds), len(held_out), [len(one) for one in majority]) == (30, 10, [30, 10])
    assert set(held_out.splits) == {"test"}
    assert held_out.paths == [f"{('ants', 'bees')[row % 2]}/{row}.jpg" for row in range(0, 40, 4)]
    right = held_out.probabilities.argmax(axis=1) == held_out.y_true
    assert found["ridge"].held_out is not None
    assert right.mean() == found["ridge"].held_out.accuracy
    assert not {"held_out_probabilities", "probabilities"} & set(found.to_dict()["heads"][0])


def test_folds_are_counted_in_each_repeat() -> None:
    tests = [np.array([0, 2]), np.array([1]), np.array([1, 2]), np.array([0])]
    assert fold_names(tests, 2, 3) == ["1 2", "2 1", "1 1"]


def test_a_comparison_knows_the_folds_of_each_image(cache: Path) -> None:
    found = compare_heads(cache, heads=("ridge",), features=("avg",), n_splits=2, n_repeats=2)
    assert len(found.fold_names) == 40
    assert {len(name.split()) for name in found.fold_names} == {2}
    assert "fold_names" not in found.to_dict()


def test_every_command_writes_them(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    common = {"fit-head": ["--type", "knn", "-o", "head"], "evaluate": [], "benchmark-heads": []}
    common["benchmark-heads"] = ["--heads", "ridge,majority", "--features", "avg", "--folds", "2", "--no-latency"]
    for command, options in common.items():
        given = [str(tmp_path / "head")] if command == "evaluate" else []
        target = tmp_path / f"{command}.csv"
        arguments = [command, *given, str(cache), *options, "--predictions", str(target)]
        make_app(*COMMANDS)(arguments, standalone_mode=False)
    fitted, evaluated, compared = (rows_of((tmp_path / f"{command}.csv").read_bytes()) for command in common)
    assert sorted(evaluated[1:], key=str)[0][:3] == sorted(fitted[1:], key=str)[0][:3]
    assert compared[0][:2] == ["head", "path"]
    assert [row[0] for row in compared[1:]] == ["ridge"] * 40 + ["majority"] * 40
    assert {row[4] for row in compared[1:]} == {"1", "2"}


def test_the_positive_class_of_the_fit_is_that_of_later_scores(cache: Path, tmp_path: Path) -> None:
    fitted = fit_head(cache, SPEC, output=tmp_path / "head", positive="bees").score.positive
    assert fitted is not None
    assert fitted.class_name == "bees"
    assert evaluate_head(tmp_path / "head", cache).score.positive == fitted
    other = evaluate_head(tmp_path / "head", cache, positive="ants").score.positive
    assert other is not None
    assert other.sensitivity == fitted.specificity
    with pytest.raises(ParameterError, match=r"among ants, bees\. Received: 'bee'"):
        evaluate_head(tmp_path / "head", cache, positive="bee")
    with pytest.raises(ParameterError, match=r"Received: 'bee'"):
        fit_head(cache, SPEC, positive="bee")
