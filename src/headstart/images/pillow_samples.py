"""Pixels of files opened by Pillow: stored samples of more than 8 bits, and 8-bit modes converted to RGB."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile
from PIL.ExifTags import Base as Tag

from headstart.errors import ImageError
from headstart.images import samples
from headstart.images.samples import Pixels, Samples, add_notes, strips
from headstart.images.tiff_tags import tag_number, tag_numbers

Reopen = Callable[[], ImageFile.ImageFile]

#: The value of SampleFormat for signed integers.
SIGNED = 2

#: Pillow's byte orders → the other order, which unpacks the lower byte instead of the upper one.
OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}

#: The bit of an AV1CodecConfigurationRecord for 10 or 12 bits (AV1 Codec ISO Media File Format Binding, section 2.3).
AV1_HIGH_BITDEPTH = 0x40

#: Raw mode of a big-endian TIFF → its raw mode after libtiff has decompressed it. Pillow replaces other types itself.
UNPACKED = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}

#: Formats whose writers often leave an unused alpha channel at zero.
UNUSED_ALPHA = frozenset({"BMP", "DIB", "TGA", "ICO"})


def tags_of(image: Image.Image) -> Mapping[int, Any]:
    """Return the tags of a TIFF; none for other formats."""
    return getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}


def rawmode_of(image: Image.Image) -> str:
    """Return Pillow's raw mode of an image that is not loaded yet, e.g. ``RGB;16B``; empty for others."""
    tile = getattr(image, "tile", None)
    args = tile[0].args if tile else None
    rawmode = args[0] if isinstance(args, tuple) and args else args
    return rawmode if isinstance(rawmode, str) else ""


def is_16_bit_colour(image: Image.Image, rawmode: str) -> bool:
    """Return whether Pillow would keep only the upper bytes of 16-bit colours, or of 16-bit grey and alpha."""
    deep = rawmode[:-1] in {"RGB;16", "RGBA;16", "RGBX;16", "RGBa;16"} or rawmode == "LA;16B"
    return deep and image.format in {"PNG", "TIFF"} and not (image.format == "PNG" and is_animated(image))


def may_be_deep(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Return whether an image that is not loaded yet may have samples of more than 8 bits, or signed ones."""
    tags = tags_of(image)
    return (
        image.mode[0] in "IF"
        or is_16_bit_colour(image, rawmode_of(image))
        or SIGNED in tag_numbers(tags, Tag.SampleFormat)
        or _largest_sample(image, data) > 255
    )


def is_animated(image: Image.Image) -> bool:
    """Return whether there are further frames."""
    return bool(getattr(image, "is_animated", False))


def deep_samples(image: Image.Image) -> Samples | None:
    """Return the samples of a loaded one-channel image; None for 8 bits, which Pillow converts."""
    tags = tags_of(image)
    signed, bits = SIGNED in tag_numbers(tags, Tag.SampleFormat), tag_number(tags, Tag.BitsPerSample, 16)
    if image.mode == "La":
        return Samples(straight(np.asarray(image)))
    if image.mode[0] not in "IF" and not (image.mode == "L" and signed and bits == 8):
        return None
    values, limits = np.asarray(image), None
    if image.mode == "L":
        values = values.view(np.int8)
    elif image.mode.startswith("I;16"):
        values = values.astype(np.uint16, copy=False)
        limits = (0.0, 2.0**bits - 1) if bits < 16 else None
    elif image.mode == "I":
        values = values.astype(_integer_type(image, signed, bits), copy=False)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        values = _with_alpha(values[:, :, None], values != transparent)
    return Samples(values, limits, white_is_zero=tags.get(Tag.PhotometricInterpretation) == 0)


def _integer_type(image: Image.Image, signed: bool, bits: int) -> type[np.integer[Any]]:
    """Return the stored type of the integers that Pillow keeps in 32 bits."""
    if image.format == "PPM":
        return np.uint16
    if image.format != "TIFF" or (signed and bits != 16):
        return np.int32
    return np.int16 if signed else np.uint32


def colour_16_bit(rawmode: str, reopen: Reopen) -> Samples:
    """Return 16-bit colours, unpacked in two passes; ``reopen`` returns the image, at its page and not loaded."""
    if rawmode == "LA;16B":
        return _grey_and_alpha(reopen())
    straight_mode = rawmode.replace("RGBa", "RGBA")
    upper, info = _unpacked(reopen(), straight_mode)
    lower, _ = _unpacked(reopen(), straight_mode[:-1] + OTHER_ORDER[straight_mode[-1]])
    values = upper.astype(np.uint16)
    values <<= 8
    values |= lower
    if rawmode.startswith("RGBa"):
        values = straight(values)
    transparent = info.get("transparency")
    if isinstance(transparent, tuple):
        values = _with_alpha(values, (values != np.array(transparent, np.uint16)).any(axis=2))
    return Samples(values)


def loses_bits(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Return whether Pillow keeps only the upper 8 bits of larger samples, and the others cannot be read."""
    if image.format == "AVIF":
        at = data.find(b"av1C")
        return at > 0 and bool(data[at + 6] & AV1_HIGH_BITDEPTH)
    if image.format == "SGI":
        return data[3:4] == b"\2"  # bytes of a sample
    if image.format == "PPM":
        args = image.tile[0].args if image.tile else None
        return data[:2] == b"P3" and isinstance(args, tuple) and args[-1] > 255
    return (
        image.format == "PNG" and is_animated(image) and image.mode in {"RGB", "RGBA", "LA"} and data[24:25] == b"\x10"
    )


def load(image: ImageFile.ImageFile) -> None:
    """Load an image; bytes that libtiff has already put in native order are not swapped again."""
    rawmode = rawmode_of(image)
    if rawmode in UNPACKED and image.tile[0].codec_name == "libtiff":
        _unpacked(image, UNPACKED[rawmode])
    image.load()


def _unpacked(image: ImageFile.ImageFile, rawmode: str) -> tuple[NDArray[np.uint8], dict[Any, Any]]:
    """Return the pixels unpacked by another raw mode, and Pillow's info of the image."""
    image.tile = [
        tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
        for tile in image.tile
    ]
    image.load()
    return np.asarray(image), image.info


def _grey_and_alpha(image: ImageFile.ImageFile) -> Samples:
    """Return the 16-bit grey and alpha of a PNG: four bytes a pixel, like RGBA."""
    image._mode = "RGBA"
    pixels, _ = _unpacked(image, "RGBA")
    return Samples(np.ascontiguousarray(pixels).view(">u2").astype(np.uint16))


def netpbm_samples(image: ImageFile.ImageFile, data: bytes) -> Samples | None:
    """Return the two-byte samples of a binary PGM or PPM; None for other files."""
    largest = _largest_sample(image, data)
    if largest <= 255:
        return None
    tile = image.tile[0]
    n_channels = 3 if data[:2] == b"P6" else 1
    n_values = image.height * image.width * n_channels
    if len(data) < tile.offset + 2 * n_values:
        raise ImageError("truncated: the file ends before the picture does")
    values = np.frombuffer(data, ">u2", n_values, tile.offset).astype(np.uint16)
    return Samples(values.reshape(image.height, image.width, n_channels), (0.0, float(largest)))


def _largest_sample(image: ImageFile.ImageFile, data: bytes) -> int:
    """Return the largest sample value in the header of a binary PGM or PPM that is not loaded yet; 255 for other files."""
    if image.format != "PPM" or data[:2] not in {b"P5", b"P6"} or not image.tile:
        return 255
    codec, args = image.tile[0].codec_name, image.tile[0].args
    if codec == "ppm":
        return int(args[-1]) if isinstance(args, tuple) else 255
    return 65535 if image.mode == "I" else 255


def _with_alpha(values: NDArray[Any], opaque: NDArray[np.bool_]) -> NDArray[Any]:
    """Return samples with an alpha channel appended: the largest value where opaque, else zero."""
    alpha = np.where(opaque, np.iinfo(values.dtype).max, 0).astype(values.dtype)
    return np.concatenate([values, alpha[:, :, None]], axis=2)


def straight(values: NDArray[Any], limits: tuple[float, float] | None = None) -> NDArray[Any]:
    """Return samples with premultiplied alpha, the last channel, divided out.

    The alpha of an opaque pixel is the upper limit, or that of the type.
    """
    is_float = values.dtype.kind == "f"
    full, largest = (1.0, np.finfo(values.dtype).max) if is_float else 2 * (np.iinfo(values.dtype).max,)
    if limits is not None:
        full = largest = limits[1]
    result = values.copy()
    for rows in strips(values):
        alpha = values[rows, :, -1:].astype(np.float64)
        with np.errstate(all="ignore"):  # NaN and infinity are refused later
            colours = values[rows, :, :-1] * np.divide(full, alpha, out=np.zeros_like(alpha), where=alpha > 0)
            result[rows, :, :-1] = np.clip(colours if is_float else np.rint(colours), 0, largest)
    return result


def to_rgb(image: Image.Image, notes: list[str]) -> Pixels:
    """Return the pixels of a loaded image, shape (height, width, 3), and note the conversion."""
    if image.mode != "RGB":
        notes.append(f"from-{image.mode}")
    convert = _converter(image, notes)
    rows = max(1, samples.STRIP_PIXELS // image.width)
    if rows >= image.height:
        pixels = convert(image)
    else:
        pixels = np.empty((image.height, image.width, 3), np.uint8)
        for top in range(0, image.height, rows):
            bottom = min(top + rows, image.height)
            pixels[top:bottom] = convert(image.crop((0, top, image.width, bottom)))
    return pixels


def _converter(image: Image.Image, notes: list[str]) -> Callable[[Image.Image], Pixels]:
    """Return the function that converts strips of the image to RGB, chosen by the whole image."""
    if image.mode == "LAB":
        return _from_lab()
    if image.has_transparency_data and not _ignores_alpha(image, notes):
        return lambda strip: _over_white(strip.convert("RGBA"), notes)
    if image.mode == "RGB":
        return np.asarray
    return lambda strip: np.asarray(strip.convert("RGB"))


def _ignores_alpha(image: Image.Image, notes: list[str]) -> bool:
    """Return whether an alpha channel of zeros is ignored, and note it."""
    unused = image.format in UNUSED_ALPHA and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0)
    if unused:
        notes.append("alpha-ignored")
    return unused


def _over_white(strip: Image.Image, notes: list[str]) -> Pixels:
    if strip.getchannel("A").getextrema() != (255, 255):
        add_notes(notes, ["alpha-on-white"])
        strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
    return np.asarray(strip.convert("RGB"))


def _from_lab() -> Callable[[Image.Image], Pixels]:
    """Return the conversion of CIE L*a*b* (D50) to sRGB by littleCMS."""
    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")

    def convert(strip: Image.Image) -> Pixels:
        converted = ImageCms.applyTransform(strip, transform)
        if converted is None:
            raise ImageError("its LAB colours cannot be converted")
        return np.asarray(converted)

    return convert
