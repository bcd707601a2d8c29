"""HEIC and HEIF, as telephones write them: read by pillow-heif (extra ``heic``), which decodes with libheif.

The pictures are turned as their ``irot`` and ``imir`` properties say; the EXIF orientation, which repeats them, is not
applied a second time (ISO/IEC 23008-12, section 6.5 and annex A). The first picture is the primary one; the others follow
in the order of the file. Depth maps, thumbnails and gain maps are no pictures of their own. AVIF is read by Pillow.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from headstart.errors import ImageError
from headstart.images.formats import HEIC_BRANDS, import_reader
from headstart.images.readers.pillow_files import refuse_large
from headstart.images.readers.pillow_samples import straight
from headstart.images.samples import Samples

#: Version of what becomes of these files, noted with each of them. A change that gives other pixels gives another number.
RULES = "heic-1"


def is_heic(data: bytes) -> bool:
    """Return whether a file is HEIC or HEIF, by its brands; one that is compatible with AVIF is left to Pillow."""
    if data[4:8] != b"ftyp" or data[8:12] not in HEIC_BRANDS:
        return False
    end = min(int.from_bytes(data[:4], "big"), 4096)
    compatible = {data[at : at + 4] for at in range(16, end, 4)}
    return not compatible & {b"avif", b"avis"}


class HeicFile:
    """A HEIC file; see :class:`headstart.images.samples.PictureFile`.

    Parameters
    ----------
    data : bytes
        The whole file.
    max_pixels : int
        Pictures of more pixels are refused before they are decoded.

    Raises
    ------
    ImageError
        If pillow-heif is not installed, or the first picture is too large.
    """

    format = "HEIC"

    def __init__(self, data: bytes, max_pixels: int) -> None:
        pillow_heif = import_reader("pillow_heif", extra="heic", kind="HEIC")
        file = pillow_heif.open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)
        primary = file.primary_index
        self._pictures = [file[primary], *(image for number, image in enumerate(file) if number != primary)]
        self._max_pixels = max_pixels
        self.size: tuple[int, int] = self._pictures[0].size
        refuse_large(self.size[0], self.size[1], max_pixels)

    def is_deep(self) -> bool:
        """See :class:`headstart.images.samples.PictureFile`."""
        return ";" in self._pictures[0].mode

    def more(self) -> str:
        """See :class:`headstart.images.samples.PictureFile`."""
        return "first-frame" if self.n_pictures() > 1 else ""

    def n_pictures(self) -> int:
        """See :class:`headstart.images.samples.PictureFile`."""
        return len(self._pictures)

    def read(self, number: int, notes: list[str]) -> Samples:
        """See :class:`headstart.images.samples.PictureFile`."""
        picture = self._pictures[number]
        refuse_large(picture.size[0], picture.size[1], self._max_pixels)
        notes += [RULES] if RULES not in notes else []
        values = np.asarray(picture)
        if values.shape[:2] != picture.size[::-1]:
            raise ImageError(f"damaged: it claims {picture.size[0]:,} × {picture.size[1]:,} pixels, but holds others")
        limits = None if values.dtype == np.uint8 else (0.0, float(2 ** _bits_of(picture) - 1))
        return Samples(straight(values, limits) if picture.premultiplied_alpha else values, limits)


def _bits_of(picture: Any) -> int:
    """Return the bits of a sample, from a mode as ``RGB;10``."""
    return int(picture.mode.rpartition(";")[2].rstrip("L"))
