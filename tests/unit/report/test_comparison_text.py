"""A comparison as tables, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from comparisons import make_comparison, odd_comparisons, replaced
from headstart.report.comparison import Comparison
from headstart.report.comparison_text import (
    comparison_csv,
    comparison_json,
    comparison_markdown,
    comparison_tables,
    markdown_text,
)
from headstart.report.text_tables import digits, memory, milliseconds, p_text, seconds, signed, size
from headstart.scores import METRICS

SHAPES = odd_comparisons()


@pytest.fixture(params=SHAPES)
def comparison(request: pytest.FixtureRequest) -> Comparison:
    return SHAPES[request.param]


def terminal(comparison: Comparison) -> str:
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(*comparison_tables(comparison))
    return console.file.getvalue()  # type: ignore[attr-defined]


# Terminal


def test_every_table_fits_into_80_columns_with_its_numbers_whole(comparison: Comparison) -> None:
    text = terminal(comparison)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for head in comparison.heads:
        accuracy = head.metrics["accuracy"]
        assert f"{accuracy.low:.3f}–{accuracy.high:.3f}" in text
        assert head.name in text


def test_the_recommended_head_is_marked_and_the_best_has_no_difference() -> None:
    text = terminal(make_comparison())
    best = make_comparison().heads[0].name
    assert text.count(f"{best} ◀") == 3
    assert next(line.split() for line in text.splitlines() if " best " in line)[:3] == [best, "◀", "best"]


def test_a_baseline_without_a_difference_is_not_the_best() -> None:
    made = make_comparison(n_samples=170)
    heads = (*made.heads[:-1], replaced(made.heads[-1], difference=None))
    assert terminal(replaced(made, heads=heads)).split().count("best") == 1


def test_a_number_that_does_not_exist_is_a_dash() -> None:
    text = terminal(SHAPES["bare"])
    assert "nan" not in text.lower()


def test_a_name_of_a_head_is_no_markup() -> None:
    made = make_comparison(n_samples=170)
    named = replaced(made, heads=(replaced(made.heads[0], name="x.[bold]Y"), *made.heads[1:]))
    assert "x.[bold]Y" in terminal(named)


# Markdown


def test_markdown_has_a_row_of_scores_differences_and_costs_for_each_head(comparison: Comparison) -> None:
    text = comparison_markdown(comparison)
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(table) for table in tables] == [len(comparison.heads) + 2] * 3
    for table in tables:
        assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert comparison.recommendation in text.replace("\\", "")


def test_markdown_holds_no_html_and_no_markup_of_others() -> None:
    text = comparison_markdown(SHAPES["hostile"])
    without_command = text.rsplit("\n    ", 1)[0]
    assert "<" not in without_command.replace("| < 0.001 |", "")
    assert "a\\|b\\`c\\`\\[bold\\]d" in text
    assert "\\udcff" not in text.replace("\\\\", "")


@given(st.text())
def test_escaped_text_is_one_line(text: str) -> None:
    assert len(f"|{markdown_text(text)}|".splitlines()) == 1


# CSV


def test_csv_has_every_figure_of_every_head(comparison: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(comparison_csv(comparison))))
    assert [row["head"] for row in rows] == [head.name for head in comparison.heads]
    for row, head in zip(rows, comparison.heads, strict=True):
        for metric in METRICS:
            estimate = head.metrics[metric.name]
            stored = [row[f"{metric.name}{end}"] for end in ("", "_low", "_high")]
            shown = ["" if math.isnan(v) else str(v) for v in (estimate.value, estimate.low, estimate.high)]
            assert stored == shown
        assert row["p_value"] == ("" if head.p_value is None else str(head.p_value))
        assert float(row["fit_seconds"]) == head.cost.fit_seconds


# JSON


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_json_is_strict_and_says_what_the_comparison_says(comparison: Comparison) -> None:
    text = comparison_json(comparison)
    text.encode("ascii")
    values = json.loads(text, parse_constant=refuse)
    assert json.dumps(values, ensure_ascii=False).encode()  # no lone surrogate is left
    assert values["n_samples"] == len(comparison.y_true)
    assert [head["name"] for head in values["heads"]] == [head.name for head in comparison.heads]
    first = comparison.heads[0].metrics["accuracy"]
    assert values["heads"][0]["metrics"]["accuracy"] == {"value": first.value, "low": first.low, "high": first.high}


def test_json_has_null_for_what_is_not_a_number() -> None:
    values = json.loads(comparison_json(SHAPES["bare"]))
    assert values["heads"][0]["metrics"]["roc_auc_ovr"] == {"value": None, "low": None, "high": None}


# Numbers


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (signed(-0.0004), "0.000"), (signed(-0.0314), "−0.031"), (signed(0.5), "+0.500"),
        (p_text(0.0004), "< 0.001"), (p_text(0.0123), "0.012"), (p_text(0.4), "0.40"), (p_text(None), "–"),
        (seconds(0.0041), "4.1 ms"), (seconds(0.41), "410 ms"), (seconds(7.41), "7.4 s"), (seconds(143.2), "2 min 23 s"),
        (milliseconds(0.021), "21 µs"), (milliseconds(0.44), "440 µs"), (milliseconds(0.999), "1 ms"),
        (milliseconds(96.52), "97 ms"), (milliseconds(1500), "1.5 s"),
        (milliseconds(None), "–"), (size(20), "20 B"), (size(20_480), "20 kB"), (size(1_300_000), "1.3 MB"),
        (size(999_900), "1 MB"), (size(None), "–"),
        (memory(4096), "< 1 MB"), (memory(1_300_000), "1.3 MB"), (memory(None), "–"),
    ],
)  # fmt: skip
def test_numbers_as_a_person_reads_them(shown: str, expected: str) -> None:
    assert shown == expected


@given(st.floats(min_value=1e-3, max_value=1e6))
def test_digits_lose_at_most_a_twentieth(value: float) -> None:
    assert float(digits(value)) == pytest.approx(value, rel=0.0501)
