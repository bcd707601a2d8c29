"""Pillow's modes of 8 bits → RGB, by the table in :mod:`headstart.images.decode`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms

from headstart.errors import ImageError
from headstart.images import samples

if TYPE_CHECKING:
    from headstart.images.samples import Pixels

#: Formats whose writers often leave the alpha channel at zero, which then means nothing.
UNUSED_ALPHA = frozenset({"BMP", "DIB", "TGA", "ICO"})


def to_rgb(image: Image.Image, notes: list[str]) -> Pixels:
    """Return the pixels of a loaded image, shape (height, width, 3), and note which rule was used."""
    if image.mode != "RGB":
        notes.append(f"from-{image.mode}")
    convert = converter(image, notes)
    rows = max(1, samples.STRIP_PIXELS // image.width)
    if rows >= image.height:
        pixels = convert(image)
    else:
        pixels = np.empty((image.height, image.width, 3), np.uint8)
        for top in range(0, image.height, rows):
            bottom = min(top + rows, image.height)
            pixels[top:bottom] = convert(image.crop((0, top, image.width, bottom)))
    return pixels


def converter(image: Image.Image, notes: list[str]) -> Callable[[Image.Image], Pixels]:
    """Return what turns any strip of the image into RGB, chosen by the whole image."""
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


def from_lab() -> Callable[[Image.Image], Pixels]:
    """Return the rule of CIE L*a*b* (D50): littleCMS's conversion to sRGB."""
    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")

    def convert(strip: Image.Image) -> Pixels:
        converted = ImageCms.applyTransform(strip, transform)
        if converted is None:
            raise ImageError("its LAB colours cannot be converted")
        return np.asarray(converted)

    return convert
