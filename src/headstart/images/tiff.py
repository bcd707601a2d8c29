"""TIFFs of kinds that Pillow does not read: named by their tags, and read by tifffile (extra ``microscopy``)."""

from __future__ import annotations

import io
import logging
import math
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, TiffImagePlugin

from headstart.errors import ImageError
from headstart.images.channels import pictures_of
from headstart.images.depth import straight
from headstart.images.extras import import_reader, verb_of
from headstart.images.opened import MAX_PAGES, ORIENTATIONS, joined, turned
from headstart.images.reader import CAMERA_RAW, is_camera_raw
from headstart.images.samples import Samples, to_levels, type_limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from PIL import ImageFile

#: First bytes of TIFF and BigTIFF.
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

#: Tags of TIFF 6.0.
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
ORIENTATION, SAMPLES, PLANAR, EXTRA, FORMAT = 274, 277, 284, 338, 339

#: A value of Compression that Pillow knows, and not every build of it reads.
WEBP = 50001

#: Values of Compression that Pillow does not know, and what they are called (tifffile's and libtiff's lists).
COMPRESSIONS = {
    33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000", 34661: "JBIG", 34712: "JPEG 2000", 34887: "LERC",
    34892: "lossy JPEG", 34927: "LERC", 34933: "PNG", 34934: "JPEG XR", 48124: "Jetraw", 50001: "WebP", 50002: "JPEG XL",
    52546: "JPEG XL", 65000: "EER", 65001: "EER", 65002: "EER",
}  # fmt: skip

#: Values of SampleFormat.
FLOAT, COMPLEX = 3, (5, 6)

#: Values of PhotometricInterpretation, those of them that are read, and what some are called.
WHITE_IS_ZERO, GREY, RGB, PALETTE, SEPARATED, YCBCR, LAB, CFA, LINEAR_RAW = 0, 1, 2, 3, 5, 6, 8, 32803, 34892
READ = (WHITE_IS_ZERO, GREY, RGB, PALETTE, SEPARATED, YCBCR)
COLOURS = {WHITE_IS_ZERO: "grey with white as zero", GREY: "grey", RGB: "RGB", SEPARATED: "CMYK", LAB: "LAB"}

#: Values of ExtraSamples that mean alpha.
ASSOCIATED, UNASSOCIATED = 1, 2

# tifffile logs what it finds odd; without this, Python would print it where nobody has set up logging.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


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
        If it is camera raw.
    """
    if not data.startswith(MAGIC):
        return ""
    try:
        tags = first_tags(data)
        compression, kind = int(tags.get(COMPRESSION, 1)), kind_of_samples(tags)
    except Exception:  # damaged, which is what Pillow's own reason says then
        return ""
    if is_camera_raw(tags, name) or tags.get(PHOTOMETRIC) in {CFA, LINEAR_RAW}:
        raise ImageError(CAMERA_RAW)
    if compression not in TiffImagePlugin.COMPRESSION_INFO:
        return kind_of_compression(compression)
    return kind if re.search(r"unknown (pixel mode|data organization)", refusal) else ""


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
    n_samples, bits = int(tags.get(SAMPLES, 1)), int(max(tags.get(BITS, (1,))))
    sample_format, photometric = int(max(tags.get(FORMAT, (1,)))), int(tags.get(PHOTOMETRIC, GREY))
    if sample_format in COMPLEX:
        return "complex values"
    n_colours = {RGB: 3, YCBCR: 3, LAB: 3, SEPARATED: 4}.get(photometric, 1)
    if n_samples > n_colours and not (n_samples == n_colours + 1 and tags.get(EXTRA)):
        return f"{n_samples} channels"
    if photometric == PALETTE:
        return f"a palette of {bits} bits"
    words = [f"{bits}-bit {'float' if sample_format == FLOAT else 'integer'}"]
    words += [COLOURS[photometric]] if photometric in COLOURS else []
    words += ["with alpha"] if n_samples == n_colours + 1 else []
    words += ["in planes"] if n_samples > 1 and tags.get(PLANAR, 1) != 1 else []
    return " ".join(words)


def misread_kind(image: ImageFile.ImageFile) -> str:
    """Return what Pillow would read wrongly of a TIFF that it opened, or not everywhere; nothing where it is right.

    Of uncompressed colours of 16 bits in planes it takes each byte for a sample. WebP is left out of many of its builds.
    """
    if image.format != "TIFF" or not image.tile:
        return ""
    tags = getattr(image, "tag_v2", {})
    if tags.get(COMPRESSION) == WEBP:
        return kind_of_compression(WEBP)
    if image.tile[0].codec_name == "libtiff":
        return ""
    return kind_of_samples(tags) if tags.get(PLANAR, 1) != 1 and max(tags.get(BITS, (1,))) > 8 else ""


class DeepTiff:
    """A TIFF that tifffile reads; see :class:`headstart.images.pages.PictureFile`.

    Parameters
    ----------
    data : bytes
        The whole file.
    kind : str
        What Pillow does not read.
    max_pixels : int
        Pages of more pixels are refused before they are decoded.

    Raises
    ------
    ImageError
        If tifffile or imagecodecs is not installed, or the kind is none that a picture can be made of.
    """

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
        """See :class:`headstart.images.pages.PictureFile`."""
        return bool(self._tiff.pages[0].dtype.itemsize > 1)

    def more(self) -> str:
        """See :class:`headstart.images.pages.PictureFile`."""
        return "first-page" if self.n_pictures() > 1 else ""

    def n_pictures(self) -> int:
        """See :class:`headstart.images.pages.PictureFile`."""
        return len(self._pictures)

    def read(self, number: int, notes: list[str]) -> Samples:
        """See :class:`headstart.images.pages.PictureFile`."""
        pages = [self._tiff.pages[page] for page in self._pictures[number]]
        samples = joined([self._page(page, notes) for page in pages], notes)
        orientation = pages[0].tags.valueof(ORIENTATION, 1)
        if orientation not in ORIENTATIONS:
            return samples
        note = ORIENTATIONS[orientation][1]
        notes += [note] if note not in notes else []
        return turned(samples, orientation)

    @cached_property
    def _pictures(self) -> list[tuple[int, ...]]:
        """The pages of each picture."""
        pages = self._tiff.pages
        if len(pages) > MAX_PAGES:
            raise ImageError(f"too large: it has {len(pages):,} pages, at most {MAX_PAGES:,} are counted")
        numbers = [n for n in range(len(pages)) if not n or not (pages[n].is_reduced or pages[n].is_mask)]
        return pictures_of(pages[0].description, numbers)

    def _check(self, page: Any) -> None:
        """Raise ImageError for what is too large, is cut off, or is no picture; nothing is decoded for it."""
        width, height = page.imagewidth, page.imagelength
        n_pixels = max(width * height, math.prod(page.chunks))
        if n_pixels > self._max_pixels:
            raise ImageError(f"too large: {width:,} × {height:,} pixels, at most {self._max_pixels:,} are decoded")
        if n_pixels < 1 or page.imagedepth != 1:
            raise ImageError(f"holds no picture: {width} × {height} × {page.imagedepth}")
        ends = [start + n for start, n in zip(page.dataoffsets, page.databytecounts, strict=False)]
        if not ends or min(page.databytecounts) < 1 or max(ends) > len(self._data):
            raise ImageError("truncated: the file ends before the picture does, or parts of it are missing")
        if page.dtype is None or page.dtype.kind not in "biuf" or page.photometric not in READ:
            raise ImageError(unsupported(self._kind))

    def _page(self, page: Any, notes: list[str]) -> Samples:
        """Return the samples of a page as they are stored."""
        self._check(page)
        values = page.asarray(maxworkers=1)
        if page.axes.startswith("S"):
            values = np.moveaxis(values, 0, -1)
        if page.axes not in {"YX", "YXS", "SYX"}:
            raise ImageError(unsupported(self._kind))
        if page.photometric == PALETTE:
            return Samples(np.stack([colours[values] for colours in page.colormap], axis=2))
        if page.photometric == SEPARATED:
            notes += ["from-CMYK"] if "from-CMYK" not in notes else []
            return Samples(from_cmyk(values))
        n_colours = 3 if page.photometric in {RGB, YCBCR} else 1
        values = values.reshape(*values.shape[:2], -1)
        alpha = int(page.extrasamples[0]) if page.extrasamples else 0
        if values.shape[2] < n_colours or (n_colours == 1 and values.shape[2] > (2 if alpha else 1)):
            raise ImageError(unsupported(f"{values.shape[2]} channels"))
        values = values[:, :, : n_colours + (alpha in {ASSOCIATED, UNASSOCIATED})]
        if alpha == ASSOCIATED:
            values = straight(values)
        if values.dtype == np.uint8 and page.bitspersample < 8:
            values = values.astype(np.uint16)  # which the limits hold for
        limits = (0.0, 2.0**page.bitspersample - 1) if values.dtype.kind == "u" else None
        return Samples(values, limits, white_is_zero=page.photometric == WHITE_IS_ZERO)


def unsupported(kind: str) -> str:
    """Return the reason of a picture that nothing is made of."""
    return f"{kind} {verb_of(kind)} not supported: convert it to grey or RGB of 8 or 16 bits"


def from_cmyk(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return CMYK of shape (height, width, 4 or more) as RGB, as Pillow converts it, from 8 bits."""
    eight_bits = to_levels(values[:, :, :4], type_limits(values.dtype), [])
    return np.asarray(Image.fromarray(eight_bits, "CMYK").convert("RGB"))
