"""Tags of a TIFF, of which hostile files hold anything (TIFF 6.0; DNG 1.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NEW_SUBFILE_TYPE, WIDTH, HEIGHT, BITS_PER_SAMPLE, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
IMAGE_DESCRIPTION, STRIP_STARTS, ORIENTATION, SAMPLES_PER_PIXEL, STRIP_SIZES = 270, 273, 274, 277, 279
PLANAR, SUB_IFDS, EXTRA_SAMPLES, SAMPLE_FORMAT, IMAGE_DEPTH, DNG_VERSION = 284, 330, 338, 339, 32997, 50706

#: Bits of NewSubfileType: a smaller version of another picture, a mask for it.
REDUCED, MASK = 1, 4


def tag_numbers(tags: Mapping[int, Any], tag: int) -> tuple[int, ...]:
    """Return the integers that a tag holds; none where it is missing or holds other things."""
    value = tags.get(tag)
    parts = value if isinstance(value, tuple) else (value,)
    return tuple(part for part in parts if isinstance(part, int))


def tag_number(tags: Mapping[int, Any], tag: int, default: int) -> int:
    """Return the largest of the integers that a tag holds; the default where there is none."""
    return max(tag_numbers(tags, tag), default=default)
