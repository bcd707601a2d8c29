"""What keeps Pillow from reading a TIFF that is sound, named by its tags."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

from PIL import TiffImagePlugin

from headstart.errors import ImageError
from headstart.images.depth import rawmode_of
from headstart.images.extras import verb_of
from headstart.images.reader import CAMERA_RAW, is_camera_raw
from headstart.images.tags import (
    BITS_PER_SAMPLE,
    COMPRESSION,
    EXTRA_SAMPLES,
    HEIGHT,
    IMAGE_DEPTH,
    PHOTOMETRIC,
    PLANAR,
    SAMPLE_FORMAT,
    SAMPLES_PER_PIXEL,
    WIDTH,
    tag_number,
    tag_numbers,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import ImageFile

#: First bytes of a BigTIFF that Pillow does not read, and those of all TIFFs.
BIG_ENDIAN_BIGTIFF = b"MM\0+"
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", BIG_ENDIAN_BIGTIFF)

#: A value of Compression that Pillow knows, and not every build of it reads.
WEBP = 50001

#: Values of Compression that Pillow does not know, and what they are called (tifffile's and libtiff's lists).
COMPRESSIONS = {
    33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000", 34661: "JBIG", 34712: "JPEG 2000", 34887: "LERC",
    34892: "lossy JPEG", 34927: "LERC", 34933: "PNG", 34934: "JPEG XR", 48124: "Jetraw", 50001: "WebP", 50002: "JPEG XL",
    52546: "JPEG XL", 65000: "EER", 65001: "EER", 65002: "EER",
}  # fmt: skip

#: What Pillow says of samples that it does not read. The index is that of a raw mode for planes that are no colours.
UNREAD = re.compile(r"TIFF: (unknown (pixel mode|data organization)|string index|Invalid value for samples per pixel)")

#: Values of SampleFormat.
FLOAT, COMPLEX = 3, (5, 6)

#: Values of PhotometricInterpretation, and what some are called.
WHITE_IS_ZERO, GREY, RGB, PALETTE, SEPARATED, YCBCR, LAB, CFA, LINEAR_RAW = 0, 1, 2, 3, 5, 6, 8, 32803, 34892
COLOURS = {
    WHITE_IS_ZERO: "grey with white as zero", GREY: "grey", RGB: "RGB", SEPARATED: "CMYK", YCBCR: "YCbCr", LAB: "LAB"
}  # fmt: skip

#: Values of ExtraSamples that mean alpha.
ASSOCIATED, UNASSOCIATED = 1, 2


def unread_kind(data: bytes, name: str, refusal: str) -> str:
    """Return what keeps Pillow from reading a TIFF that may be sound, as ``64-bit float``; nothing where it is none.

    Only the tags of the first page are read.

    Parameters
    ----------
    data, name : bytes, str
        The whole file, and its name.
    refusal : str
        Why Pillow did not take it.

    Raises
    ------
    ImageError
        If it is camera raw, or nothing is made of its samples.
    """
    if not data.startswith(MAGIC):
        return ""
    if data.startswith(BIG_ENDIAN_BIGTIFF):
        return "big-endian BigTIFF"
    try:
        tags = first_tags(data)
        compression, kind = tag_number(tags, COMPRESSION, 1), kind_of_samples(tags)
    except Exception:  # damaged, which is what Pillow's own reason says then
        return ""
    if is_camera_raw(tags, name) or tag_number(tags, PHOTOMETRIC, GREY) in {CFA, LINEAR_RAW}:
        raise ImageError(CAMERA_RAW)
    if compression not in TiffImagePlugin.COMPRESSION_INFO:
        return kind_of_compression(compression)
    return with_a_picture(kind, tags) if UNREAD.search(refusal) else ""


def unsupported(kind: str) -> str:
    """Return the reason of a picture that nothing is made of."""
    return f"{kind} {verb_of(kind)} not supported: convert it to grey or RGB of 8 or 16 bits"


def with_a_picture(kind: str, tags: Mapping[int, Any]) -> str:
    """Return a kind of samples that the other reader may read; raise ImageError for one that nothing is made of."""
    photometric = tag_number(tags, PHOTOMETRIC, GREY)
    several = photometric in {WHITE_IS_ZERO, GREY} and kind.endswith("channels")
    if several or photometric == LAB or tag_number(tags, SAMPLE_FORMAT, 1) in COMPLEX:
        raise ImageError(unsupported(kind))
    return kind


def kind_of_compression(compression: int) -> str:
    """Return what a compression is called."""
    known = COMPRESSIONS.get(compression)
    return f"compression {known} ({compression})" if known else f"compression {compression}"


def first_tags(data: bytes) -> Mapping[int, Any]:
    """Return the tags of the first page."""
    header = data[: 16 if data[2] == 43 or data[3] == 43 else 8]
    tags = TiffImagePlugin.ImageFileDirectory_v2(header)
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    if WIDTH not in tags or HEIGHT not in tags:
        raise ValueError("it has no size")
    return tags


def kind_of_samples(tags: Mapping[int, Any]) -> str:
    """Return what the samples are, for a person."""
    n_samples, bits = tag_number(tags, SAMPLES_PER_PIXEL, 1), tag_number(tags, BITS_PER_SAMPLE, 1)
    sample_format, photometric = tag_number(tags, SAMPLE_FORMAT, 1), tag_number(tags, PHOTOMETRIC, GREY)
    if sample_format in COMPLEX:
        return "complex values"
    if n_samples == 2 and tag_numbers(tags, EXTRA_SAMPLES) == (0,):
        return "2 channels"
    n_colours = {RGB: 3, YCBCR: 3, LAB: 3, SEPARATED: 4}.get(photometric, 1)
    if n_samples > n_colours and not (n_samples == n_colours + 1 and tag_numbers(tags, EXTRA_SAMPLES)):
        return f"{n_samples} channels"
    if photometric == PALETTE:
        return f"a palette of {bits} bits"
    words = [f"{bits}-bit {'float' if sample_format == FLOAT else 'integer'}"]
    words += [COLOURS[photometric]] if photometric in COLOURS else []
    words += ["with alpha"] if n_samples == n_colours + 1 else []
    words += ["in planes"] if n_samples > 1 and tag_number(tags, PLANAR, 1) != 1 else []
    return " ".join(words)


def misread_kind(image: ImageFile.ImageFile) -> str:
    """Return what Pillow would read wrongly of a TIFF that it opened, or not everywhere; nothing where it is right.

    WebP is left out of many of its builds. Planes: see :func:`reads_planes`.

    Raises
    ------
    ImageError
        If it is a volume, or nothing is made of its samples.
    """
    if image.format != "TIFF" or not image.tile:
        return ""
    tags = getattr(image, "tag_v2", {})
    if tag_number(tags, COMPRESSION, 1) == WEBP:
        return kind_of_compression(WEBP)
    if tag_number(tags, IMAGE_DEPTH, 1) > 1:
        raise ImageError(
            "a volume in one page (ImageDepth) is not supported: write it anew with a page for each of its planes"
        )
    if rawmode_of(image) == "LX":  # of two channels, neither of which is alpha, Pillow takes the first
        return with_a_picture(kind_of_samples(tags), tags)
    in_planes = tag_number(tags, PLANAR, 1) != 1 and tag_number(tags, SAMPLES_PER_PIXEL, 1) > 1
    is_right = not in_planes or reads_planes(tags, image.tile[0].codec_name == "libtiff")
    return "" if is_right else with_a_picture(kind_of_samples(tags), tags)


def reads_planes(tags: Mapping[int, Any], by_libtiff: bool) -> bool:
    """Return whether Pillow reads the planes of a TIFF, each a channel, as what they are.

    It copies bytes to red, green, blue and alpha: of 16 bits the upper ones alone where libtiff unpacks them, each as a
    sample of its own where nothing is packed; grey with alpha and LAB are stored in other ways than RGB.
    """
    photometric, extra = tag_number(tags, PHOTOMETRIC, GREY), tag_numbers(tags, EXTRA_SAMPLES)
    if tag_number(tags, BITS_PER_SAMPLE, 1) != 8 or tag_number(tags, SAMPLES_PER_PIXEL, 1) > 4:
        return False
    if by_libtiff:
        return photometric in {RGB, SEPARATED, YCBCR}
    return photometric in {RGB, SEPARATED} and extra in {(), (UNASSOCIATED,)}
