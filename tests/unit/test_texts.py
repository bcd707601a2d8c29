"""Text from others, as it is shown and as it is written to CSV files."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headstart.texts import csv_cell, did_you_mean, json_value, printable

HARMFUL = ["=1+1", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "  =1", '=HYPERLINK("http://x")']


@pytest.mark.parametrize("text", HARMFUL)
def test_a_cell_that_a_spreadsheet_would_compute_is_text(text: str) -> None:
    assert csv_cell(text) == "'" + text
    assert csv_cell(text, raw=True) == text


@pytest.mark.parametrize("value", ["ant", "", "a=b", "1-2", "'=1", -1, -0.5, np.float32(-2), None, True])
def test_other_cells_stay_as_they_are(value: object) -> None:
    assert csv_cell(value) is value


def test_nothing_of_a_terminal_is_left() -> None:
    hostile = "a\x1b[31m\x1b]0;title\x07\u202eb\x9b\r\n\x7f\u2028\u2066\udcff"
    assert printable(hostile).isprintable()
    assert printable("größe 日本 שלום") == "größe 日本 שלום"


def test_half_of_a_character_is_an_escape_like_every_byte_that_is_no_text() -> None:
    assert printable("a\ud800\udcff\x1b") == "a\\ud800\\xff\\x1b"
    assert json_value({"\udcff": [math.nan, math.inf, 1.5, ("\ud800", None, True)]}) == {
        "\\xff": [None, None, 1.5, ["\\ud800", None, True]]
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("bee", " Did you mean bees?"),
        ("BEES", " Did you mean bees?"),
        ("cafe", " Did you mean café?"),
        ("golden retreiver", " Did you mean golden_retriever?"),
        ("zebra", ""),
        ("", ""),
    ],
)
def test_near_names_are_suggested(given: str, words: str) -> None:
    assert did_you_mean([given], ["ants", "bees", "café", "golden_retriever"]) == words
