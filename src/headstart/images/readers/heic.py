"""HEIC and HEIF, read by pillow-heif (extra ``heic``), which decodes with libheif.

Pictures are turned by their ``irot`` and ``imir`` properties; the EXIF orientation, which repeats them, is ignored (ISO/IEC
23008-12, section 6.5 and annex A). The primary picture comes first, then the others in file order. Depth maps, thumbnails and
gain maps are not pictures. AVIF is read by Pillow.
"""

from __future__ import annotations

import numpy as np

from headstart.errors import ImageError
from headstart.images.formats import import_reader
from headstart.images.readers.pillow_files import refuse_large
from headstart.images.readers.pillow_samples import straight
from headstart.images.samples import PictureFile, Samples, add_notes

#: Version of the conversion, noted for each image. A change of the resulting pixels needs a new number.
RULES = "heic-1"


class HeicFile(PictureFile):
    """A HEIC file; pictures of more than ``max_pixels`` are refused before they are decoded."""

    format = "HEIC"

    def __init__(self, data: bytes, max_pixels: int) -> None:
        pillow_heif = import_reader("pillow_heif", extra="heic", kind="HEIC")
        file = pillow_heif.open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)
        primary = file.primary_index
        self._pictures = [file[primary], *(image for number, image in enumerate(file) if number != primary)]
        self._max_pixels = max_pixels
        self.size = self._pictures[0].size
        refuse_large(*self.size, max_pixels)

    def is_deep(self) -> bool:
        return ";" in self._pictures[0].mode

    def n_pictures(self) -> int:
        return len(self._pictures)

    def read(self, number: int, notes: list[str]) -> Samples:
        picture = self._pictures[number]
        width, height = picture.size
        refuse_large(width, height, self._max_pixels)
        add_notes(notes, [RULES])
        values = np.asarray(picture)
        if values.shape[:2] != (height, width):
            raise ImageError(f"damaged: it claims {width:,} × {height:,} pixels, but contains others")
        limits = None
        if values.dtype != np.uint8:
            bits = int(picture.mode.rpartition(";")[2].rstrip("L"))  # e.g. RGB;10
            limits = (0.0, 2.0**bits - 1)
        return Samples(straight(values, limits) if picture.premultiplied_alpha else values, limits)
