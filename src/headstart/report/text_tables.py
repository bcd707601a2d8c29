"""Numbers and tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from headstart.scores import (
    ANOMALY_METRICS,
    NUMBER_METRICS,
    ORDER_METRICS,
    AnomalyScore,
    Estimate,
    NumberScore,
    OrderScore,
    PositiveRates,
    Score,
)
from headstart.texts import printable

#: Shown for undefined numbers.
NOTHING = "–"

#: Maximum number of classes in a confusion matrix.
MAX_CONFUSION_CLASSES = 20


def value_text(value: float | None) -> str:
    """Return a score with three decimals."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.3f}"


def interval_text(low: float, high: float) -> str:
    """Return the bounds of an interval with three decimals."""
    return NOTHING if math.isnan(low) or math.isnan(high) else f"{low:.3f}–{high:.3f}"


def estimate_text(estimate: Estimate) -> str:
    """Return a score with its interval."""
    return f"{value_text(estimate.value)} ({interval_text(estimate.low, estimate.high)})"


def signed(value: float) -> str:
    """Return a difference with its sign; a real minus, and no sign for 0."""
    if math.isnan(value):
        return NOTHING
    text = f"{abs(value):.3f}"
    return text if float(text) == 0 else f"{'−' if value < 0 else '+'}{text}"


def p_text(p_value: float | None) -> str:
    """Return a p-value with two significant digits."""
    if p_value is None or math.isnan(p_value):
        return NOTHING
    if p_value < 0.001:
        return "< 0.001"
    return f"{p_value:.3f}" if p_value < 0.1 else f"{p_value:.2f}"


def seconds(value: float) -> str:
    """Return a duration with a suitable unit."""
    if math.isnan(value):
        return NOTHING
    if value >= 100:
        minutes, rest = divmod(round(value), 60)
        return f"{minutes} min {rest:02d} s"
    return f"{digits(value)} s" if value >= 1 else milliseconds(value * 1000)


def milliseconds(value: float | None) -> str:
    """Return a duration given in milliseconds with a suitable unit."""
    if value is None or math.isnan(value):
        return NOTHING
    if value >= 1000:
        return f"{digits(value / 1000)} s"
    return f"{digits(value)} ms" if value >= 0.995 or value == 0 else f"{digits(value * 1000)} µs"


def size(value: int | None) -> str:
    """Return bytes with a decimal unit."""
    if value is None:
        return NOTHING
    number = float(value)
    for unit in ("B", "kB", "MB"):
        if number < 999.5:
            return f"{digits(number)} {unit}"
        number /= 1000
    return f"{digits(number)} GB"


def memory(value: int | None) -> str:
    """Return additional memory of a process; values below 1 MB are not significant."""
    return "< 1 MB" if value is not None and value < 1_000_000 else size(value)


def digits(value: float) -> str:
    """Return a number with two significant digits, without decimals from 10."""
    return f"{value:.0f}" if value >= 9.95 or value == 0 else f"{value:.2g}"


def summary_line(score: Score) -> str:
    """Return accuracy with its interval and the other scores as one line of Rich markup."""
    low, high = score.accuracy_interval
    return (
        f"[bold]accuracy {score.accuracy:.3f}[/] (95 % interval {low:.3f}–{high:.3f}, n = {score.n_samples:,}) · "
        f"balanced accuracy {_with_interval(score, 'balanced_accuracy', score.balanced_accuracy)} · "
        f"macro F1 {_with_interval(score, 'f1_macro', score.f1_macro)} · "
        f"log-loss {_with_interval(score, 'log_loss', score.log_loss)}"
    )


def number_text(value: float) -> str:
    """Return a number in any unit with four significant digits."""
    return f"{value:.4g}"


def number_line(score: NumberScore) -> str:
    """Return the metrics of predicted numbers with their intervals as one line of Rich markup."""
    parts = []
    for metric in NUMBER_METRICS:
        value, between = getattr(score, metric.name), score.intervals.get(metric.name)
        if value is not None:
            interval = f" (95 % interval {number_text(between[0])} to {number_text(between[1])})" if between else ""
            parts.append(f"{metric.title} {number_text(value)}{interval}")
    first, *others = parts
    return " · ".join([f"[bold]{first}[/], n = {score.n_samples:,}", *others])


def order_line(score: OrderScore) -> str:
    """Return the metrics that know the order of the levels, with their intervals, as one line of Rich markup."""
    return " · ".join(
        f"[bold]{metric.title} {_with_interval(score, metric.name, getattr(score, metric.name))}[/]"
        for metric in ORDER_METRICS[:2]
        if getattr(score, metric.name) is not None
    )


def anomaly_line(score: AnomalyScore) -> str:
    """Return the metrics of the ranking with their intervals as one line of Rich markup."""
    parts = [
        f"{metric.title} {_with_interval(score, metric.name, value)}"
        for metric in ANOMALY_METRICS[:3]
        if (value := getattr(score, metric.name)) is not None
    ]
    return f"[bold]{parts[0]}[/], n = {score.n_samples:,} · {' · '.join(parts[1:])}"


def chance_line(score: Score) -> str:
    """Return a warning in Rich markup if the head is not significantly better than the majority class; otherwise empty."""
    rows = [row for row in score.per_class if row["support"]]
    most = max(rows, key=lambda row: row["support"], default=None)
    if most is None or len(rows) < 2 or score.accuracy_interval[0] > most["support"] / score.n_samples:
        return ""
    share = most["support"] / score.n_samples
    words = "which is better" if score.accuracy_interval[1] < share else "and the head is not significantly better"
    return f"Always saying {escape(printable(str(most['class'])))} has accuracy {share:.3f}, {words}."


def _with_interval(score: Score, name: str, value: float) -> str:
    """Return a score and its 95 % interval, which is missing in scores saved by older versions."""
    between = score.intervals.get(name)
    return f"{value:.3f}" if between is None else f"{value:.3f} ({interval_text(*between)})"


def positive_line(positive: PositiveRates) -> str:
    """Return the rates of the positive class with their intervals as one line of Rich markup."""
    rates = (
        ("sensitivity", positive.sensitivity),
        ("specificity", positive.specificity),
        ("precision", positive.precision),
        ("negative predictive value", positive.npv),
    )
    words = (f"{name} {estimate_text(rate)}" for name, rate in rates)
    return f"[bold]{escape(printable(positive.class_name))}[/] against the rest: {' · '.join(words)}"


def per_class_table(score: Score) -> Table:
    """Return precision, recall, specificity and F1 of each class with 95 % intervals, and its number of images."""
    keys = [key for key in ("precision", "recall", "specificity", "f1") if all(key in row for row in score.per_class)]
    table = Table("class", title="Per class, with 95 % intervals")
    for column in (*("F1" if key == "f1" else key for key in keys), "images"):
        table.add_column(column, justify="right")
    for row in score.per_class:
        numbers = (_class_figure(row, key) for key in keys)
        table.add_row(escape(str(row["class"])), *numbers, f"{row['support']:,}")
    return table


def _class_figure(row: Mapping[str, Any], key: str) -> str:
    """Return a metric of a class with its interval, if any, on the next line."""
    between = row.get(f"{key}_interval")
    return f"{row[key]:.3f}" if between is None else f"{row[key]:.3f}\n[dim]{interval_text(*between)}[/]"


def confusion_table(score: Score) -> Table | None:
    """Return the confusion matrix; None if it has too many columns."""
    if len(score.class_names) > MAX_CONFUSION_CLASSES:
        return None
    table = Table("true \\ predicted", title="Confusion matrix")
    for name in score.class_names:
        table.add_column(escape(name), justify="right")
    for i, (name, counts) in enumerate(zip(score.class_names, score.confusion, strict=True)):
        table.add_row(escape(name), *(_cell(count, right=i == j) for j, count in enumerate(counts)))
    return table


def _cell(count: int, *, right: bool) -> str:
    if right:
        return f"[bold green]{count}[/]"
    return f"[red]{count}[/]" if count else "[dim]·[/]"


def heads_table(rows: Sequence[tuple[str, Score, float]]) -> Table:
    """Return one row per head: name, score, and seconds of its fit."""
    table = Table(title="Heads on the same held-out images")
    table.add_column("head", no_wrap=True)
    # Line breaks keep the numbers whole in 80 columns.
    for column in ("accuracy", "95 %\ninterval", "balanced\naccuracy", "macro F1", "log-loss", "fit s"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, score, fit_seconds in rows:
        low, high = score.accuracy_interval
        table.add_row(
            escape(name),
            f"[bold]{score.accuracy:.3f}[/]",
            f"{low:.3f}–{high:.3f}",
            f"{score.balanced_accuracy:.3f}",
            f"{score.f1_macro:.3f}",
            f"{score.log_loss:.3f}",
            f"{fit_seconds:.2f}",
        )
    return table
