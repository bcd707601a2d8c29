"""Matplotlib's figures as SVG that a page under a strict policy can hold, with colours that the page decides.

A page whose policy forbids inline styles drops every ``style`` attribute, which is where Matplotlib writes what it draws
with. Here they become presentation attributes, and colours of :data:`ROLES` become classes beside them: ``f-ink`` where a
shape is filled with ink, ``s-ink`` where its outline is. A style sheet that knows the classes recolours the plot, in the
dark too; without one the attributes hold.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

from headstart.texts import printable

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
    return Plot(name, title, description, inline(written.getvalue(), name, title, description), wide)


def inline(data: bytes, name: str, title: str, description: str) -> str:
    """Return what Matplotlib wrote as an element of a page: no style, no id that another plot has, and texts for ears."""
    root = ET.fromstring(data)  # noqa: S314  # Matplotlib's own
    for parent in [*root.iter()]:
        parent[:] = [child for child in parent if child.tag not in {f"{SVG}metadata", f"{SVG}style"}]
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
        restyle(element)
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


def restyle(element: ET.Element) -> None:
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
