"""Predictions as they are printed."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from headstart.predict import Prediction
from headstart_cli.head_commands.predict_command import print_csv


@pytest.mark.parametrize(("raw", "path", "name"), [(False, "'=a\\x1b[31m.jpg", "'+b"), (True, "=a\x1b[31m.jpg", "+b")])
def test_text_in_csv_is_no_formula_unless_asked_for_raw(
    capsys: pytest.CaptureFixture[str], raw: bool, path: str, name: str
) -> None:
    prediction = Prediction("=a\x1b[31m.jpg", np.array([0.25, 0.75]))
    print_csv([prediction], ("a", "+b"), 2, raw=raw)
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[1] == [path, name, "0.75", "a", "0.25"]
