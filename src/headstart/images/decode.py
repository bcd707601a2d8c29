"""The bytes of an image file → RGB pixels; every oddity recorded, none hidden.

Rules (``DECODE_RULES``): the content decides the format, not the name. EXIF orientation is applied. Colour profiles are
not, as in Keras. Transparent pixels are composited over white. Of several frames or pages the first is taken.

======================  ==============================================================================================
pixels of the file      what becomes of them
======================  ==============================================================================================
1 bit, grey, palette    spread to RGB
grey + alpha, RGBA      composited over white
16 bit grey             divided by 257, so that 65,535 becomes 255 (Pillow already scales 16 bit colour)
32 bit integer          as 16 bit if all values fit into it; else minimum → 0, maximum → 255
32 bit float            times 255 if all values lie in 0…1; as they are in 0…255; as 16 bit in 0…65,535; else as above
CMYK, YCbCr, LAB, HSV   converted to RGB; LAB by littleCMS, D50
======================  ==============================================================================================
"""

from __future__ import annotations

import io
import threading
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from headstart.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Version of the rules above; part of every recipe.
DECODE_RULES = "pillow-1"

#: Images of more pixels are refused: a 200-megapixel photograph passes, a decompression bomb does not.
MAX_PIXELS = 250_000_000

#: From this many pixels on, images are decoded one at a time, so that threads do not multiply the memory.
LARGE_PIXELS = 40_000_000

#: Formats that are opened; none of them starts another program, as Pillow's EPS reader does.
FORMATS = (
    "JPEG", "MPO", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "AVIF", "PPM", "JPEG2000", "ICO", "ICNS", "PSD", "DDS",
    "SGI", "QOI", "SUN", "PCX", "XBM",
)  # fmt: skip

#: EXIF orientation → what shows the image upright, and what it is called in the notes (EXIF 2.32, tag 0x0112).
ORIENTATIONS = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, "exif-mirrored"),
    3: (Image.Transpose.ROTATE_180, "exif-rotated-180"),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, "exif-flipped"),
    5: (Image.Transpose.TRANSPOSE, "exif-transposed"),
    6: (Image.Transpose.ROTATE_270, "exif-rotated-90"),
    7: (Image.Transpose.TRANSVERSE, "exif-transversed"),
    8: (Image.Transpose.ROTATE_90, "exif-rotated-270"),
}

#: Names under which one format is known by two.
SAME_FORMAT = {"MPO": "JPEG", "DIB": "BMP"}

#: First bytes of files that a person calls an image but that are not decoded, and what to say of them.
UNSUPPORTED = (
    (b"%!PS", "EPS is not supported: it is a program, not a picture"),
    (b"%PDF", "PDF is not supported"),
    (b"<svg", "SVG is not supported"),
    (b"<?xml", "SVG is not supported"),
)

_one_large_image = threading.Lock()

# The limit is this module's own, checked before anything is decoded; Pillow's would warn at a third of it.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Metadata that Pillow finds odd does not matter here, and 1,000 files would say so 1,000 times.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An image as it is seen.

    Attributes
    ----------
    pixels : ndarray of shape (height, width, 3), uint8
        RGB, 0–255, upright.
    notes : tuple of str
        What was done to it: ``exif-…``, ``alpha-on-white``, ``from-<mode>``, ``scaled-from-range``, ``first-frame``,
        ``named-<suffix>-is-<format>``.
    width_px, height_px : int
        Size of ``pixels``.
    format : str
        Pillow's name of the file's format.
    """

    pixels: NDArray[np.uint8]
    notes: tuple[str, ...]
    width_px: int
    height_px: int
    format: str


def decode(data: bytes, *, name: str = "", max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Return the pixels of an image file.

    Parameters
    ----------
    data : bytes
        The whole file.
    name : str
        Its name, to see whether the suffix fits the content.
    max_pixels : int
        Images of more pixels are refused before they are decoded.

    Raises
    ------
    ImageError
        If these are not the bytes of an image that can be read; the message is the reason.
    """
    if not data:
        raise ImageError("empty file")
    try:
        return decode_checked(data, name, max_pixels)
    except ImageError:
        raise
    except Exception as error:  # Pillow's readers raise nearly everything on a hostile file
        raise ImageError(explain(error, data)) from error


def decode_checked(data: bytes, name: str, max_pixels: int) -> DecodedImage:
    """Return what :func:`decode` does, with Pillow's own errors."""
    with Image.open(io.BytesIO(data), formats=available_formats()) as image:
        n_pixels = image.width * image.height
        if n_pixels > max_pixels:
            raise ImageError(
                f"too large: {image.width:,} × {image.height:,} pixels, at most {max_pixels:,} are decoded"
            )
        notes = [f"named-{suffix}-is-{image.format}"] if (suffix := wrong_suffix(name, image.format or "")) else []
        with _one_large_image if n_pixels >= LARGE_PIXELS else nullcontext():
            image.load()
            if getattr(image, "is_animated", False):
                notes.append("first-frame")
                image.seek(0)
            pixels = to_rgb(upright(image, notes), notes)
        return DecodedImage(pixels, tuple(notes), pixels.shape[1], pixels.shape[0], image.format or "")


def upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """Return the image turned as its EXIF orientation says."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # damaged metadata beside a sound picture; noted, since the rotation is then not known
        notes.append("exif-unreadable")
        return image
    if orientation not in ORIENTATIONS:
        return image
    method, note = ORIENTATIONS[orientation]
    notes.append(note)
    turned = image.transpose(method)
    if "transparency" in image.info:
        turned.info["transparency"] = image.info["transparency"]
    return turned


def to_rgb(image: Image.Image, notes: list[str]) -> NDArray[np.uint8]:
    """Return the pixels by the rules of the table above, and note which one was used."""
    mode = image.mode
    if mode != "RGB":
        notes.append(f"from-{mode}")
    if mode.startswith("I;16"):
        return from_16_bit(image, notes)
    if mode in {"I", "F"}:
        return grey_to_rgb(to_8_bit(np.asarray(image), notes))
    if mode == "LAB":
        image = lab_to_rgb(image)
    if image.has_transparency_data:
        notes.append("alpha-on-white")
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.asarray(image.convert("RGB"))


def from_16_bit(image: Image.Image, notes: list[str]) -> NDArray[np.uint8]:
    """Return 16 bit grey as RGB; the one transparent value that a PNG may name becomes white."""
    values = np.asarray(image).astype(np.uint16, copy=False)
    grey = to_8_bit(values, notes)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        notes.append("alpha-on-white")
        grey = np.where(values == transparent, np.uint8(255), grey)
    return grey_to_rgb(grey)


def to_8_bit(values: NDArray[np.number], notes: list[str]) -> NDArray[np.uint8]:
    """Return grey values of more than 8 bit as uint8, by their type and range alone."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ImageError("holds values that are not numbers (NaN or infinity)")
    if np.issubdtype(values.dtype, np.floating) and low >= 0 and high <= 255:
        scaled = values * (255.0 if high <= 1 else 1.0)
    elif low >= 0 and high <= 65535:
        scaled = values / 257.0
    else:
        notes.append("scaled-from-range")
        scaled = (values - low) * (255.0 / max(high - low, 1.0))
    rounded: NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return rounded


def grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a grey image of shape (height, width) as one of shape (height, width, 3)."""
    return np.repeat(grey[:, :, None], 3, axis=2)


def lab_to_rgb(image: Image.Image) -> Image.Image:
    """Return a CIE L*a*b* image in sRGB."""
    converted = ImageCms.profileToProfile(
        image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    if converted is None:
        raise ImageError("its LAB colours cannot be converted")
    return converted


def available_formats() -> list[str]:
    """Return the formats of :data:`FORMATS` that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def wrong_suffix(name: str, actual: str) -> str:
    """Return the suffix of the name, without its dot, where it belongs to another format; else nothing."""
    suffix = PurePath(name).suffix.lower()
    claimed = Image.registered_extensions().get(suffix)
    if claimed is None or SAME_FORMAT.get(claimed, claimed) == SAME_FORMAT.get(actual, actual):
        return ""
    return suffix[1:]


def explain(error: Exception, data: bytes) -> str:
    """Return a reason that a person understands."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: {text}"
    if isinstance(error, MemoryError):
        return "too large: decoding it needs more memory than there is"
    if isinstance(error, UnidentifiedImageError):
        return unidentified(data)
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return f"truncated: the file ends before the picture does ({text})"
    return f"damaged or not supported: {text}"


def unidentified(data: bytes) -> str:
    """Return why no reader took the file."""
    head = data.lstrip()[:16]
    for start, reason in UNSUPPORTED:
        if head.startswith(start):
            return reason
    if data[4:8] == b"ftyp":
        return "HEIC and other camera containers are not supported: convert it to JPEG or PNG"
    if not any(data[:4096]):
        return "not an image: the file is filled with zeros"
    return "not an image that can be read: its content is damaged, or of no known format"
