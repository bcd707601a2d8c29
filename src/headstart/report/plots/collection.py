"""Every plot that a comparison has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.report.plots import calibration, probabilities, scores

if TYPE_CHECKING:
    from headstart.report.comparison import Comparison
    from headstart.report.plots.svg import Plot


def comparison_plots(comparison: Comparison) -> dict[str, Plot]:
    """Return plots by name, in the order of a page; one that a comparison has no figures for is not among them."""
    made = [
        scores.pareto_fit(comparison),
        scores.pareto_latency(comparison),
        scores.differences(comparison),
        scores.learning_curve(comparison),
        probabilities.confusion(comparison),
        *probabilities.curves(comparison),
        calibration.reliability(comparison),
        calibration.every_reliability(comparison),
    ]
    return {plot.name: plot for plot in made if plot is not None}
