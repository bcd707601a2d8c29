"""PNGs whose data end before the picture does. If they end with a row, Pillow leaves the rest black and says nothing."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from headstart.errors import ImageError

if TYPE_CHECKING:
    from PIL import ImageFile

#: Colour type → samples per pixel (PNG, third edition, table 8).
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

#: First column and row, and steps, of the seven passes of Adam7 (the same, table 14).
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

#: Bytes that are unpacked at once.
STEP_BYTES = 2**20


def refuse_missing_rows(image: ImageFile.ImageFile, data: bytes) -> None:
    """Raise ImageError if the data of a PNG, which is loaded for it, fill only a part of it.

    They are unpacked once more, but only if the last row is black, as missing ones are, or the rows are interlaced.
    """
    if image.format != "PNG" or data[12:16] != b"IHDR":
        return
    image.load()
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if not interlaced and any(image.crop((0, image.height - 1, image.width, image.height)).tobytes()):
        return
    pixel_bits = bits * SAMPLES.get(colour, 1)
    expected = 0
    for left, top, x_step, y_step in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = len(range(left, width, x_step)), len(range(top, height, y_step))
        expected += rows * (1 + (columns * pixel_bits + 7) // 8) if columns else 0
    found = unpacked_bytes(data, expected)
    if found < expected:
        raise ImageError(f"truncated: it holds {found:,} of the {expected:,} bytes of its rows")


def spread_transparency(image: ImageFile.ImageFile, data: bytes) -> None:
    """Spread the transparent value of a grey PNG of 2 or 4 bits over 8, as Pillow does with the samples and not with it."""
    transparent = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "L" and isinstance(transparent, int) and data[24:25] in {b"\2", b"\4"}:
        image.info["transparency"] = transparent * 255 // (2 ** data[24] - 1)


def unpacked_bytes(data: bytes, enough: int) -> int:
    """Return how many bytes the picture data of a PNG unpack to, at most ``enough``: what follows these may be damaged."""
    inflate, found = zlib.decompressobj(), 0
    for chunk in picture_data(data):
        rest: bytes = chunk
        while rest and found < enough:
            found += len(inflate.decompress(rest, min(STEP_BYTES, enough - found)))
            rest = inflate.unconsumed_tail
    return found


def picture_data(data: bytes) -> Iterator[bytes]:
    """Yield the content of the IDAT chunks."""
    start = 8
    while start + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        if kind == b"IDAT":
            yield data[start + 8 : start + 8 + length]
        start += 12 + length
