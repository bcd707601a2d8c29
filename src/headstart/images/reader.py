"""Pillow's readers, chosen by the content, without what they do to the whole process."""

from __future__ import annotations

import io
import logging
import struct
import threading
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from PIL import Image

from headstart.errors import ImageError
from headstart.images.formats import RAW_SUFFIXES, readers, suffix_of
from headstart.images.reasons import unidentified
from headstart.images.tags import DNG_VERSION, NEW_SUBFILE_TYPE, REDUCED, SUB_IFDS

if TYPE_CHECKING:
    from PIL import ImageFile

    Reader: TypeAlias = tuple[
        Callable[[IO[bytes], str | bytes], ImageFile.ImageFile], Callable[[bytes], bool | str] | None
    ]

#: Images of these formats are refused above so many pixels: their readers are written in Python and slow.
MAX_SLOW_PIXELS = 8_000_000
SLOW_FORMATS = frozenset({"QOI"})

#: Reason of refusal.
CAMERA_RAW = "camera raw is not supported: convert it to JPEG, PNG or TIFF"

#: Modules whose warnings are ignored while images are decoded; those of pydicom may hold values of the file, as a name.
PILLOW = r"(PIL|pillow_heif|pydicom)\."

_filtering = threading.Lock()

# Pillow logs what it also raises; without this, Python would print it where nobody has set up logging.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def open_image(data: bytes, name: str) -> ImageFile.ImageFile:
    """Return the image, opened by the first reader that takes it.

    This is ``Image.open`` without its limit of pixels, which belongs to the whole process: the caller checks the size.

    Raises
    ------
    ImageError
        If no reader takes it.
    """
    refusals = []
    for format_name in readers(data, name):
        if format_name not in registered_readers():
            continue
        factory, accept = registered_readers()[format_name]
        accepted = accept(data[:16]) if accept else True
        try:
            if isinstance(accepted, str):  # known, but this Pillow was built without it
                refusals.append(accepted)
            elif accepted:
                return factory(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:  # a reader's way to say "not mine"
            refusals.append(f"{format_name}: {error}")
    raise ImageError(unidentified(data, name, refusals))


@cache
def registered_readers() -> dict[str, Reader]:
    """Return format → reader, and what tells by 16 bytes whether the file may be its own."""
    Image.init()
    return dict(Image.OPEN)


def check_size(image: Image.Image, max_pixels: int) -> None:
    """Raise ImageError if the image claims more pixels than are decoded, or none."""
    limit = min(max_pixels, MAX_SLOW_PIXELS) if image.format in SLOW_FORMATS else max_pixels
    refuse_large(*image.size, limit, f" of {image.format}" if limit < max_pixels else "")


def refuse_large(width: int, height: int, max_pixels: int, kind: str = "") -> None:
    """Raise ImageError for more pixels than are decoded, of this kind, or none."""
    n_pixels = width * height
    if n_pixels > max_pixels:
        raise ImageError(f"too large: {width:,} × {height:,} pixels, at most {max_pixels:,}{kind} are decoded")
    if n_pixels < 1:
        raise ImageError(f"holds no pixels: {width} × {height}")


def refuse_camera_raw(image: ImageFile.ImageFile, name: str) -> None:
    """Raise ImageError for camera raw files, whose first picture is a preview of some hundred pixels."""
    if image.format == "TIFF" and is_camera_raw(getattr(image, "tag_v2", {}), name):
        raise ImageError(CAMERA_RAW)


def is_camera_raw(tags: Mapping[int, Any], name: str) -> bool:
    """Return whether a TIFF with these tags is what a camera writes before it is developed."""
    preview = tags.get(NEW_SUBFILE_TYPE) == REDUCED and SUB_IFDS in tags
    return suffix_of(name) in RAW_SUFFIXES or DNG_VERSION in tags or preview


def refuse_missing_strips(image: ImageFile.ImageFile) -> None:
    """Raise ImageError for TIFFs whose strips or tiles cover a part of the image: Pillow would leave the rest black."""
    extents = [tile.extents for tile in image.tile if tile.extents] if image.format == "TIFF" else []
    covered = max((right for _, _, right, _ in extents), default=0) * max((bottom for *_, bottom in extents), default=0)
    if extents and covered < image.width * image.height:
        raise ImageError(
            f"damaged: it claims {image.width:,} × {image.height:,} pixels, but holds only {int(covered):,} of "
            f"{image.width * image.height:,}"
        )


def ignore_pillow_warnings() -> None:
    """Put the filter first, if another one has taken its place since.

    ``warnings.catch_warnings`` would do it for a while, but its beginnings and ends in several threads undo each other.
    """
    first = warnings.filters[0] if warnings.filters else None
    pattern = getattr(first[3], "pattern", None) if first else None
    if first is None or first[0] != "ignore" or pattern != PILLOW:
        with _filtering:
            warnings.filterwarnings("ignore", module=PILLOW)
