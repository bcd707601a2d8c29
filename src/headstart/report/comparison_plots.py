"""Plots of a comparison of heads: scores against cost, the best head and images; confusion, ROC, precision, calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.report import curve_points
from headstart.report.comparison import Comparison, HeadResult, pareto_optimal
from headstart.report.curve_points import Bin, Curve
from headstart.report.learning_curve_plot import learning_curve
from headstart.report.residual_plots import residual_plots
from headstart.report.svg import (
    ROLES,
    Plot,
    draw,
    drawn_heads,
    duration_axis,
    legend_below,
    look,
    short,
    telling_heads,
)
from headstart.report.text_tables import estimate_text, milliseconds, p_text, signed, value_text
from headstart.scores import ECE_BINS, Metric, metric_title

#: Stands for a duration of 0 on a logarithmic axis, in milliseconds.
NO_TIME_MS = 1e-4


def comparison_plots(comparison: Comparison) -> dict[str, Plot]:
    """Return the available plots of a comparison by name, in page order."""
    made = [
        pareto_fit(comparison),
        pareto_latency(comparison),
        differences(comparison),
        learning_curve(comparison),
        *(residual_plots(comparison) if comparison.is_of_numbers else plots_of_classes(comparison)),
    ]
    return {plot.name: plot for plot in made if plot is not None}


def plots_of_classes(comparison: Comparison) -> list[Plot | None]:
    """Return the plots of predicted classes and probabilities."""
    found = [confusion(comparison), *curves(comparison)]
    if "log_loss" in [metric.name for metric in comparison.metrics]:  # else outputs are no probabilities
        found += [reliability(comparison), every_reliability(comparison)]
    return found


def pareto_fit(comparison: Comparison) -> Plot:
    """Return the first metric against the time of one fit."""
    return _pareto(comparison, "fit", "time of one fit", lambda head: head.cost.fit_seconds * 1000)


def pareto_latency(comparison: Comparison) -> Plot:
    """Return the first metric against the head's time per image."""
    return _pareto(comparison, "latency", "time per image, from cached features", lambda head: head.cost.head_ms)


def _pareto(comparison: Comparison, name: str, axis: str, cost_ms: Callable[[HeadResult], float]) -> Plot:
    """Return the first metric with its interval against a cost; markers of Pareto-optimal heads are filled."""
    main = comparison.metrics[0]
    shown, left_out = drawn_heads(comparison)
    costs = {head.name: max(cost_ms(head), NO_TIME_MS) for head in comparison.heads}
    best = pareto_optimal(shown, costs, main)

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        duration_axis(axes, [costs[head.name] for head in shown])
        steps = sorted((costs[head.name], head.metrics[main.name].value) for head in shown if head.name in best)
        axes.step(*zip(*steps, strict=True), where="post", color=ROLES["soft"], linewidth=0.9, linestyle=(0, (3, 2)))
        for head in shown:
            mark, figure_of = look(head, comparison), head.metrics[main.name]
            fill = mark["color"] if head.name in best else ROLES["paper"]
            axes.vlines(costs[head.name], figure_of.low, figure_of.high, color=mark["color"], linewidth=1.2)
            axes.plot(
                costs[head.name],
                figure_of.value,
                **mark | {"linestyle": "none"},
                markerfacecolor=fill,
                label=short(head.name),
            )
        axes.set(xlabel=axis, ylabel=f"{main.title}, 95 % interval")
        legend_below(figure)

    return draw(
        paint,
        name=f"pareto-{name}",
        title=f"{main.title[:1].upper()}{main.title[1:]} against {axis}",
        description=_pareto_words(shown, left_out, best, costs, main),
    )


def _pareto_words(
    shown: Sequence[HeadResult], left_out: Sequence[HeadResult], best: set[str], costs: dict[str, float], main: Metric
) -> str:
    parts = []
    for head in shown:
        optimal = ", no other is both as accurate and as fast" if head.name in best else ""
        parts.append(
            f"{head.name} {estimate_text(head.metrics[main.name])} at {milliseconds(costs[head.name])}{optimal}"
        )
    beyond = "below" if main.higher_is_better else "above"
    parts += [f"{head.name} {estimate_text(head.metrics[main.name])} lies {beyond} the plot" for head in left_out]
    return "; ".join(parts) + "."


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


#: Maximum number of classes in a confusion matrix.
MAX_CONFUSION_CLASSES = 40

#: Maximum number of probabilities of a head for which curves are drawn, to limit the time for sorting.
MAX_PROBABILITIES = 10_000_000


def reliability(comparison: Comparison) -> Plot:
    """Return accuracy against confidence of the recommended head by bin, with the number of images in each."""
    head = comparison[comparison.recommended]
    bins = curve_points.reliability(comparison.y_true, head.probabilities)
    words = [f"{b.confidence:.2f} stated, {b.accuracy:.2f} right of {b.count:,}" for b in bins]
    return draw(
        lambda figure: _paint_reliability(figure, bins, look(head, comparison)),
        name="reliability",
        title=f"Reliability of {head.name}",
        description=f"Mean probability of the predicted class, share of right ones: {'; '.join(words)}.",
        height_pt=380,
    )


def _paint_reliability(figure: Any, bins: Sequence[Bin], mark: dict[str, Any]) -> None:
    axes, below = figure.subplots(2, sharex=True, height_ratios=(3.4, 1))
    axes.plot([0, 1], [0, 1], color=ROLES["soft"], linewidth=0.9, linestyle=(0, (3, 2)))
    x = [b.confidence for b in bins]
    axes.vlines(x, [b.interval[0] for b in bins], [b.interval[1] for b in bins], color=mark["color"], linewidth=1.2)
    axes.plot(x, [b.accuracy for b in bins], **mark | {"linestyle": "-"}, linewidth=1.2)
    axes.set(ylabel="share of right predictions", ylim=(-0.02, 1.02), xlim=(-0.01, 1.01))
    lefts = [np.ceil(b.confidence * ECE_BINS - 1e-9) - 1 for b in bins]
    counts = [b.count for b in bins]
    below.bar(
        np.maximum(lefts, 0) / ECE_BINS,
        counts,
        width=1 / ECE_BINS,
        align="edge",
        color=ROLES["soft"],
        edgecolor=ROLES["paper"],
        alpha=0.6,
    )
    below.set(xlabel="mean probability of the predicted class", ylabel="images")
    below.set_yscale("log")
    below.set_ylim(0.7, max(counts) * 2)
    powers = range(len(str(max(counts))))
    below.set_yticks([10**power for power in powers], [f"{10**power:,}" for power in powers])
    below.grid(visible=False, axis="x")


def every_reliability(comparison: Comparison) -> Plot | None:
    """Return accuracy against confidence of all heads; None if there is only one."""
    heads = telling_heads(comparison)
    if len(heads) < 2:
        return None

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=ROLES["soft"], linewidth=0.9, linestyle=(0, (3, 2)))
        for head in heads:
            bins = [b for b in curve_points.reliability(comparison.y_true, head.probabilities, 10) if b.count >= 10]
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


def confusion(comparison: Comparison) -> Plot | None:
    """Return the confusion matrix of the recommended head; None if it has too many classes."""
    if len(comparison.class_names) > MAX_CONFUSION_CLASSES:
        return None
    counts = curve_points.confusion_matrix(comparison.y_true, comparison[comparison.recommended].probabilities)
    n_classes = len(counts)
    cell_pt = 40 if n_classes <= 8 else 26 if n_classes <= 20 else 17
    right, total = int(counts.trace()), int(counts.sum())
    pairs = curve_points.confusions(counts, comparison.class_names, most=5)
    words = [f"{short(pair.true)} taken for {short(pair.predicted)} {pair.count} times" for pair in pairs]
    return draw(
        lambda figure: _paint_confusion(figure, counts, [short(name, 22) for name in comparison.class_names], cell_pt),
        name="confusion",
        title=f"Confusion matrix of {comparison.recommended}",
        description=f"{right:,} of {total:,} images are right. Most frequent mistakes: {', '.join(words) or 'none'}.",
        width_pt=120 + cell_pt * n_classes,
        height_pt=120 + cell_pt * n_classes,
        wide=n_classes > 8,
    )


def _paint_confusion(figure: Any, counts: NDArray[np.int64], names: Sequence[str], cell_pt: int) -> None:
    """Draw the counts, shaded by the fraction of the true class."""
    from matplotlib.patches import Rectangle

    axes = figure.add_subplot(aspect="equal")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 10 if cell_pt > 35 else 8.5 if cell_pt > 20 else 7
    for i, j in zip(*np.nonzero(counts), strict=True):
        colour, share = ROLES["right" if i == j else "wrong"], float(shares[i, j])
        # Single mistakes in large classes stay visible.
        shade = 0.12 + 0.88 * share if i == j else min(1.0, 0.16 + 1.6 * share)
        axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=colour, alpha=shade, linewidth=0))
        # Readable in the light and the dark colour scheme.
        ink = ROLES["ink" if shade < 0.63 else "dark" if shade < 0.88 else "paper"]
        axes.text(j, i, f"{counts[i, j]}", ha="center", va="center_baseline", fontsize=size, color=ink)
    edges = np.arange(-0.5, len(counts))
    axes.hlines(edges, -0.5, len(counts) - 0.5, color=ROLES["line"], linewidth=0.6, zorder=0)
    axes.vlines(edges, -0.5, len(counts) - 0.5, color=ROLES["line"], linewidth=0.6, zorder=0)
    axes.set(xlim=(-0.5, len(counts) - 0.5), ylim=(len(counts) - 0.5, -0.5), xlabel="predicted", ylabel="true")
    upright = 0 if len(counts) <= 3 else 90
    axes.set_xticks(range(len(counts)), names, rotation=upright, fontsize=max(size, 8))
    axes.set_yticks(range(len(counts)), names, fontsize=max(size, 8))
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def curves(comparison: Comparison) -> list[Plot]:
    """Return ROC and precision-recall curves of every head: of the positive or second of two classes, otherwise averages.

    Empty if all images are of one class, or there are too many probabilities to sort.
    """
    y_true, heads = comparison.y_true, telling_heads(comparison)
    if len(np.unique(y_true)) < 2 or not heads or heads[0].probabilities.size > MAX_PROBABILITIES:
        return []
    if comparison.positive or len(comparison.class_names) == 2:
        positive = comparison.class_names.index(comparison.positive) if comparison.positive else 1
        pairs = [curve_points.both_curves(y_true == positive, head.probabilities[:, positive]) for head in heads]
        name = short(comparison.class_names[positive])
        return _pair_of_plots(comparison, heads, pairs, "", (f"ROC of {name}", f"Precision and recall of {name}"))
    plots = []
    for average, curves_of in (("macro", curve_points.macro_curves), ("micro", curve_points.micro_curves)):
        pairs = [curves_of(y_true, head.probabilities) for head in heads]
        titles = f"ROC, {average} average", f"Precision and recall, {average} average"
        plots += _pair_of_plots(comparison, heads, pairs, f"-{average}", titles)
    return plots


def _pair_of_plots(
    comparison: Comparison,
    heads: Sequence[HeadResult],
    pairs: Sequence[tuple[Curve, Curve]],
    suffix: str,
    titles: tuple[str, str],
) -> list[Plot]:
    roc, precision = zip(*pairs, strict=True)
    return [
        _plot_of_curves(comparison, heads, roc, f"roc{suffix}", titles[0], roc=True),
        _plot_of_curves(comparison, heads, precision, f"precision-recall{suffix}", titles[1], roc=False),
    ]


def _plot_of_curves(
    comparison: Comparison, heads: Sequence[HeadResult], made: Sequence[Curve], name: str, title: str, *, roc: bool
) -> Plot:
    """Return the plot of ROC or of precision-recall curves; if all are good, their corner is enlarged."""

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        if roc:
            axes.plot([0, 1], [0, 1], color=ROLES["soft"], linewidth=0.8, linestyle=(0, (1, 3)))
        _paint_curves(axes, comparison, heads, made, "AUC" if roc else "AP")
        labels = ("false positive rate", "true positive rate") if roc else ("recall", "precision")
        axes.set(xlabel=labels[0], ylabel=labels[1])
        if min(curve.area for curve in made) > (0.93 if roc else 0.9):
            left, x = (0.42, (0, 0.2)) if roc else (0.13, (0.8, 1.004))
            _zoom(axes.inset_axes((left, 0.14, 0.55, 0.55)), comparison, heads, made, x)
        legend_below(figure, columns=2)

    areas = ", ".join(f"{head.name} {value_text(curve.area)}" for head, curve in zip(heads, made, strict=True))
    description = f"{'Area under the curve' if roc else 'Average precision'}: {areas}."
    return draw(paint, name=name, title=title, description=description, height_pt=370)


def _paint_curves(
    axes: Any, comparison: Comparison, heads: Sequence[HeadResult], made: Sequence[Curve], measure: str = ""
) -> None:
    for number, (head, curve) in enumerate(zip(heads, made, strict=True)):
        line = curve_points.thinned(curve)
        mark = look(head, comparison)
        label = f"{short(head.name)}, {measure} {value_text(curve.area)}" if measure else ""
        # Evenly spaced markers, shifted between heads.
        every = (0.02 * number, 0.16)
        axes.plot(
            line.x, line.y, **mark, markevery=every, markersize=4.5, linewidth=1.3, label=label, zorder=3 - number / 100
        )
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])


def _zoom(
    inset: Any, comparison: Comparison, heads: Sequence[HeadResult], made: Sequence[Curve], x: tuple[float, float]
) -> None:
    """Draw an enlarged upper corner in an empty part of the axes."""
    _paint_curves(inset, comparison, heads, made)
    inset.set(xlim=x, ylim=(0.8, 1.004))
    inset.set_facecolor(ROLES["paper"])
    for set_ticks, low in ((inset.set_xticks, x[0]), (inset.set_yticks, 0.8)):
        ticks = [low, low + 0.1, low + 0.2]
        set_ticks(ticks, [f"{tick:.1f}".removesuffix(".0") for tick in ticks])
    inset.tick_params(labelsize=8)
    for spine in inset.spines.values():
        spine.set_visible(True)
        spine.set_color(ROLES["line"])
