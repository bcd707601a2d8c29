"""Every plot that a comparison has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.report.plots import probability_plots, score_plots

if TYPE_CHECKING:
    from headstart.report.comparison import Comparison
    from headstart.report.plots.svg import Plot


def comparison_plots(comparison: Comparison) -> dict[str, Plot]:
    """Return plots by name, in the order of a page; one that a comparison has no figures for is not among them."""
    made = [
        score_plots.pareto_fit(comparison),
        score_plots.pareto_latency(comparison),
        score_plots.differences(comparison),
        score_plots.learning_curve(comparison),
        probability_plots.confusion(comparison),
        *probability_plots.curves(comparison),
        probability_plots.reliability(comparison),
        probability_plots.every_reliability(comparison),
    ]
    return {plot.name: plot for plot in made if plot is not None}
