"""Predictions as they are printed and written."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from headstart.decisions.rule import Decision
from headstart.predict import Prediction
from headstart_cli.head_commands.predict_command import distance, refused, uncertainty
from headstart_cli.head_commands.prediction_output import (
    KINDS,
    csv_text,
    json_lines,
    prediction_row,
)

NAMES = ("ants", "bees")
SURE = Prediction("sure.jpg", np.array([0.1, 0.9]), unfamiliarity=0.5, nearest=("train/b.jpg", "bees"))
ODD = Prediction(
    "odd.jpg",
    np.array([0.6, 0.4]),
    unfamiliarity=2.5,
    nearest=("train/a.jpg", "ants"),
    decision=Decision("bees", ("ants", "bees")),
)
OLD = Prediction("old.jpg", np.array([0.75, 0.25]))
BAD = Prediction("bad.jpg", None, "It is empty.")
COLUMNS = (
    "path,prediction,decision,unsure,classes,probability_ants,probability_bees,"
    "unfamiliar,unfamiliarity,nearest_image,nearest_label,failure"
)


def row(one: Prediction) -> dict[str, object]:
    return prediction_row(one, NAMES, of_numbers=False)


@pytest.mark.parametrize(("raw", "path", "name"), [(False, "'=a\\x1b[31m.jpg", "'+b"), (True, "=a\x1b[31m.jpg", "+b")])
def test_text_in_csv_is_no_formula_unless_asked_for_raw(raw: bool, path: str, name: str) -> None:
    one = prediction_row(Prediction("=a\x1b[31m.jpg", np.array([0.25, 0.75])), ("a", "+b"), of_numbers=False)
    rows = list(csv.reader(io.StringIO("".join(csv_text([one], raw=raw)))))
    assert rows[1][:7] == [path, name, name, "", "", "0.25", "0.75"]


def test_every_image_is_a_row_of_the_same_columns() -> None:
    lines = "".join(csv_text(map(row, [SURE, ODD, OLD, BAD]))).splitlines()
    assert lines == [
        COLUMNS,
        "sure.jpg,bees,bees,,,0.1,0.9,false,0.5,train/b.jpg,bees,",
        "odd.jpg,ants,bees,true,ants;bees,0.6,0.4,true,2.5,train/a.jpg,ants,",
        "old.jpg,ants,ants,,,0.75,0.25,,,,,",
        "bad.jpg,,,,,,,,,,,It is empty.",
    ]


def test_json_lines_hold_the_same() -> None:
    first, second = (json.loads(line) for line in json_lines(map(row, [ODD, BAD])))
    assert first["probabilities"] == {"ants": 0.6, "bees": 0.4}
    assert (first["prediction"], first["unfamiliar"], first["nearest_label"]) == ("ants", True, "ants")
    assert (first["decision"], first["unsure"], first["classes"]) == ("bees", True, ["ants", "bees"])
    assert (second["prediction"], second["unfamiliar"], second["failure"]) == (None, None, "It is empty.")


def test_a_number_is_the_prediction() -> None:
    one = prediction_row(Prediction("a.jpg", np.array([2.5])), ("target",), of_numbers=True)
    assert one["prediction"] == 2.5
    assert "probabilities" not in one


def test_refused_images_have_no_prediction() -> None:
    assert row(refused(SURE))["prediction"] == "bees"
    assert row(refused(ODD)) | {"failure": ""} == row(ODD) | {
        "prediction": None,
        "decision": None,
        "unsure": None,
        "classes": None,
        "probabilities": {"ants": None, "bees": None},
        "failure": "",
    }


def test_orders() -> None:
    assert sorted([SURE, ODD, OLD, BAD], key=uncertainty) == [BAD, ODD, OLD, SURE]
    assert sorted([OLD, SURE, ODD], key=distance)[1:] == [ODD, SURE]


def test_parquet_has_the_columns_of_the_csv(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    (tmp_path / "p.parquet").write_bytes(KINDS[".parquet"]([row(BAD), row(SURE)]))
    table = parquet.read_table(tmp_path / "p.parquet")
    assert ",".join(table.column_names) == COLUMNS
    assert table.to_pylist()[1]["probability_bees"] == 0.9
    assert table.to_pylist()[0]["prediction"] is None
