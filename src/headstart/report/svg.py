"""Matplotlib figures as SVG with the colours of the page, and a common style of heads in all plots."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from headstart.report.comparison import Comparison, HeadResult
from headstart.report.text_tables import milliseconds
from headstart.texts import printable

#: Role → default colour, each used for one role only; a page has its own for light and dark (templates/benchmark.css). Those
#: of the heads are Okabe and Ito's colour-blind safe palette (jfly.uni-koeln.de/color, 2008).
ROLES = {
    "ink": "#1c2126", "soft": "#5a646e", "line": "#d7dce1", "paper": "#ffffff", "right": "#0b6fae", "wrong": "#c9520a",
    "c0": "#0072b2", "c1": "#d55e00", "c2": "#009e73", "c3": "#cc79a7", "c4": "#e69f00", "c5": "#56b4e9",
    "c6": "#000000", "c7": "#f0e442", "dark": "#14181c",
}  # fmt: skip

#: Matplotlib settings, independent of the user's.
SETTINGS = {
    "svg.fonttype": "none", "svg.hashsalt": "headstart", "text.parse_math": False, "text.usetex": False,
    "font.family": "DejaVu Sans", "font.size": 9.5, "axes.labelsize": 9.5, "axes.titlesize": 10,
    "text.color": ROLES["ink"], "axes.labelcolor": ROLES["ink"], "xtick.labelcolor": ROLES["ink"],
    "ytick.labelcolor": ROLES["ink"], "axes.edgecolor": ROLES["soft"], "xtick.color": ROLES["soft"],
    "ytick.color": ROLES["soft"], "grid.color": ROLES["line"], "grid.linewidth": 0.7, "axes.grid": True,
    "figure.facecolor": "none", "savefig.facecolor": "none", "axes.facecolor": "none",
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "xtick.major.size": 3, "ytick.major.size": 3, "xtick.minor.size": 0, "ytick.minor.size": 0, "legend.frameon": False,
    "legend.fontsize": 9, "legend.handlelength": 2.4, "legend.columnspacing": 1.4, "lines.linewidth": 1.6,
    "lines.markersize": 6, "axes.unicode_minus": True,
}  # fmt: skip

#: Style properties that are also SVG attributes.
ATTRIBUTES = frozenset({
    "fill", "fill-opacity", "fill-rule", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-dashoffset",
    "stroke-linejoin", "stroke-linecap", "stroke-miterlimit", "opacity", "text-anchor", "font-size", "font-weight",
    "font-style",
})  # fmt: skip

SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"

#: Colour → role.
COLOURS = {colour: role for role, colour in ROLES.items()}

#: Eight of each, so that heads never differ by colour alone.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

DASHES: tuple[Any, ...] = (
    "-", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)), (0, (1, 2)), (0, (10, 3)), (0, (4, 1.5, 1, 1.5, 1, 1.5)),
    (0, (3, 4)),
)  # fmt: skip

#: Maximum length of a name in a plot.
NAME_LENGTH = 26


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot with its description."""

    name: str  # unique on a page; letters, digits and hyphens
    title: str  # title, and its numbers in words for screen readers. Both are in the SVG.
    description: str
    svg: str  # one ``<svg>`` element
    wide: bool = False  # whether it needs the full width of the page


def draw(
    paint: Callable[[Any], None],
    *,
    name: str,
    title: str,
    description: str,
    width_pt: float = 370,
    height_pt: float = 300,
    wide: bool = False,
) -> Plot:
    """Return a plot; ``paint`` is given an empty figure with constrained layout. The output is reproducible."""
    from matplotlib import style
    from matplotlib.figure import Figure

    written = io.BytesIO()
    with style.context(["default", SETTINGS]), warnings.catch_warnings():
        # Glyphs missing from Matplotlib's font are still written as text.
        warnings.filterwarnings("ignore", message=".*missing from.*font")
        figure = Figure(figsize=(width_pt / 72, height_pt / 72), layout="constrained")
        paint(figure)
        figure.savefig(written, format="svg", metadata={"Date": None})
    return Plot(name, title, description, _inline(written.getvalue(), name, title, description), wide)


def _inline(data: bytes, name: str, title: str, description: str) -> str:
    """Return Matplotlib's SVG as an element of a page: without style sheet, with unique ids, and accessible."""
    root = ET.fromstring(data)  # noqa: S314  # Matplotlib's own
    for parent in [*root.iter()]:
        parent[:] = [child for child in parent if child.tag not in {f"{SVG}metadata", f"{SVG}style"}]
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
        _restyle(element)
    prefix = f"plot-{name}"
    rename(root, prefix)
    box = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib |= {"xmlns": SVG[1:-1], "viewBox": box, "class": "plot", "role": "img"}
    root.attrib |= {"aria-labelledby": f"{prefix}-title {prefix}-desc", "font-family": "system-ui, sans-serif"}
    # CSS pixels, so that fonts have the same size in every plot.
    width, height = (f"{float(side) * 4 / 3:.0f}" for side in box.split()[2:])
    root.attrib |= {"stroke-linejoin": "round", "width": width, "height": height}
    for tag, text in (("desc", description), ("title", title)):
        element = ET.Element(tag, {"id": f"{prefix}-{tag}"})
        element.text = printable(text)
        root.insert(0, element)
    return ET.tostring(root, encoding="unicode")


def _restyle(element: ET.Element) -> None:
    """Replace an element's ``style`` by attributes and classes."""
    classes = []
    for declaration in element.attrib.pop("style", "").split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font":  # Matplotlib before 3.10 writes size and weight in one
            weight, pixels = re.search(r"\b(bold|\d00)\b", value), re.search(r"[\d.]+px", value)
            element.attrib |= {"font-size": pixels[0]} if pixels else {}
            element.attrib |= {"font-weight": weight[0]} if weight else {}
        elif key in ATTRIBUTES:
            element.set(key, value)
            role = COLOURS.get(value) if key in {"fill", "stroke"} else None
            classes += [f"{key[0]}-{role}"] if role else []
    if element.tag == "text" and "fill" not in element.attrib:
        classes.append("f-ink")
    if classes:
        element.set("class", " ".join(classes))
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]


def rename(root: ET.Element, prefix: str) -> None:
    """Add a prefix to every referenced id, and drop the others."""
    used = set()
    for element in root.iter():
        if f"{XLINK}href" in element.attrib:
            target = element.attrib.pop(f"{XLINK}href").removeprefix("#")
            element.set("href", f"#{prefix}-{target}")
            used.add(target)
        if (clip := element.get("clip-path", "")).startswith("url(#"):
            used.add(clip[5:-1])
            element.set("clip-path", f"url(#{prefix}-{clip[5:]}")
    for element in root.iter():
        if "id" in element.attrib:
            target = element.attrib.pop("id")
            if target in used:
                element.set("id", f"{prefix}-{target}")


def look(head: HeadResult, comparison: Comparison) -> dict[str, Any]:
    """Return colour, marker and line style of a head, the same in every plot; baselines are grey."""
    rank = [other.name for other in comparison.heads if other.baseline == head.baseline].index(head.name)
    if head.baseline:
        return {"color": ROLES["soft"], "marker": ("x", "+", "1", "2")[rank % 4], "linestyle": DASHES[(rank + 4) % 8]}
    return {"color": ROLES[f"c{rank % 8}"], "marker": MARKERS[(rank + rank // 8) % 8], "linestyle": DASHES[rank % 8]}


def short(text: str, length: int = NAME_LENGTH) -> str:
    """Return a printable name, abbreviated in the middle."""
    text = printable(text)
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-half:]}"


def drawn_heads(comparison: Comparison) -> tuple[list[HeadResult], list[HeadResult]]:
    """Return the heads shown in plots of the first metric, and baselines far worse than them."""
    main = comparison.metrics[0]
    heads = [head for head in comparison.heads if not head.baseline] or list(comparison.heads)
    figures = [head.metrics[main.name] for head in heads]
    bounds = [main.gain(bound) for one in figures for bound in (one.low, one.high)]
    bounds = [bound for bound in bounds if math.isfinite(bound)] or [main.gain(one.value) for one in figures]
    least = 0.0 if comparison.is_of_numbers else 0.05
    lowest = min(bounds) - max(max(bounds) - min(bounds), least)
    shown = [head for head in comparison.heads if head in heads or main.gain(head.metrics[main.name].value) >= lowest]
    return shown, [head for head in comparison.heads if head not in shown]


def telling_heads(comparison: Comparison) -> list[HeadResult]:
    """Return the heads whose probabilities differ between images, not only between folds."""
    return [
        head
        for head in comparison.heads
        if len(np.unique(head.probabilities, axis=0)) > max(1, len(head.fold_accuracy))
    ]


def legend_below(figure: Any, columns: int = 3) -> None:
    """Put a legend below a figure's axes."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, max(1, len(labels))))


def duration_axis(axes: Any, durations_ms: Sequence[float]) -> None:
    """Make an axis of durations in milliseconds logarithmic, with units."""
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
