"""Plots of how far probabilities can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.report import tallies
from headstart.report.figures import value_text
from headstart.report.plots.marks import legend_below, look, short, telling_heads
from headstart.report.plots.svg import ROLES, Plot, draw

if TYPE_CHECKING:
    from headstart.report.comparison import Comparison
    from headstart.report.tallies import Bin


def reliability(comparison: Comparison) -> Plot:
    """Return accuracy against confidence of the recommended head, bin by bin, with the number of images in each."""
    head = comparison[comparison.recommended]
    bins = tallies.reliability(comparison.y_true, head.probabilities)
    words = [f"{b.confidence:.2f} stated, {b.accuracy:.2f} right of {b.count:,}" for b in bins]
    return draw(
        lambda figure: paint_reliability(figure, bins, look(head, comparison)),
        name="reliability",
        title=f"Reliability of {head.name}",
        description=f"Mean probability of the predicted class, share of right ones: {'; '.join(words)}.",
        height_pt=380,
    )


def paint_reliability(figure: Any, bins: Sequence[Bin], mark: dict[str, Any]) -> None:
    """Draw bins with their intervals over the diagonal, and their counts below."""
    axes, below = figure.subplots(2, sharex=True, height_ratios=(3.4, 1))
    axes.plot([0, 1], [0, 1], color=ROLES["soft"], linewidth=0.9, linestyle=(0, (3, 2)))
    x = [b.confidence for b in bins]
    axes.vlines(x, [b.interval[0] for b in bins], [b.interval[1] for b in bins], color=mark["color"], linewidth=1.2)
    axes.plot(x, [b.accuracy for b in bins], **mark | {"linestyle": "-"}, linewidth=1.2)
    axes.set(ylabel="share of right predictions", ylim=(-0.02, 1.02), xlim=(-0.01, 1.01))
    lefts = [np.ceil(b.confidence * tallies.BINS - 1e-9) - 1 for b in bins]
    edges = np.maximum(lefts, 0) / tallies.BINS
    below.bar(
        edges,
        [b.count for b in bins],
        width=1 / tallies.BINS,
        align="edge",
        color=ROLES["soft"],
        edgecolor=ROLES["paper"],
        alpha=0.6,
    )
    below.set(xlabel="mean probability of the predicted class", ylabel="images")
    below.set_yscale("log")
    below.set_ylim(0.7, max(b.count for b in bins) * 2)
    powers = range(len(str(max(b.count for b in bins))))
    below.set_yticks([10**power for power in powers], [f"{10**power:,}" for power in powers])
    below.grid(visible=False, axis="x")


def every_reliability(comparison: Comparison) -> Plot | None:
    """Return the same line for every head at once; None where there is only one."""
    heads = telling_heads(comparison)
    if len(heads) < 2:
        return None

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=ROLES["soft"], linewidth=0.9, linestyle=(0, (3, 2)))
        for head in heads:
            bins = [b for b in tallies.reliability(comparison.y_true, head.probabilities, 10) if b.count >= 10]
            ece = value_text(head.metrics["ece"].value)
            axes.plot(
                [b.confidence for b in bins], [b.accuracy for b in bins], **look(head, comparison), markersize=4.5,
                linewidth=1.2, label=f"{short(head.name)}, ECE {ece}",
            )  # fmt: skip
        axes.set(xlabel="mean probability of the predicted class", ylabel="share of right predictions")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.02, 1.02))
        legend_below(figure, columns=2)

    words = [f"{head.name} {value_text(head.metrics['ece'].value)}" for head in heads]
    return draw(
        paint, name="calibration", title="Reliability of every head (tenths with at least 10 images)",
        description=f"Expected calibration error: {', '.join(words)}.", height_pt=380,
    )  # fmt: skip
