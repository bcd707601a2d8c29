"""The bytes of an image file to RGB pixels; every conversion is noted.

Rules (``DECODE_RULES``): the content decides the format, not the name. EXIF orientation is applied. Colour profiles are
ignored, as in Keras. Transparent pixels are composited over white. The first frame or page is taken, unless the recipe
names another. The result depends only on the bytes of the file and the recipe.

======================  ==============================================================================================
stored pixels           result
======================  ==============================================================================================
1 bit, grey, palette    converted to RGB
grey + alpha, RGBA      composited over white; an alpha channel of zeros is ignored in BMP, TGA and ICO
integers of more than   scaled from the range of their type (12 bits in 16: 0…4,095), or from the recipe's
8 bits, signed ones     ``intensity``, to 0…255; inverted where white is zero (images/samples.py)
floats                  the same, from 0…1
HEIC, DICOM             the same, and what the file itself specifies (images/heic_jpeg2000.py, dicom_grayscale.py)
CMYK, YCbCr, LAB        converted to RGB; LAB by littleCMS, D50
======================  ==============================================================================================

=========================  ===========================================================================================
note                       meaning
=========================  ===========================================================================================
named-<suffix>-is-<fmt>    the suffix belongs to another format
from-<mode>, from-<type>   the pixels were not RGB (Pillow's mode), or not of 8 bits (NumPy's type)
alpha-on-white             some pixels are transparent
alpha-ignored              the alpha channel is zero everywhere, in a format where that means nothing
low-range                  few of the 256 levels are used, although the file has more values
upper-bits                 more than 8 bits, of which the reader gives 8 (AVIF, SGI, animated PNG, plain PPM)
clipped                    some values lie outside black and white
exif-rotated-<degrees>     turned clockwise; also ``exif-mirrored``, ``-flipped``, ``-transposed``, ``-transversed``
exif-unreadable            damaged metadata: shown as stored
heic-1, dicom-1            the reader of the file, and the version of its rules
window                     DICOM: a window or table of the file sets black and white; ``window-unusable``
padding                    DICOM: padding pixels were darkened
pages-are-colours          three pages are the colours of one picture
first-page, first-frame    other pages or frames follow; ``first-view``: other views or maps of a photograph (MPO)
=========================  ===========================================================================================
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageFile

from headstart.errors import HeadstartError, ImageError
from headstart.images.dicom import DicomFile
from headstart.images.formats import explain, is_dicom, is_heic, wrong_suffix
from headstart.images.heic_jpeg2000 import DeepJpeg2000, HeicFile, colour_bits
from headstart.images.pillow_files import (
    PillowFile,
    PillowImage,
    check_size,
    ignore_pillow_warnings,
    open_image,
    orientation_of,
    refuse_camera_raw,
)
from headstart.images.resize import held_pixels, start_draft
from headstart.images.samples import DEFAULT_RULES, DecodeRules, PictureFile, Pixels, chosen_picture, to_rgb8
from headstart.images.tiff import DeepTiff, misread_kind, unread_kind
from headstart.texts import counted

#: Version of the rules above; part of every recipe.
DECODE_RULES = "pillow-1"

#: Note → its text for users, and the parameter that changes it.
TOLD_NOTES = {
    "first-page": ("only the first page was taken", "`page`: a number, max or mean"),
    "first-frame": ("only the first frame was taken", "`page`: a number, max or mean, for animations"),
    "low-range": (
        "few of the 256 levels are used: the values span little of the range of their type",
        "`intensity`: range, percentiles or LOW:HIGH",
    ),
    "clipped": ("values below black or above white were clipped", "`intensity`: range or LOW:HIGH"),
    "upper-bits": (
        "only the upper 8 bits of samples of 10 bits or more were read, and `intensity` has no effect",
        "convert them to PNG or TIFF",
    ),
    "window": ("the window of the file decided which values are black and white", "`intensity`: LOW:HIGH for all"),
    "window-unusable": ("the window of the file could not be used: all values are shown", "`intensity`: LOW:HIGH"),
    "pages-are-colours": ("three pages are the colours of one picture", ""),
}

#: Images of more pixels are refused: a 200-megapixel photograph is accepted, a decompression bomb is not.
MAX_PIXELS = 250_000_000

#: From this many pixels on, images are decoded one at a time, so that threads do not multiply the memory.
LARGE_PIXELS = 40_000_000

#: Size of Pillow's memory blocks for a large image. Blocks below 32 MiB (the largest M_MMAP_THRESHOLD of glibc) are kept by
#: the thread that freed them: eight threads that decode one large image after the other would end up holding five images.
BLOCK_BYTES = 64 * 2**20

_large_image = threading.Lock()


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A decoded image."""

    pixels: Pixels  # shape (height, width, 3), RGB, 0–255, upright; or the result of ``shrink``
    notes: tuple[str, ...]  # conversions and oddities; see the table of the module
    width_px: int  # size of the upright image, before ``shrink``
    height_px: int
    format: str  # Pillow's name of the file's format; empty for an image made in memory


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn any exception of a reader into an ImageError with a readable reason."""
    ignore_pillow_warnings()
    try:
        yield
    except HeadstartError:
        raise
    except Exception as error:  # Pillow's readers may raise anything on a damaged file
        raise ImageError(explain(error)) from error


@readable_errors()
def decode(
    data: bytes | Image.Image,
    *,
    name: str = "",
    max_pixels: int = MAX_PIXELS,
    shrink: Callable[..., Pixels] | None = None,
    draft_px: int | None = None,
    rules: DecodeRules = DEFAULT_RULES,
) -> DecodedImage:
    """Return the pixels of an image file, or of an image opened by Pillow; thread-safe.

    Warnings from Pillow's own modules are ignored for the whole process from then on, so that ``-W error`` has no effect.

    Parameters
    ----------
    data : bytes or Image
        The whole file; or an image, whose current frame is taken as Pillow decodes it: in full size, and of 16-bit colours
        the upper 8 bits.
    name : str
        File name, to compare its suffix with the content.
    max_pixels : int
        Images of more pixels are refused before they are decoded. Pillow's own limit, 178,956,970 unless
        ``PIL.Image.MAX_IMAGE_PIXELS`` was changed, also applies to TIFF, WebP, GIF and ICO.
    shrink : callable, optional
        Applied to the pixels before they are returned. All threads together hold only one large image at a time until then.
    draft_px : int, optional
        Let the JPEG decoder halve the image up to three times, as long as both sides stay longer than this. ``shrink`` then
        also receives ``box``: left, upper, right and lower edge of the image within the pixels, as floats. Other formats are
        decoded in full.
    rules : DecodeRules
        Those of the recipe: the page, and the sample values that are black and white.

    Raises
    ------
    ImageError
        If the image cannot be read; the message is the reason.
    HeadstartError
        If Pillow is set to show the rest of a truncated file as grey.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise HeadstartError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True in this process: truncated images would not be noticed. Set it to "
            "False."
        )
    file = PillowImage(data, max_pixels) if isinstance(data, Image.Image) else open_file(data, name, max_pixels)
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
    """Return the file, opened by the reader for its content, with the size of its first picture checked.

    Raises ImageError if the file is empty, unsupported, too large, or needs an extra that is not installed.
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
    """Wait until no other thread decodes a large image, and return its memory to the system afterwards."""
    with _large_image:
        allocator = Image.core  # type: ignore[attr-defined]
        before = allocator.get_block_size()
        allocator.set_block_size(max(before, BLOCK_BYTES))
        try:
            yield
        finally:
            allocator.set_block_size(before)


def sentences(counts: Mapping[str, int], *, with_options: bool = True) -> list[str]:
    """Return a sentence, without its full stop, for each note in ``counts`` (note → number of images).

    ``with_options`` names the options that change it; not for a head, whose recipe is fixed.
    """
    return [
        f"Decoded: in {counted(counts[note])} {text}{f' ({options})' if options and with_options else ''}"
        for note, (text, options) in TOLD_NOTES.items()
        if counts.get(note)
    ]
