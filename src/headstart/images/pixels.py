"""Pillow's modes → RGB, by the table in :mod:`headstart.images.decode`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image, ImageCms

from headstart.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels: TypeAlias = NDArray[np.uint8]

#: Larger images are converted in strips of so many pixels, so that no second and third copy of them is made.
STRIP_PIXELS = 4_000_000

#: Formats whose writers often leave the alpha channel at zero, which then means nothing.
UNUSED_ALPHA = frozenset({"BMP", "DIB", "TGA", "ICO"})

#: 16 bit pictures without a brighter pixel (of 255) use a sixteenth of their range: 10 or 12 bit data, most likely.
LOW_RANGE = 16


def to_rgb(image: Image.Image, notes: list[str]) -> Pixels:
    """Return the pixels of a loaded image, shape (height, width, 3), and note which rule was used."""
    if image.mode != "RGB":
        notes.append(f"from-{image.mode}")
    convert = converter(image, notes)
    rows = max(1, STRIP_PIXELS // image.width)
    if rows >= image.height:
        pixels = convert(image)
    else:
        pixels = np.empty((image.height, image.width, 3), np.uint8)
        for top in range(0, image.height, rows):
            bottom = min(top + rows, image.height)
            pixels[top:bottom] = convert(image.crop((0, top, image.width, bottom)))
    if image.mode.startswith("I") and pixels.max() <= LOW_RANGE:
        notes.append("low-range")
    return pixels


def converter(image: Image.Image, notes: list[str]) -> Callable[[Image.Image], Pixels]:
    """Return what turns any strip of the image into RGB, chosen by the whole image."""
    if image.mode.startswith("I;16"):
        return from_16_bit(image, notes)
    if image.mode in {"I", "F"}:
        return from_32_bit(image, notes)
    if image.mode == "LAB":
        return from_lab()
    if image.has_transparency_data and not ignores_alpha(image, notes):
        return lambda strip: over_white(strip.convert("RGBA"), notes)
    if image.mode == "RGB":
        return np.asarray
    return lambda strip: np.asarray(strip.convert("RGB"))


def ignores_alpha(image: Image.Image, notes: list[str]) -> bool:
    """Return whether the alpha channel is all zero in a format where that means that there is none."""
    unused = image.format in UNUSED_ALPHA and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0)
    if unused:
        notes.append("alpha-ignored")
    return unused


def over_white(strip: Image.Image, notes: list[str]) -> Pixels:
    """Return an RGBA image composited over white; noted only if some pixel is not opaque."""
    if strip.getchannel("A").getextrema() != (255, 255):
        if "alpha-on-white" not in notes:
            notes.append("alpha-on-white")
        strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
    return np.asarray(strip.convert("RGB"))


def from_16_bit(image: Image.Image, notes: list[str]) -> Callable[[Image.Image], Pixels]:
    """Return the rule of 16 bit grey: by a table; the one transparent value that a PNG may name becomes white."""
    bits = getattr(image, "tag_v2", {}).get(258, (16,))  # BitsPerSample, TIFF 6.0; 12 bit data come in this mode too
    largest = 4095 if bits == (12,) else 65535
    table = np.minimum(np.rint(np.arange(65536) * 255 / largest), 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and 0 <= transparent <= 65535:
        notes.append("alpha-on-white")
        table[transparent] = 255
    return lambda strip: grey_to_rgb(table[np.asarray(strip).astype(np.uint16, copy=False)])


def from_32_bit(image: Image.Image, notes: list[str]) -> Callable[[Image.Image], Pixels]:
    """Return the rule of 32 bit integers and floats, which depends on the range of the image."""
    low, high = (float(value) for value in extrema(image))
    offset, factor = 0.0, 1.0
    if image.mode == "F" and low >= 0 and high <= 255:
        factor = 255.0 if high <= 1 else 1.0
    elif low >= 0 and high <= 65535:
        factor = 1 / 257
    else:
        notes.append("scaled-from-range")
        offset, factor = low, 255 / ((high - low) or 1.0)

    def convert(strip: Image.Image) -> Pixels:
        values = np.asarray(strip)
        if not np.isfinite(values).all():  # before the cast, which warns of signalling NaNs
            raise ImageError("holds values that are not numbers (NaN or infinity)")
        values = values.astype(np.float64)
        return grey_to_rgb(np.rint((values - offset) * factor).astype(np.uint8))

    return convert


def extrema(image: Image.Image) -> tuple[Any, Any]:
    """Return the smallest and the largest value of an image of one channel."""
    low, high = image.getextrema()
    return low, high


def from_lab() -> Callable[[Image.Image], Pixels]:
    """Return the rule of CIE L*a*b* (D50): littleCMS's conversion to sRGB."""
    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")

    def convert(strip: Image.Image) -> Pixels:
        converted = ImageCms.applyTransform(strip, transform)
        if converted is None:
            raise ImageError("its LAB colours cannot be converted")
        return np.asarray(converted)

    return convert


def grey_to_rgb(grey: Pixels) -> Pixels:
    """Return a grey image of shape (height, width) as one of shape (height, width, 3)."""
    return np.repeat(grey[:, :, None], 3, axis=2)
