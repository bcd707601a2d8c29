"""Pages of a TIFF → its pictures: what OME, ImageJ and tifffile write of the axes says which pages are the colours of one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import product
from math import prod

from headstart.errors import ImageError

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


def refuse_hidden_pictures(description: str, starts: Sequence[int], sizes: Sequence[int], file_bytes: int) -> None:
    """Raise ImageError for a TIFF of one page behind which others lie that have no entry of their own.

    ImageJ writes large stacks so, and tifffile those that it was told to truncate.

    Parameters
    ----------
    description : str
        ImageDescription of the page.
    starts, sizes : sequences of int
        Where the strips or tiles of the page lie, and their bytes.
    file_bytes : int
        How many bytes the file has: a single page, saved anew, may have kept its description.
    """
    imagej = re.match(r"ImageJ=[^\n]*\nimages=(\d{1,9})\s", description)
    n_pictures = int(imagej[1]) if imagej else prod(truncated_shape(description)[:-2])
    if n_pictures > 1 and max(starts, default=0) + 2 * sum(sizes) <= file_bytes:
        raise ImageError(
            "several pictures in one page, one behind the other, are not supported: write it anew with a page for each"
        )


def truncated_shape(description: str) -> list[int]:
    """Return the shape that tifffile names where a page stands for several pictures; else nothing."""
    try:
        values = json.loads(description[:DESCRIPTION_CHARACTERS]) if description.startswith("{") else {}
        return [int(size) for size in values["shape"]] if values.get("truncated") else []
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []


def axes_of_json(text: str) -> list[tuple[str, int]]:
    """Return the axes of tifffile's description."""
    try:
        values = json.loads(text)
        axes, shape = values["axes"], values["shape"]
        pairs = [(str(axis), int(size)) for axis, size in zip(axes, shape, strict=True)]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    return [(axis, size) for axis, size in reversed(pairs) if axis not in {"Y", "X", "S"}]
