"""Tags of a TIFF and sizes of its compressed parts, checked before use: channels, axes, pictures."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

from headstart.errors import ImageError

#: A tag of libtiff, which Pillow does not name.
IMAGE_DEPTH = 32997

#: Bits of NewSubfileType: a reduced version of another picture, a mask for it.
REDUCED, MASK = 1, 4

#: Pages that make a colour picture.
N_COLOURS = 3

#: Characters of a description that are parsed: OME-XML names the axes at its beginning.
DESCRIPTION_CHARACTERS = 2**20

#: Start of frame markers of JPEG, lossless ones included (ITU-T T.81, table B.1).
JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})

#: Bits of the height of a JPEG XL, and the aspect ratios that give its width (ISO/IEC 18181-1, SizeHeader).
JXL_BITS = (9, 13, 18, 30)
JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))

#: The value of Compression for JPEG 2000.
JPEG_2000 = 34712


def tag_numbers(tags: Mapping[int, Any], tag: int) -> tuple[int, ...]:
    """Return the integers of a tag; empty if it is missing or has other values."""
    value = tags.get(tag)
    parts = value if isinstance(value, tuple) else (value,)
    return tuple(part for part in parts if isinstance(part, int))


def tag_number(tags: Mapping[int, Any], tag: int, default: int) -> int:
    """Return the largest integer of a tag, or the default."""
    return max(tag_numbers(tags, tag), default=default)


def pictures_of(description: str, pages: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the pages of each picture: one, or three that are red, green and blue according to the description."""
    axes = axes_of(description)
    sizes = dict(axes)
    if sizes.get("C") != N_COLOURS or prod(sizes.values()) != len(pages):
        return [(page,) for page in pages]
    found: dict[tuple[int, ...], list[int]] = {}
    slowest_first = [(name, range(size)) for name, size in reversed(axes)]
    for page, place in zip(pages, product(*(positions for _, positions in slowest_first)), strict=True):
        others = tuple(at for at, (name, _) in zip(place, slowest_first, strict=True) if name != "C")
        found.setdefault(others, []).append(page)
    return [tuple(planes) for planes in found.values()]


def axes_of(description: str) -> list[tuple[str, int]]:
    """Return the axes along which the pages are counted, and their sizes, the fastest first; empty if none are named.

    OME-TIFF 6.0: ``Pixels`` with DimensionOrder and SizeC, SizeZ, SizeT. ImageJ: ``channels``, ``slices``, ``frames``, always
    in this order. tifffile: JSON of ``shape`` and ``axes``.
    """
    text = description[:DESCRIPTION_CHARACTERS]
    if text.startswith("ImageJ="):
        values = dict(re.findall(r"^(channels|slices|frames)=(\d{1,9})\s*$", text, re.MULTILINE))
        names = (("C", "channels"), ("Z", "slices"), ("T", "frames"))
        return [(axis, int(values.get(name, 1))) for axis, name in names]
    if text.startswith("{"):
        return _axes_of_json(text)
    pixels = re.findall(r"<(?:\w+:)?Pixels\b([^>]*)>", text)
    if len(pixels) != 1:  # none, or several images in one file
        return []
    values = dict(re.findall(r'(DimensionOrder|Size[CZT])="(XY[CZT]{3}|\d{1,9})"', pixels[0]))
    order = values.get("DimensionOrder", "")
    return [(axis, int(values.get(f"Size{axis}", "1"))) for axis in order[2:]] if order[:2] == "XY" else []


def refuse_hidden_pictures(description: str, starts: Sequence[int], sizes: Sequence[int], file_bytes: int) -> None:
    """Raise ImageError for a one-page TIFF followed by pictures without entries, as ImageJ writes large stacks.

    ``starts`` and ``sizes`` are those of the page's strips or tiles. The file's size matters, since a single page that was
    saved again may have kept its description.
    """
    imagej = re.match(r"ImageJ=[^\n]*\nimages=(\d{1,9})\s", description)
    n_pictures = int(imagej[1]) if imagej else prod(_truncated_shape(description)[:-2])
    if n_pictures > 1 and max(starts, default=0) + 2 * sum(sizes) <= file_bytes:
        raise ImageError(
            "several pictures stored in one page are not supported: write the file again with a page for each"
        )


def _truncated_shape(description: str) -> list[int]:
    """Return the shape in tifffile's description where a page stands for several pictures; else empty."""
    try:
        values = json.loads(description[:DESCRIPTION_CHARACTERS]) if description.startswith("{") else {}
        return [int(size) for size in values["shape"]] if values.get("truncated") else []
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []


def _axes_of_json(text: str) -> list[tuple[str, int]]:
    try:
        values = json.loads(text)
        axes, shape = values["axes"], values["shape"]
        pairs = [(str(axis), int(size)) for axis, size in zip(axes, shape, strict=True)]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    return [(axis, size) for axis, size in reversed(pairs) if axis not in {"Y", "X", "S"}]


def _jpeg_size(data: bytes) -> tuple[int, int]:
    start = 2
    while True:
        mark, marker, length = struct.unpack_from(">BBH", data, start)
        if mark != 0xFF:
            raise ValueError("not a JPEG")
        if marker in JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, start + 5)
            return width, height
        start += 2 + length


def _jpeg2000_size(data: bytes) -> tuple[int, int]:
    """Return the largest size in the codestream headers of a JPEG 2000 (ITU-T T.800, A.5.1)."""
    found = [struct.unpack_from(">II", data, at.end() + 4) for at in re.finditer(rb"\xff\x4f\xff\x51", data)]
    return max(width for width, _ in found), max(height for _, height in found)


def _jpegxl_size(data: bytes) -> tuple[int, int]:
    if not data.startswith(b"\xff\x0a"):
        data = data[data.index(b"\xff\x0a", data.index(b"jxl", 12)) :]
    bits, at = int.from_bytes(data[2:18], "little"), 0

    def take(n: int) -> int:
        nonlocal at
        at += n
        return (bits >> (at - n)) & ((1 << n) - 1)

    small = take(1)

    def side() -> int:
        return 8 * (1 + take(5)) if small else 1 + take(JXL_BITS[take(2)])

    height, ratio = side(), take(3)
    if not ratio:
        return side(), height
    across, down = JXL_RATIOS[ratio - 1]
    return height * across // down, height


def _lerc_size(data: bytes) -> tuple[int, int]:
    """Return the size of a LERC blob of version 2 or later (Esri, Lerc2::HeaderInfo)."""
    if data[:6] != b"Lerc2 ":
        raise ValueError("not LERC 2")
    (version,) = struct.unpack_from("<i", data, 6)
    height, width = struct.unpack_from("<ii", data, 14 if version >= 3 else 10)
    return width, height


def _png_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return the size of a WebP with one picture (RFC 9649)."""
    if data[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


#: Compression → function that returns width and height of a compressed part.
SIZE_OF: dict[int, Callable[[bytes], tuple[int, int]]] = {
    **dict.fromkeys((6, 7), _jpeg_size), **dict.fromkeys((33003, 33004, 33005, JPEG_2000), _jpeg2000_size),
    34887: _lerc_size, 34933: _png_size, 50001: _webp_size, **dict.fromkeys((50002, 52546), _jpegxl_size),
}  # fmt: skip


def embedded_pixels(compression: int, data: bytes) -> int:
    """Return the number of pixels that a compressed part claims; raise ImageError if its size cannot be read."""
    try:
        width, height = SIZE_OF[compression](data)
    except (struct.error, IndexError, ValueError):
        raise ImageError("damaged: the size of a compressed part cannot be read") from None
    return width * height
