"""TIFFs of kinds that Pillow does not read, read by tifffile (extra ``microscopy``)."""

from __future__ import annotations

import io
import logging
import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, TiffImagePlugin

from headstart.errors import ImageError
from headstart.images.channels import pictures_of, refuse_hidden_pictures
from headstart.images.depth import straight
from headstart.images.embedded import SIZE_OF, embedded_pixels
from headstart.images.extras import import_reader
from headstart.images.opened import MAX_PAGES, ORIENTATIONS, joined, turned
from headstart.images.samples import Samples, to_levels, type_limits
from headstart.images.tags import ORIENTATION
from headstart.images.tiff_kinds import (
    ASSOCIATED,
    GREY,
    PALETTE,
    RGB,
    SEPARATED,
    UNASSOCIATED,
    WHITE_IS_ZERO,
    YCBCR,
    unsupported,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Values of PhotometricInterpretation that are read.
READ = (WHITE_IS_ZERO, GREY, RGB, PALETTE, SEPARATED, YCBCR)

# tifffile logs what it finds odd; without this, Python would print it where nobody has set up logging.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


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
        if len(pages) == 1:
            refuse_hidden_pictures(pages[0].description, pages[0].dataoffsets, pages[0].databytecounts, len(self._data))
        numbers = [n for n in range(len(pages)) if not (pages[n].is_reduced or pages[n].is_mask)]
        return pictures_of(pages[0].description, numbers or [0])

    def _check(self, page: Any) -> None:
        """Raise ImageError for what is too large, is cut off, or is no picture; nothing is decoded for it."""
        width, height = page.imagewidth, page.imagelength
        sizes = (width, height, page.imagedepth, page.samplesperpixel, page.bitspersample, *page.chunks, *page.chunked)
        if not all(isinstance(size, int) for size in sizes) or page.planarconfig not in {1, 2}:
            raise ImageError("damaged: its tags are not what the format demands")
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
            raise ImageError(unsupported(self._kind))
        if page.compression in SIZE_OF:
            for start, n_bytes in zip(page.dataoffsets, page.databytecounts, strict=False):
                if embedded_pixels(page.compression, self._data[start : start + n_bytes]) > 2 * n_pixels:
                    raise ImageError("damaged: a part of it is larger than the picture")

    def _page(self, page: Any, notes: list[str]) -> Samples:
        """Return the samples of a page as they are stored."""
        self._check(page)
        values = page.asarray(out=np.zeros(page.shape, page.dtype), maxworkers=1)
        if page.axes.startswith("S"):
            values = np.moveaxis(values, 0, -1)
        if page.axes not in {"YX", "YXS", "SYX"}:
            raise ImageError(unsupported(self._kind))
        if page.photometric == PALETTE and page.colormap is not None and values.ndim == 2:
            return Samples(np.stack([colours[values] for colours in page.colormap], axis=2))
        no_cmyk = page.photometric == SEPARATED and values.shape[2:] < (4,)
        no_rgb = page.photometric == YCBCR and page.compression not in SIZE_OF  # of these the decoders make RGB
        if page.photometric == PALETTE or no_cmyk or no_rgb:
            raise ImageError(unsupported(self._kind))
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


def from_cmyk(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return CMYK of shape (height, width, 4 or more) as RGB, as Pillow converts it, from 8 bits."""
    eight_bits = to_levels(values[:, :, :4], type_limits(values.dtype), [])
    return np.asarray(Image.fromarray(eight_bits, "CMYK").convert("RGB"))
