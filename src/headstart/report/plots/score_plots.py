"""Plots of scores: against cost, against the best head, against the number of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from headstart.report.comparison import Comparison, HeadResult
from headstart.report.plots.svg import (
    ROLES,
    Plot,
    draw,
    drawn_heads,
    duration_axis,
    legend_below,
    log_ticks,
    look,
    short,
)
from headstart.report.text_tables import estimate_text, milliseconds, p_text, signed, value_text
from headstart.scores import metric_title

#: Stands for a duration of 0 on a logarithmic axis, in milliseconds.
NO_TIME_MS = 1e-4


def pareto_fit(comparison: Comparison) -> Plot:
    """Return accuracy against the time of one fit."""
    return _pareto(comparison, "fit", "time of one fit", lambda head: head.cost.fit_seconds * 1000)


def pareto_latency(comparison: Comparison) -> Plot:
    """Return accuracy against the head's time per image."""
    return _pareto(comparison, "latency", "time per image, from cached features", lambda head: head.cost.head_ms)


def _pareto(comparison: Comparison, name: str, axis: str, cost_ms: Callable[[HeadResult], float]) -> Plot:
    """Return accuracy with its interval against a cost; markers of Pareto-optimal heads are filled."""
    shown, left_out = drawn_heads(comparison)
    costs = {head.name: max(cost_ms(head), NO_TIME_MS) for head in comparison.heads}
    best = pareto_optimal(shown, costs)

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        duration_axis(axes, [costs[head.name] for head in shown])
        steps = sorted((costs[head.name], head.metrics["accuracy"].value) for head in shown if head.name in best)
        axes.step(*zip(*steps, strict=True), where="post", color=ROLES["soft"], linewidth=0.9, linestyle=(0, (3, 2)))
        for head in shown:
            mark, accuracy = look(head, comparison), head.metrics["accuracy"]
            fill = mark["color"] if head.name in best else ROLES["paper"]
            axes.vlines(costs[head.name], accuracy.low, accuracy.high, color=mark["color"], linewidth=1.2)
            axes.plot(
                costs[head.name],
                accuracy.value,
                **mark | {"linestyle": "none"},
                markerfacecolor=fill,
                label=short(head.name),
            )
        axes.set(xlabel=axis, ylabel="accuracy, 95 % interval")
        legend_below(figure)

    return draw(
        paint,
        name=f"pareto-{name}",
        title=f"Accuracy against {axis}",
        description=_pareto_words(shown, left_out, best, costs),
    )


def pareto_optimal(heads: Sequence[HeadResult], costs: dict[str, float]) -> set[str]:
    """Return the Pareto-optimal heads in accuracy and cost, without baselines."""
    points = [(head.name, head.metrics["accuracy"].value, costs[head.name]) for head in heads if not head.baseline]
    return {
        name
        for name, accuracy, cost in points
        if not any(a >= accuracy and c <= cost and (a > accuracy or c < cost) for _, a, c in points)
    }


def _pareto_words(
    shown: Sequence[HeadResult], left_out: Sequence[HeadResult], best: set[str], costs: dict[str, float]
) -> str:
    parts = []
    for head in shown:
        optimal = ", no other is both as accurate and as fast" if head.name in best else ""
        parts.append(
            f"{head.name} {estimate_text(head.metrics['accuracy'])} at {milliseconds(costs[head.name])}{optimal}"
        )
    parts += [f"{head.name} {estimate_text(head.metrics['accuracy'])} lies below the plot" for head in left_out]
    return "; ".join(parts) + "."


# Against the best


def differences(comparison: Comparison) -> Plot | None:
    """Return the metric minus that of the best head with simultaneous intervals; None if there is nothing to compare."""
    shown, left_out = drawn_heads(comparison)
    rows = [(head, head.difference) for head in shown if head.difference is not None]
    metric = metric_title(comparison.metric)
    if not rows:
        return None

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.axvline(0, color=ROLES["ink"], linewidth=1)
        for row, (head, difference) in enumerate(rows):
            mark = look(head, comparison) | {"linestyle": "none"}
            axes.hlines(row, difference.low, difference.high, color=mark["color"], linewidth=1.6)
            axes.plot(difference.value, row, **mark)
            if head.p_value is not None:
                text = p_text(head.p_value)
                axes.annotate(
                    f"p {text}" if text[0] == "<" else f"p = {text}", (1, row), xycoords=("axes fraction", "data"),
                    xytext=(8, 0), textcoords="offset points", va="center", annotation_clip=False,
                )  # fmt: skip
        axes.set_yticks(range(len(rows)), [short(head.name) for head, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(lambda value, _: signed(value).rstrip("0").rstrip(".") if value else "0")
        axes.set_xlabel(f"{metric} minus that of {short(best)}, simultaneous 95 % interval")

    best = next((head.name for head in comparison.heads if head.difference is None), "the best")
    words = [_difference_words(head) for head in [*(head for head, _ in rows), *left_out] if head.difference]
    height = 60 + 28 * len(rows)
    title = f"{metric[:1].upper()}{metric[1:]} minus that of {best}"
    return draw(paint, name="differences", title=title, description="; ".join(words) + ".", height_pt=height)


def _difference_words(head: HeadResult) -> str:
    difference = head.difference
    if difference is None:
        return head.name
    p_value = "" if head.p_value is None else f", p {p_text(head.p_value)}"
    between = f"{signed(difference.low)} to {signed(difference.high)}"
    return f"{head.name} {signed(difference.value)} ({between}{p_value})"


# Against the number of images


def learning_curve(comparison: Comparison) -> Plot | None:
    """Return accuracy against images per class; None if it was not measured."""
    shown, _ = drawn_heads(comparison)
    heads = [head for head in shown if head.learning_curve]
    if not heads:
        return None

    def paint(figure: Any) -> None:
        from matplotlib.ticker import FixedLocator, NullLocator

        axes = figure.add_subplot()
        for number, head in enumerate(heads):
            # Shifted slightly, so that intervals do not overlap.
            shift = 1.012 ** (number - (len(heads) - 1) / 2)
            x = [point.images_per_class * shift for point in head.learning_curve]
            estimates = [point.accuracy for point in head.learning_curve]
            mark = look(head, comparison)
            axes.vlines(x, [e.low for e in estimates], [e.high for e in estimates], color=mark["color"], linewidth=1)
            axes.plot(x, [e.value for e in estimates], **mark, markersize=5, label=short(head.name))
        places = sorted({point.images_per_class for head in heads for point in head.learning_curve})
        axes.set_xscale("log")
        low, high = places[0] / 1.15, places[-1] * 1.15
        axes.set_xlim(low, high)
        axes.xaxis.set_major_locator(FixedLocator(places if len(places) <= 8 else log_ticks(low, high)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set(xlabel="training images per class", ylabel="accuracy, 95 % interval")
        legend_below(figure)

    words = [f"{head.name}: {', '.join(_curve_words(head))}" for head in heads]
    return draw(
        paint, name="learning-curve", title="Accuracy against training images per class",
        description="; ".join(words) + ".", height_pt=310,
    )  # fmt: skip


def _curve_words(head: HeadResult) -> list[str]:
    return [f"{value_text(point.accuracy.value)} at {point.images_per_class:g}" for point in head.learning_curve]
