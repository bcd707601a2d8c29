"""Pages of a TIFF → its pictures: what OME, ImageJ and tifffile write of the axes says which pages are the colours of one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import product

#: Pages that make a colour picture.
N_COLOURS = 3

#: Descriptions are looked at up to so many characters: OME-XML names the axes at its beginning.
DESCRIPTION_CHARACTERS = 2**20


def pictures_of(description: str, pages: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the pages of each picture: one, or three that are red, green and blue.

    Parameters
    ----------
    description : str
        ImageDescription of the first page.
    pages : sequence of int
        Numbers of the pages, without those that are smaller versions of others.
    """
    axes = axes_of(description)
    sizes = dict(axes)
    n_pages = 1
    for size in sizes.values():
        n_pages *= size
    if sizes.get("C") != N_COLOURS or n_pages != len(pages):
        return [(page,) for page in pages]
    found: dict[tuple[int, ...], list[int]] = {}
    slowest_first = [(name, range(size)) for name, size in reversed(axes)]
    for page, place in zip(pages, product(*(positions for _, positions in slowest_first)), strict=True):
        others = tuple(at for at, (name, _) in zip(place, slowest_first, strict=True) if name != "C")
        found.setdefault(others, []).append(page)
    return [tuple(planes) for planes in found.values()]


def axes_of(description: str) -> list[tuple[str, int]]:
    """Return the axes that the pages are counted along, the fastest first, and their sizes; nothing where none are named.

    OME-TIFF 6.0: ``Pixels`` with DimensionOrder and SizeC, SizeZ, SizeT. ImageJ: ``channels``, ``slices``, ``frames``, always
    in this order. tifffile: JSON of ``shape`` and ``axes``.
    """
    text = description[:DESCRIPTION_CHARACTERS]
    if text.startswith("ImageJ="):
        values = dict(re.findall(r"^(channels|slices|frames)=(\d{1,9})\s*$", text, re.MULTILINE))
        names = (("C", "channels"), ("Z", "slices"), ("T", "frames"))
        return [(axis, int(values.get(name, 1))) for axis, name in names]
    if text.startswith("{"):
        return axes_of_json(text)
    pixels = re.findall(r"<(?:\w+:)?Pixels\b([^>]*)>", text)
    if len(pixels) != 1:  # none, or several images in one file
        return []
    values = dict(re.findall(r'(DimensionOrder|Size[CZT])="(XY[CZT]{3}|\d{1,9})"', pixels[0]))
    order = values.get("DimensionOrder", "")
    return [(axis, int(values.get(f"Size{axis}", "1"))) for axis in order[2:]] if order[:2] == "XY" else []


def axes_of_json(text: str) -> list[tuple[str, int]]:
    """Return the axes of tifffile's description."""
    try:
        values = json.loads(text)
        axes, shape = values["axes"], values["shape"]
        pairs = [(str(axis), int(size)) for axis, size in zip(axes, shape, strict=True)]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    return [(axis, size) for axis, size in reversed(pairs) if axis not in {"Y", "X", "S"}]
