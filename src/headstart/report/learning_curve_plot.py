"""Plot of accuracy against training images per class."""

from __future__ import annotations

from typing import Any

from headstart.report.comparison import Comparison, HeadResult
from headstart.report.svg import Plot, draw, drawn_heads, legend_below, log_ticks, look, short
from headstart.report.text_tables import value_text


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

    words = [f"{head.name}: {_curve_words(head)}" for head in heads]
    return draw(
        paint, name="learning-curve", title="Accuracy against training images per class",
        description="; ".join(words) + ".", height_pt=310,
    )  # fmt: skip


def _curve_words(head: HeadResult) -> str:
    return ", ".join(f"{value_text(one.accuracy.value)} at {one.images_per_class:g}" for one in head.learning_curve)
