"""Matplotlib figures as SVG whose colours the page decides, and how a head is drawn in every plot."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np

from headstart.report.text_tables import milliseconds
from headstart.texts import printable

if TYPE_CHECKING:
    from headstart.report.comparison import Comparison, HeadResult

#: What a colour is for: the colour without a style sheet, which is written for nothing else. The eight of the heads are Okabe
#: and Ito's (jfly.uni-koeln.de/color, 2008), which any colour vision tells apart; the page's are near them.
ROLES = {
    "ink": "#1c2126", "soft": "#5a646e", "line": "#d7dce1", "paper": "#ffffff", "right": "#0b6fae", "wrong": "#c9520a",
    "c0": "#0072b2", "c1": "#d55e00", "c2": "#009e73", "c3": "#cc79a7", "c4": "#e69f00", "c5": "#56b4e9",
    "c6": "#000000", "c7": "#f0e442", "dark": "#14181c",
}  # fmt: skip

#: What Matplotlib is told, whatever the user's own settings are.
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

#: Properties that SVG takes as attributes of the same name.
ATTRIBUTES = frozenset({
    "fill", "fill-opacity", "fill-rule", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-dashoffset",
    "stroke-linejoin", "stroke-linecap", "stroke-miterlimit", "opacity", "text-anchor", "font-size", "font-weight",
    "font-style",
})  # fmt: skip

SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture with what it says.

    Attributes
    ----------
    name : str
        Different for every plot of a page; letters, digits and hyphens.
    title, description : str
        What it shows, and its numbers in words, for those who cannot see it. Both are in the SVG.
    svg : str
        One ``<svg>`` element.
    wide : bool
        Whether it needs the whole width of the page.
    """

    name: str
    title: str
    description: str
    svg: str
    wide: bool = False


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
    """Return a plot; ``paint`` is given an empty figure with constrained layout. The same figure gives the same text."""
    from matplotlib import style
    from matplotlib.figure import Figure

    written = io.BytesIO()
    with style.context(["default", SETTINGS]), warnings.catch_warnings():
        # A letter that Matplotlib's font lacks is still written as text; the browser has more fonts.
        warnings.filterwarnings("ignore", message=".*missing from.*font")
        figure = Figure(figsize=(width_pt / 72, height_pt / 72), layout="constrained")
        paint(figure)
        figure.savefig(written, format="svg", metadata={"Date": None})
    return Plot(name, title, description, _inline(written.getvalue(), name, title, description), wide)


def _inline(data: bytes, name: str, title: str, description: str) -> str:
    """Return what Matplotlib wrote as an element of a page: no style, no id that another plot has, and texts for ears."""
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
    # Points become pixels of CSS, so that letters are as large in every plot.
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


#: Colour → what it is for.
COLOURS = {colour: role for role, colour in ROLES.items()}


def rename(root: ET.Element, prefix: str) -> None:
    """Put a prefix before every id that something in it refers to, and drop the others."""
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
