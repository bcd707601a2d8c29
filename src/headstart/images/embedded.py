"""Sizes that compressed parts of a TIFF claim for themselves: their decoders believe these, and not the tags of the TIFF."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from headstart.errors import ImageError

#: Start of frame markers of JPEG, lossless ones included (ITU-T T.81, table B.1).
JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})

#: Bits of a side of a JPEG XL, and aspect ratios by which the other one follows (ISO/IEC 18181-1, SizeHeader).
JXL_BITS = (9, 13, 18, 30)
JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Return width and height of the first frame of a JPEG."""
    start = 2
    while True:
        mark, marker, length = struct.unpack_from(">BBH", data, start)
        if mark != 0xFF:
            raise ValueError("it is no JPEG")
        if marker in JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, start + 5)
            return width, height
        start += 2 + length


def jpeg2000_size(data: bytes) -> tuple[int, int]:
    """Return the largest width and height that a codestream of JPEG 2000 begins with (ITU-T T.800, A.5.1)."""
    found = [struct.unpack_from(">II", data, at.end() + 4) for at in re.finditer(rb"\xff\x4f\xff\x51", data)]
    return max(width for width, _ in found), max(height for _, height in found)


def jpegxl_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a JPEG XL, with its container or without."""
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


def lerc_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a LERC blob of version 2 and above (Esri, Lerc2::HeaderInfo)."""
    if data[:6] != b"Lerc2 ":
        raise ValueError("it is no LERC of version 2")
    (version,) = struct.unpack_from("<i", data, 6)
    height, width = struct.unpack_from("<ii", data, 14 if version >= 3 else 10)
    return width, height


def png_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a PNG."""
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def webp_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a WebP of one picture (RFC 9649)."""
    if data[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


#: The value of Compression for JPEG 2000.
JPEG_2000 = 34712

#: Compression → what tells the size of a part.
SIZE_OF: dict[int, Callable[[bytes], tuple[int, int]]] = {
    6: jpeg_size, 7: jpeg_size, 33003: jpeg2000_size, 33004: jpeg2000_size, 33005: jpeg2000_size, JPEG_2000: jpeg2000_size,
    34887: lerc_size, 34933: png_size, 50001: webp_size, 50002: jpegxl_size, 52546: jpegxl_size,
}  # fmt: skip


def embedded_pixels(compression: int, data: bytes) -> int:
    """Return how many pixels a compressed part claims to have.

    Raises
    ------
    ImageError
        If that cannot be told.
    """
    try:
        width, height = SIZE_OF[compression](data)
    except (struct.error, IndexError, ValueError):
        raise ImageError("damaged: the size of a compressed part of it cannot be told") from None
    return width * height
