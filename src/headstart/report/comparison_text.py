"""A comparison of heads as tables for a terminal, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from headstart.report.comparison import Comparison, HeadResult
from headstart.report.text_tables import (
    NOTHING,
    estimate_text,
    interval_text,
    memory,
    milliseconds,
    p_text,
    seconds,
    signed,
    size,
    value_text,
)
from headstart.scores import Estimate, PositiveRates, metric_title
from headstart.texts import counted, csv_cell, json_value, printable

#: Headers that keep the table of scores within 80 columns.
SHORT_TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "bal.\nacc.",
    "f1_macro": "macro\nF1",
    "roc_auc_ovr": "ROC-\nAUC",
    "average_precision": "avg.\nprec.",
    "log_loss": "log-\nloss",
    "ece": "ECE",
    "qwk": "kappa",
    "mae_levels": "level\nerror",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "spearman": "rank\ncorr.",
}


#: Headers of the rates of the positive class.
POSITIVE_TITLES = ("sensitivity", "specificity", "precision", "neg. pred.\nvalue")


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Return tables of scores, differences to the best head, and costs, at most 80 columns wide."""
    tables = [
        _scores_table(comparison),
        _positive_table(comparison),
        _differences_table(comparison),
        _costs_table(comparison),
        _caches_table(comparison),
    ]
    return [table for table in tables if table.row_count]


def _scores_table(comparison: Comparison) -> Table:
    main, *others = comparison.metrics
    columns = ["head", SHORT_TITLES[main.name], "95 %\ninterval"]
    table = _slim_table("Scores", [*columns, *(SHORT_TITLES[metric.name] for metric in others)])
    for head in comparison.heads:
        first = head.metrics[main.name]
        values = [value_text(first.value), interval_text(first.low, first.high)]
        values += [value_text(head.metrics[metric.name].value) for metric in others]
        table.add_row(_shown_name(head, comparison), *values, style="dim" if head.baseline else None)
    return table


def _positive_table(comparison: Comparison) -> Table:
    columns = ["head", *POSITIVE_TITLES]
    table = _slim_table(f"{escape(printable(comparison.positive or ''))} against the rest, 95 % intervals", columns)
    for head in comparison.heads:
        if head.positive:
            cells = (
                f"{value_text(rate.value)}\n{interval_text(rate.low, rate.high)}" for rate in _rates(head.positive)
            )
            table.add_row(_shown_name(head, comparison), *cells, style="dim" if head.baseline else None)
    return table


def _rates(positive: PositiveRates) -> tuple[Estimate, ...]:
    return positive.sensitivity, positive.specificity, positive.precision, positive.npv


def _differences_table(comparison: Comparison) -> Table:
    title = f"Difference in {metric_title(comparison.metric)} to the best, on the same images"
    table = _slim_table(title, ["head", "difference", "95 % interval", "p"])
    table.caption = "p is below 0.05 exactly where the interval leaves out 0."
    table.caption_justify = "left"
    held_out = any(head.held_out for head in comparison.heads)
    if held_out:
        table.add_column("held out", justify="right", no_wrap=True)
    for head in comparison.heads:
        if head.difference is None and not held_out:
            continue
        cells = _difference_cells(head) + ([_held_out_text(head)] if held_out else [])
        table.add_row(_shown_name(head, comparison), *cells, style="dim" if head.baseline else None)
    return table


def _difference_cells(head: HeadResult) -> list[str]:
    if head.difference is None:
        return [NOTHING if head.baseline else "best", "", ""]
    difference = head.difference
    between = f"{signed(difference.low)} to {signed(difference.high)}"
    return [signed(difference.value), between, p_text(head.p_value)]


def _held_out_text(head: HeadResult) -> str:
    if head.held_out is None:
        return NOTHING
    return estimate_text(head.held_out.main)


def _costs_table(comparison: Comparison) -> Table:
    columns = ["head", "fit", "search", "per image\nhead", "per image\nin all", "size", "peak\nmemory"]
    table = _slim_table("Costs", columns)
    for head in comparison.heads:
        table.add_row(_shown_name(head, comparison), *_cost_cells(head), style="dim" if head.baseline else None)
    return table


def _cost_cells(head: HeadResult) -> list[str]:
    cost = head.cost
    once = [seconds(cost.fit_seconds), seconds(cost.search_seconds) if cost.search_seconds else NOTHING]
    per_image = [milliseconds(cost.head_ms), milliseconds(cost.total_ms)]
    return [*once, *per_image, size(cost.size_bytes), memory(cost.peak_bytes)]


def _caches_table(comparison: Comparison) -> Table:
    table = Table("head", "cache", title="Chosen caches", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    for head in comparison.heads if comparison.caches else ():
        cells = (_shown_name(head, comparison), escape(printable(head.cache or NOTHING)))
        table.add_row(*cells, style="dim" if head.baseline else None)
    return table


def _slim_table(title: str, columns: Sequence[str]) -> Table:
    """Return a table with left-aligned names, which may be wrapped, and right-aligned numbers, which may not."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, column in enumerate(columns):
        # A long name is broken; a number never.
        table.add_column(column, justify="right" if number else "left", no_wrap=bool(number), overflow="fold")
    return table


def _shown_name(head: HeadResult, comparison: Comparison) -> str:
    name = escape(printable(head.name))
    return f"[bold green]{name} ◀[/]" if head.name == comparison.recommended else name


# For documents


def comparison_markdown(comparison: Comparison) -> str:
    """Return recommendation, tables and method as Markdown."""
    parts = [f"**{markdown_text(comparison.recommendation)}**"]
    header = ["head", *(metric.title for metric in comparison.metrics)]
    scores = ([mark(head, comparison), *_score_cells(head, comparison)] for head in comparison.heads)
    parts.append(_markdown_table(header, scores))
    if comparison.positive:
        parts.append(f"{markdown_text(comparison.positive)} against the rest:")
        rows = ([mark(head, comparison), *_positive_cells(head)] for head in comparison.heads if head.positive)
        parts.append(_markdown_table(["head", *(title.replace("\n", " ") for title in POSITIVE_TITLES)], rows))
    header = [
        "head",
        f"{metric_title(comparison.metric)} minus the best's",
        "95 % interval",
        "p",
        f"held-out {comparison.metrics[0].title}",
    ]
    rows = ([mark(head, comparison), *_difference_cells(head), _held_out_text(head)] for head in comparison.heads)
    parts.append(_markdown_table(header, rows))
    header = ["head", "fit", "search", "per image: head", "per image: in all", "size", "peak memory"]
    parts.append(_markdown_table(header, ([mark(head, comparison), *_cost_cells(head)] for head in comparison.heads)))
    if comparison.caches:
        rows = ([mark(head, comparison), markdown_text(head.cache or NOTHING)] for head in comparison.heads)
        parts.append(_markdown_table(["head", "cache"], rows))
    parts.append("\n".join(f"- {markdown_text(line)}" for line in _remarks(comparison)))
    if comparison.fit_command:
        parts.append(f"    {printable(comparison.fit_command)}")
    if comparison.command:
        parts.append(f"    {printable(comparison.command)}")
    return "\n\n".join(parts) + "\n"


def _positive_cells(head: HeadResult) -> list[str]:
    found = _rates(head.positive) if head.positive else ()
    return list(map(estimate_text, found))


def _remarks(comparison: Comparison) -> list[str]:
    """Return sentences on the method and on caveats."""
    of = "numbers" if comparison.is_of_numbers else counted(len(comparison.class_names), "class")
    lines = [f"{counted(len(comparison.y_true))}, {of}, {comparison.cache}"]
    named = {"Folds": comparison.folds, "Intervals": comparison.interval, "Differences": comparison.test}
    named |= {"Expected of the recommended head": expected_text(comparison)}
    named |= {"Held out": comparison.held_out, "Machine": comparison.machine}
    lines += [f"{name}: {text}" for name, text in named.items() if text]
    lines += [f"Cache: {cache.title}, {cache.path}" for cache in comparison.caches if cache.recipe]
    lines += comparison.not_in_all
    lines += [f"Leak: {leak}" for leak in comparison.leaks]
    lines += [f"{head.name}: {note}" for head in comparison.heads for note in head.notes]
    if comparison.versions:
        lines.append(", ".join(f"{name} {version}" for name, version in comparison.versions.items()))
    return lines


def expected_text(comparison: Comparison) -> str:
    """Return measured and expected score of the recommended head; empty if unknown."""
    expected, head = comparison.expected, comparison[comparison.recommended]
    if expected is None:
        return ""
    measured = value_text(head.metrics[comparison.metric].value)
    return f"{metric_title(comparison.metric)} {estimate_text(expected)}; measured {measured}. {comparison.correction}"


def _score_cells(head: HeadResult, comparison: Comparison) -> list[str]:
    return [estimate_text(head.metrics[metric.name]) for metric in comparison.metrics]


def mark(head: HeadResult, comparison: Comparison) -> str:
    """Return a head's name as Markdown: the recommended one in bold, baselines in italics."""
    name = markdown_text(head.name)
    if head.name == comparison.recommended:
        return f"**{name}**"
    return f"*{name}*" if head.baseline else name


def _markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def markdown_text(text: str) -> str:
    """Return text with all Markdown and HTML syntax escaped."""
    html = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{char}" if char in "\\`*_[]|#~$" else char for char in html)


# For programs


def comparison_csv(comparison: Comparison) -> str:
    """Return a CSV table with one row per head: metrics with bounds, difference, p-value, held-out accuracy, costs."""
    rows = [_csv_row(head, comparison) for head in comparison.heads]
    written = io.StringIO()
    writer = csv.DictWriter(written, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue()


def _csv_row(head: HeadResult, comparison: Comparison) -> dict[str, Any]:
    row: dict[str, Any] = {"head": printable(head.name), "baseline": head.baseline}
    row["recommended"] = head.name == comparison.recommended
    if comparison.caches:
        row["cache"] = printable(head.cache)
    for name, estimate in {**head.metrics, "difference": head.difference}.items():
        bounds = (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), map(_or_empty, bounds), strict=True))
    row["p_value"] = _or_empty(head.p_value)
    expected = comparison.expected if row["recommended"] else None
    ends = (None, None, None) if expected is None else (expected.value, expected.low, expected.high)
    row |= dict(zip(("expected", "expected_low", "expected_high"), map(_or_empty, ends), strict=True))
    row[f"held_out_{comparison.metrics[0].name}"] = None if head.held_out is None else head.held_out.main.value
    cost = head.cost
    row |= {"fit_seconds": cost.fit_seconds, "search_seconds": cost.search_seconds, "head_ms": cost.head_ms}
    row |= {"total_ms": cost.total_ms, "size_bytes": cost.size_bytes, "peak_bytes": cost.peak_bytes}
    row["notes"] = "; ".join(map(printable, head.notes))
    return {name: csv_cell(value) for name, value in row.items()}


def _or_empty(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def comparison_json(comparison: Comparison) -> str:
    """Return :meth:`Comparison.to_dict` as strict JSON, NaN as null."""
    return json.dumps(json_value(comparison.to_dict()), indent=2, allow_nan=False)
