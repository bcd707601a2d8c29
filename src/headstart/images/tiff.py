"""TIFFs that Pillow does not read: detected by their tags, read with tifffile (extra ``microscopy``)."""

from __future__ import annotations

import io
import logging
import math
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin
from PIL.ExifTags import Base as Tag

from headstart.errors import ImageError
from headstart.images.formats import import_reader, verb_of
from headstart.images.pillow_files import CAMERA_RAW, MAX_PAGES, ORIENTATIONS, is_camera_raw, joined, turned
from headstart.images.pillow_samples import rawmode_of, straight, tags_of
from headstart.images.samples import PictureFile, Samples, add_notes, to_levels, type_limits
from headstart.images.tiff_tags import (
    IMAGE_DEPTH,
    SIZE_OF,
    embedded_pixels,
    pictures_of,
    refuse_hidden_pictures,
    tag_number,
    tag_numbers,
)

#: First bytes of a BigTIFF that Pillow does not read, and of all TIFFs.
BIG_ENDIAN_BIGTIFF = b"MM\0+"
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", BIG_ENDIAN_BIGTIFF)

#: The value of Compression for WebP, which some builds of Pillow do not read.
WEBP = 50001

#: Values of Compression that Pillow does not know, and their names (tifffile's and libtiff's lists).
COMPRESSIONS = {
    33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000", 34661: "JBIG", 34712: "JPEG 2000", 34887: "LERC",
    34892: "lossy JPEG", 34927: "LERC", 34933: "PNG", 34934: "JPEG XR", 48124: "Jetraw", 50001: "WebP", 50002: "JPEG XL",
    52546: "JPEG XL", 65000: "EER", 65001: "EER", 65002: "EER",
}  # fmt: skip

#: Pillow's messages on samples that it does not read ("string index": planes that are not colours).
UNREAD = re.compile(r"TIFF: (unknown (pixel mode|data organization)|string index|Invalid value for samples per pixel)")

#: Values of SampleFormat.
FLOAT, COMPLEX = 3, (5, 6)

#: Values of PhotometricInterpretation, and names of some.
WHITE_IS_ZERO, GREY, RGB, PALETTE, SEPARATED, YCBCR, LAB, CFA, LINEAR_RAW = 0, 1, 2, 3, 5, 6, 8, 32803, 34892
COLOURS = {
    WHITE_IS_ZERO: "grey with white as zero", GREY: "grey", RGB: "RGB", SEPARATED: "CMYK", YCBCR: "YCbCr", LAB: "LAB"
}  # fmt: skip

#: Values of ExtraSamples that mean alpha.
ASSOCIATED, UNASSOCIATED = 1, 2

#: Values of PhotometricInterpretation that are read.
READ = (WHITE_IS_ZERO, GREY, RGB, PALETTE, SEPARATED, YCBCR)

# Without a handler, Python would print what tifffile logs.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def unread_kind(data: bytes, name: str, refusal: str) -> str:
    """Return which feature of an intact TIFF Pillow refused, e.g. ``64-bit float``; empty if there is none.

    Only the tags of the first page are read. Camera raw and samples that are not supported raise ImageError.
    """
    if not data.startswith(MAGIC):
        return ""
    if data.startswith(BIG_ENDIAN_BIGTIFF):
        return "big-endian BigTIFF"
    try:
        tags = _first_tags(data)
        compression, kind = tag_number(tags, Tag.Compression, 1), _kind_of_samples(tags)
    except Exception:  # damaged: Pillow's own reason says so
        return ""
    if is_camera_raw(tags, name) or tag_number(tags, Tag.PhotometricInterpretation, GREY) in {CFA, LINEAR_RAW}:
        raise ImageError(CAMERA_RAW)
    if compression not in TiffImagePlugin.COMPRESSION_INFO:
        return _kind_of_compression(compression)
    return _supported_kind(kind, tags) if UNREAD.search(refusal) else ""


def _unsupported(kind: str) -> str:
    return f"{kind} {verb_of(kind)} not supported: convert it to grey or RGB of 8 or 16 bits"


def _supported_kind(kind: str, tags: Mapping[int, Any]) -> str:
    """Return a kind of samples that tifffile may read; raise ImageError for one that cannot become a picture."""
    photometric = tag_number(tags, Tag.PhotometricInterpretation, GREY)
    several = photometric in {WHITE_IS_ZERO, GREY} and kind.endswith("channels")
    if several or photometric == LAB or tag_number(tags, Tag.SampleFormat, 1) in COMPLEX:
        raise ImageError(_unsupported(kind))
    return kind


def _kind_of_compression(compression: int) -> str:
    known = COMPRESSIONS.get(compression)
    return f"compression {known} ({compression})" if known else f"compression {compression}"


def _first_tags(data: bytes) -> Mapping[int, Any]:
    header = data[: 16 if data[2] == 43 or data[3] == 43 else 8]
    tags = TiffImagePlugin.ImageFileDirectory_v2(header)
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    if Tag.ImageWidth not in tags or Tag.ImageLength not in tags:
        raise ValueError("no size")
    return tags


def _kind_of_samples(tags: Mapping[int, Any]) -> str:
    """Return a name for the samples, for messages."""
    n_samples, bits = tag_number(tags, Tag.SamplesPerPixel, 1), tag_number(tags, Tag.BitsPerSample, 1)
    sample_format, photometric = (
        tag_number(tags, Tag.SampleFormat, 1),
        tag_number(tags, Tag.PhotometricInterpretation, GREY),
    )
    if sample_format in COMPLEX:
        return "complex values"
    if n_samples == 2 and tag_numbers(tags, Tag.ExtraSamples) == (0,):
        return "2 channels"
    n_colours = {RGB: 3, YCBCR: 3, LAB: 3, SEPARATED: 4}.get(photometric, 1)
    if n_samples > n_colours and not (n_samples == n_colours + 1 and tag_numbers(tags, Tag.ExtraSamples)):
        return f"{n_samples} channels"
    if photometric == PALETTE:
        return f"a palette of {bits} bits"
    words = [f"{bits}-bit {'float' if sample_format == FLOAT else 'integer'}"]
    words += [COLOURS[photometric]] if photometric in COLOURS else []
    words += ["with alpha"] if n_samples == n_colours + 1 else []
    words += ["in planes"] if n_samples > 1 and tag_number(tags, Tag.PlanarConfiguration, 1) != 1 else []
    return " ".join(words)


def misread_kind(image: ImageFile.ImageFile) -> str:
    """Return which feature of an opened TIFF Pillow would misread, or some builds lack (WebP); empty if there is none.

    Volumes and samples that are not supported raise ImageError.
    """
    if image.format != "TIFF" or not image.tile:
        return ""
    tags = tags_of(image)
    if tag_number(tags, Tag.Compression, 1) == WEBP:
        return _kind_of_compression(WEBP)
    if tag_number(tags, IMAGE_DEPTH, 1) > 1:
        raise ImageError(
            "a volume in one page (ImageDepth) is not supported: write the file again with a page for each plane"
        )
    if rawmode_of(image) == "LX":  # two channels without alpha: Pillow takes the first
        return _supported_kind(_kind_of_samples(tags), tags)
    in_planes = tag_number(tags, Tag.PlanarConfiguration, 1) != 1 and tag_number(tags, Tag.SamplesPerPixel, 1) > 1
    is_right = not in_planes or _reads_planes(tags, image.tile[0].codec_name == "libtiff")
    return "" if is_right else _supported_kind(_kind_of_samples(tags), tags)


def _reads_planes(tags: Mapping[int, Any], by_libtiff: bool) -> bool:
    """Return whether Pillow reads a TIFF with a plane for each channel correctly.

    It copies bytes to red, green, blue and alpha: of 16 bits only the upper ones if libtiff decompresses them, and each byte
    as a sample if nothing is compressed; grey with alpha and LAB are stored differently from RGB.
    """
    photometric, extra = tag_number(tags, Tag.PhotometricInterpretation, GREY), tag_numbers(tags, Tag.ExtraSamples)
    if tag_number(tags, Tag.BitsPerSample, 1) != 8 or tag_number(tags, Tag.SamplesPerPixel, 1) > 4:
        return False
    if by_libtiff:
        return photometric in {RGB, SEPARATED, YCBCR}
    return photometric in {RGB, SEPARATED} and extra in {(), (UNASSOCIATED,)}


class DeepTiff(PictureFile):
    """A TIFF read by tifffile; ``kind`` is the feature that Pillow does not read."""

    format = "TIFF"

    def __init__(self, data: bytes, kind: str, max_pixels: int) -> None:
        tifffile = import_reader("tifffile", extra="microscopy", kind=kind)
        import_reader("imagecodecs", extra="microscopy", kind=kind)
        self._data, self._kind, self._max_pixels = data, kind, max_pixels
        self._tiff = tifffile.TiffFile(io.BytesIO(data))
        first = self._tiff.pages[0]
        self.size = (first.imagewidth, first.imagelength)
        self._check(first)

    def is_deep(self) -> bool:
        return bool(self._tiff.pages[0].dtype.itemsize > 1)

    def more(self) -> str:
        return "first-page" if self.n_pictures() > 1 else ""

    def n_pictures(self) -> int:
        return len(self._pictures)

    def read(self, number: int, notes: list[str]) -> Samples:
        pages = [self._tiff.pages[page] for page in self._pictures[number]]
        samples = joined([self._page(page, notes) for page in pages], notes)
        orientation = pages[0].tags.valueof(Tag.Orientation, 1)
        if orientation not in ORIENTATIONS:
            return samples
        add_notes(notes, [ORIENTATIONS[orientation][1]])
        return turned(samples, orientation)

    @cached_property
    def _pictures(self) -> list[tuple[int, ...]]:
        pages = self._tiff.pages
        if len(pages) > MAX_PAGES:
            raise ImageError(f"too large: it has {len(pages):,} pages, at most {MAX_PAGES:,} are counted")
        if len(pages) == 1:
            refuse_hidden_pictures(pages[0].description, pages[0].dataoffsets, pages[0].databytecounts, len(self._data))
        numbers = [n for n in range(len(pages)) if not (pages[n].is_reduced or pages[n].is_mask)]
        return pictures_of(pages[0].description, numbers or [0])

    def _check(self, page: Any) -> None:
        """Raise ImageError for a page that is too large, truncated or not a picture; nothing is decoded."""
        width, height = page.imagewidth, page.imagelength
        sizes = (width, height, page.imagedepth, page.samplesperpixel, page.bitspersample, *page.chunks, *page.chunked)
        if not all(isinstance(size, int) for size in sizes) or page.planarconfig not in {1, 2}:
            raise ImageError("damaged: its tags do not match the format")
        n_pixels = max(width * height, math.prod(page.chunks))
        if n_pixels > self._max_pixels:
            raise ImageError(f"too large: {width:,} × {height:,} pixels, at most {self._max_pixels:,} are decoded")
        if n_pixels < 1 or page.imagedepth != 1 or not math.prod(page.shape):
            raise ImageError(f"holds no picture: {width} × {height} × {page.imagedepth}")
        ends = [start + n for start, n in zip(page.dataoffsets, page.databytecounts, strict=False)]
        if len(ends) < math.prod(page.chunked) or min(page.databytecounts) < 1 or max(ends) > len(self._data):
            raise ImageError("truncated: the file ends before the picture does, or parts of it are missing")
        known = page.compression in SIZE_OF or page.compression in TiffImagePlugin.COMPRESSION_INFO
        if page.dtype is None or page.dtype.kind not in "biuf" or page.photometric not in READ or not known:
            raise ImageError(_unsupported(self._kind))
        if page.compression in SIZE_OF:
            for start, n_bytes in zip(page.dataoffsets, page.databytecounts, strict=False):
                if embedded_pixels(page.compression, self._data[start : start + n_bytes]) > 2 * n_pixels:
                    raise ImageError("damaged: a compressed part is larger than the picture")

    def _page(self, page: Any, notes: list[str]) -> Samples:
        self._check(page)
        values = page.asarray(out=np.zeros(page.shape, page.dtype), maxworkers=1)
        if page.axes.startswith("S"):
            values = np.moveaxis(values, 0, -1)
        if page.axes not in {"YX", "YXS", "SYX"}:
            raise ImageError(_unsupported(self._kind))
        if page.photometric == PALETTE and page.colormap is not None and values.ndim == 2:
            return Samples(np.stack([colours[values] for colours in page.colormap], axis=2))
        no_cmyk = page.photometric == SEPARATED and values.shape[2:] < (4,)
        no_rgb = page.photometric == YCBCR and page.compression not in SIZE_OF  # whose decoders return RGB
        if page.photometric == PALETTE or no_cmyk or no_rgb:
            raise ImageError(_unsupported(self._kind))
        if page.photometric == SEPARATED:
            add_notes(notes, ["from-CMYK"])
            return Samples(_from_cmyk(values))
        n_colours = 3 if page.photometric in {RGB, YCBCR} else 1
        values = values.reshape(*values.shape[:2], -1)
        alpha = int(page.extrasamples[0]) if page.extrasamples else 0
        if values.shape[2] < n_colours or (n_colours == 1 and values.shape[2] > (2 if alpha else 1)):
            raise ImageError(_unsupported(f"{values.shape[2]} channels"))
        values = values[:, :, : n_colours + (alpha in {ASSOCIATED, UNASSOCIATED})]
        if alpha == ASSOCIATED:
            values = straight(values)
        if values.dtype == np.uint8 and page.bitspersample < 8:
            values = values.astype(np.uint16)  # the limits apply to more than 8 bits only
        limits = (0.0, 2.0**page.bitspersample - 1) if values.dtype.kind == "u" else None
        return Samples(values, limits, white_is_zero=page.photometric == WHITE_IS_ZERO)


def _from_cmyk(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return CMYK of shape (height, width, 4 or more) as RGB, converted from 8 bits as Pillow does."""
    eight_bits = to_levels(values[:, :, :4], type_limits(values.dtype), [])
    return np.asarray(Image.fromarray(eight_bits, "CMYK").convert("RGB"))
