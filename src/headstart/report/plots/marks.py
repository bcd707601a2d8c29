"""How a head looks in every plot, and what all plots have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.report.figures import milliseconds
from headstart.report.plots.svg import ROLES
from headstart.texts import printable

if TYPE_CHECKING:
    from headstart.report.comparison import Comparison, HeadResult

#: Eight of each, so that no two of the first eight heads share any; colour alone never tells them apart.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = (
    "-", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)), (0, (1, 2)), (0, (10, 3)), (0, (4, 1.5, 1, 1.5, 1, 1.5)),
    (0, (3, 4)),
)  # fmt: skip

#: Letters of a name that a plot has room for.
NAME_LENGTH = 26


def look(head: HeadResult, comparison: Comparison) -> dict[str, Any]:
    """Return colour, marker and line style of a head, the same in every plot; baselines are grey."""
    rank = [other.name for other in comparison.heads if other.baseline == head.baseline].index(head.name)
    if head.baseline:
        return {"color": ROLES["soft"], "marker": ("x", "+", "1", "2")[rank % 4], "linestyle": DASHES[(rank + 4) % 8]}
    return {"color": ROLES[f"c{rank % 8}"], "marker": MARKERS[(rank + rank // 8) % 8], "linestyle": DASHES[rank % 8]}


def short(text: str, length: int = NAME_LENGTH) -> str:
    """Return a name that can be shown, the middle of a long one left out."""
    text = printable(text)
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-half:]}"


def drawn_heads(comparison: Comparison) -> tuple[list[HeadResult], list[HeadResult]]:
    """Return the heads whose accuracy a plot shows, and the baselines that would push all others into a corner."""
    heads = [head for head in comparison.heads if not head.baseline] or list(comparison.heads)
    bounds = [bound for head in heads for bound in (head.metrics["accuracy"].low, head.metrics["accuracy"].high)]
    lowest = min(bounds) - max(max(bounds) - min(bounds), 0.05)
    shown = [head for head in comparison.heads if head in heads or head.metrics["accuracy"].value >= lowest]
    return shown, [head for head in comparison.heads if head not in shown]


def telling_heads(comparison: Comparison) -> list[HeadResult]:
    """Return the heads whose probabilities differ from image to image, and not from fold to fold alone."""
    return [
        head
        for head in comparison.heads
        if len(np.unique(head.probabilities, axis=0)) > max(1, len(head.fold_accuracy))
    ]


def legend_below(figure: Any, handles: Sequence[Any] | None = None, columns: int = 3) -> None:
    """Put a legend under a figure's axes."""
    found, labels = figure.axes[0].get_legend_handles_labels()
    if handles is not None:
        found, labels = list(handles), [handle.get_label() for handle in handles]
    figure.legend(found, labels, loc="outside lower center", ncols=min(columns, max(1, len(labels))))


def duration_axis(axes: Any, durations_ms: Sequence[float]) -> None:
    """Make an axis of durations in milliseconds logarithmic, labelled with units where they are."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min(durations_ms), max(durations_ms)
    low, high = low / 1.6, max(high, low * 3) * 1.6
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(log_ticks(low, high)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: milliseconds(value)))


def log_ticks(low: float, high: float) -> list[float]:
    """Return two to six round numbers between two bounds."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps, stride in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3)):
        ticks = [step * 10.0**power for power in decades if power % stride == 0 for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= 6:
            break
    return ticks
