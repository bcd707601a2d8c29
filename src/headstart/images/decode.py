"""The bytes of an image file → RGB pixels; every oddity recorded, none hidden.

Rules (``DECODE_RULES``): the content decides the format, not the name. EXIF orientation is applied. Colour profiles are
not, as in Keras. Transparent pixels are composited over white. Of several frames or pages the first is taken, unless the
recipe names another. Nothing but the bytes of the file and the recipe decides the result.

======================  ==============================================================================================
pixels of the file      what becomes of them
======================  ==============================================================================================
1 bit, grey, palette    spread to RGB
grey + alpha, RGBA      composited over white; an alpha that is zero everywhere is ignored in BMP, TGA and ICO
integers of more than   scaled from the range of their type to 0…255, or from the two values of the recipe
8 bits, signed ones     (``intensity``); of 12 bits in 16, from 0…4,095; white is zero: turned round (images/samples.py)
floats                  the same, from 0…1
HEIC, DICOM             the same, besides what the file says of them (images/readers/heic.py, dicom_grayscale.py)
CMYK, YCbCr, LAB        converted to RGB; LAB by littleCMS, D50
======================  ==============================================================================================

=========================  ===========================================================================================
note                       what it says
=========================  ===========================================================================================
named-<suffix>-is-<fmt>    the suffix belongs to another format
from-<mode>, from-<type>   the pixels were not RGB: Pillow's mode; or not of 8 bits: NumPy's type
alpha-on-white             some pixels are transparent
alpha-ignored              the alpha channel is zero everywhere, in a format where that means nothing
low-range                  few of the 256 levels are left of more values
upper-bits                 more than 8 bits, of which the reader gives 8 (AVIF, SGI, animated PNG, plain PPM)
clipped                    some values lie outside those that are black and white
exif-rotated-<degrees>     was turned clockwise; ``exif-mirrored``, ``-flipped``, ``-transposed``, ``-transversed`` likewise
exif-unreadable            the metadata are damaged: shown as stored
heic-1, dicom-1            the reader of the file, and the version of its rules
window                     DICOM: a window or table of the file decided what is black and white; ``window-unusable``
padding                    DICOM: pixels that only fill the frame were darkened
pages-are-colours          three pages are the colours of one picture
first-page, first-frame    other pages or frames follow; ``first-view``: other views or maps of a photograph (MPO)
=========================  ===========================================================================================
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFile

from headstart.errors import HeadstartError, ImageError
from headstart.images.formats import explain, wrong_suffix
from headstart.images.readers.dicom import DicomFile, is_dicom
from headstart.images.readers.heic import HeicFile, is_heic
from headstart.images.readers.jpeg2000 import DeepJpeg2000, colour_bits
from headstart.images.readers.pillow_files import (
    PillowFile,
    check_size,
    ignore_pillow_warnings,
    open_image,
    orientation_of,
    refuse_camera_raw,
)
from headstart.images.readers.tiff import DeepTiff, misread_kind, unread_kind
from headstart.images.resize import held_pixels, start_draft
from headstart.images.samples import DEFAULT_RULES, DecodeRules, PictureFile, chosen_picture, to_rgb8

if TYPE_CHECKING:
    from headstart.images.samples import Pixels

#: Version of the rules above; part of every recipe.
DECODE_RULES = "pillow-1"

#: Images of more pixels are refused: a 200-megapixel photograph passes, a decompression bomb does not.
MAX_PIXELS = 250_000_000

#: From this many pixels on, images are decoded one at a time, so that threads do not multiply the memory.
LARGE_PIXELS = 40_000_000

#: Pillow's memory for a large image comes in blocks of this size, above the 32 MiB (M_MMAP_THRESHOLD of glibc, at most)
#: below which the C library keeps what a thread has freed for that thread: eight threads that decode one large image after
#: the other would in the end hold the memory of five.
BLOCK_BYTES = 64 * 2**20

_large_image = threading.Lock()


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An image as it is seen.

    Attributes
    ----------
    pixels : ndarray of shape (height, width, 3), uint8
        RGB, 0–255, upright; or what ``shrink`` made of it.
    notes : tuple of str
        What was done to it or odd about it: the table above.
    width_px, height_px : int
        Size of the upright image, before ``shrink``.
    format : str
        Pillow's name of the file's format.
    """

    pixels: Pixels
    notes: tuple[str, ...]
    width_px: int
    height_px: int
    format: str


def decode(
    data: bytes,
    *,
    name: str = "",
    max_pixels: int = MAX_PIXELS,
    shrink: Callable[..., Pixels] | None = None,
    draft_px: int | None = None,
    rules: DecodeRules = DEFAULT_RULES,
) -> DecodedImage:
    """Return the pixels of an image file. Safe to call from many threads.

    Pillow's warnings are switched off for its own modules, in this process, so that they neither decide about an image
    (``-W error``) nor say 1,000 times that some metadata are odd.

    Parameters
    ----------
    data : bytes
        The whole file.
    name : str
        Its name, to see whether the suffix fits the content.
    max_pixels : int
        Images of more pixels are refused before they are decoded. Pillow's own limit, 178,956,970 unless
        ``PIL.Image.MAX_IMAGE_PIXELS`` was changed, holds besides for TIFF, WebP, GIF and ICO.
    shrink : callable, optional
        Applied to the pixels before they are returned. Of large images only one at a time is held in full, by all threads
        together, until this is done.
    draft_px : int, optional
        Let the JPEG decoder halve the image up to three times, as often as both sides stay longer than this. Other formats
        are decoded in full. ``shrink`` of a JPEG is then told by ``box`` where in the pixels the image lies: left, upper,
        right and lower edge, not whole pixels.
    rules : DecodeRules
        Those of the recipe: which page, and which sample values are black and white.

    Raises
    ------
    ImageError
        If these are not the bytes of an image that can be read; the message is the reason.
    HeadstartError
        If Pillow is set to show the rest of a truncated file as grey.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise HeadstartError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True in this process, so that damaged images would count as sound. "
            "Set it to False."
        )
    with reasons_in_words():
        return _decode_checked(data, name, max_pixels, shrink, draft_px, rules)


@contextmanager
def reasons_in_words() -> Iterator[None]:
    """Turn what readers raise into an ImageError that a person understands."""
    ignore_pillow_warnings()
    try:
        yield
    except HeadstartError:
        raise
    except Exception as error:  # Pillow's readers raise nearly everything on a hostile file
        raise ImageError(explain(error)) from error


def _decode_checked(
    data: bytes,
    name: str,
    max_pixels: int,
    shrink: Callable[..., Pixels] | None,
    draft_px: int | None,
    rules: DecodeRules,
) -> DecodedImage:
    """Return what :func:`decode` does, with the readers' own errors."""
    file = open_file(data, name, max_pixels)
    notes = [f"named-{suffix}-is-{file.format}"] if (suffix := wrong_suffix(name, file.format)) else []
    image = file.image if isinstance(file, PillowFile) else None
    draft = start_draft(image, draft_px) if image is not None and draft_px is not None else None
    large = (held_pixels(image, draft) if image is not None else file.size[0] * file.size[1]) >= LARGE_PIXELS
    with one_large_image() if large else nullcontext():
        pixels = to_rgb8(chosen_picture(file, rules, max_pixels, notes), rules, notes)
        format_name = file.format
        del image, file
        height, width = pixels.shape[:2]
        if draft is not None:
            box, (width, height) = draft.upright(orientation_of(notes))
            shrink = shrink and partial(shrink, box=box)
        pixels = shrink(pixels) if shrink else np.ascontiguousarray(pixels)
    return DecodedImage(pixels, tuple(notes), width, height, format_name)


def open_file(data: bytes, name: str, max_pixels: int) -> PictureFile:
    """Return the file, opened by the reader of its content, with the size of its first picture checked.

    Raises
    ------
    ImageError
        If it is empty, no reader takes it, its extra is not installed, or it is too large or of a kind that is no picture.
    """
    if not data:
        raise ImageError("empty file")
    if is_heic(data):
        return HeicFile(data, max_pixels)
    if is_dicom(data, name):
        return DicomFile(data, max_pixels)
    try:
        image = open_image(data, name)
    except ImageError as error:
        if not (kind := unread_kind(data, name, str(error))):
            raise
        return DeepTiff(data, kind, max_pixels)
    check_size(image, max_pixels)
    refuse_camera_raw(image, name)
    if kind := misread_kind(image):
        return DeepTiff(data, kind, max_pixels)
    if (bits := colour_bits(image, data)) > 8:
        return DeepJpeg2000(image, data, bits)
    return PillowFile(image, data, name, max_pixels)


@contextmanager
def one_large_image() -> Iterator[None]:
    """Wait until no other thread has a large image, and see to it that its memory goes back to the system afterwards."""
    with _large_image:
        allocator = Image.core  # type: ignore[attr-defined]
        before = allocator.get_block_size()
        allocator.set_block_size(max(before, BLOCK_BYTES))
        try:
            yield
        finally:
            allocator.set_block_size(before)
