"""HEIC and HEIF, and colour JPEG 2000 of more than 8 bits, which Pillow misreads.

HEIC is read by pillow-heif (extra ``heic``), which decodes with libheif; AVIF by Pillow. Pictures are turned by their
``irot`` and ``imir`` properties; the EXIF orientation, which repeats them, is ignored (ISO/IEC 23008-12, section 6.5 and
annex A). The primary picture comes first, then the others in file order. Depth maps, thumbnails and gain maps are not
pictures. JPEG 2000 is read by imagecodecs (extra ``microscopy``).
"""

from __future__ import annotations

import re

import numpy as np
from PIL import ImageFile

from headstart.errors import ImageError
from headstart.images.formats import import_reader
from headstart.images.pillow_samples import straight
from headstart.images.samples import PictureFile, Samples, add_notes, refuse_large
from headstart.images.tiff_tags import JPEG_2000, embedded_pixels

#: Version of the conversion of HEIC, noted for each image. A change of the resulting pixels needs a new number.
HEIC_RULES = "heic-1"


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
        add_notes(notes, [HEIC_RULES])
        values = np.array(picture)  # a copy: pillow-heif before 1.6 frees what it has lent
        if values.shape[:2] != (height, width):
            raise ImageError(f"damaged: it claims {width:,} × {height:,} pixels, but contains others")
        limits = None
        if values.dtype != np.uint8:
            bits = int(picture.mode.rpartition(";")[2].rstrip("L"))  # e.g. RGB;10
            limits = (0.0, 2.0**bits - 1)
        return Samples(straight(values, limits) if picture.premultiplied_alpha else values, limits)


#: SIZ marker of a codestream, up to the number of components and their bits (ITU-T T.800, A.5.1).
COMPONENTS = re.compile(rb"\xff\x4f\xff\x51.{36}", re.DOTALL)


def colour_bits(image: ImageFile.ImageFile, data: bytes) -> int:
    """Return the bits of the colours of a JPEG 2000; 8 for grey, which Pillow reads, and for other formats."""
    return 8 if image.mode == "L" or image.mode.startswith("I") else _bits_of(image, data)


def grey_samples(image: ImageFile.ImageFile, data: bytes) -> Samples | None:
    """Return the samples of a loaded grey JPEG 2000 whose bits Pillow has shifted to 8 or 16; None for other images."""
    bits, whole = _bits_of(image, data), {"L": 8, "I;16": 16}.get(image.mode, 0)
    if image.format != "JPEG2000" or not 0 < bits < whole:
        return None
    return Samples(np.asarray(image).astype(np.uint16) >> (whole - bits), (0.0, 2.0**bits - 1))


def _bits_of(image: ImageFile.ImageFile, data: bytes) -> int:
    """Return the bits of the components of a JPEG 2000; 8 for other formats."""
    found = COMPONENTS.search(data) if image.format == "JPEG2000" else None
    if found is None:
        return 8
    sizes = data[found.end() + 2 :: 3][: int.from_bytes(data[found.end() : found.end() + 2], "big")]
    return 1 + max((size & 0x7F for size in sizes), default=7)


class DeepJpeg2000(PictureFile):
    """A JPEG 2000 read by imagecodecs; ``image`` is opened by Pillow, with its size checked."""

    format = "JPEG2000"

    def __init__(self, image: ImageFile.ImageFile, data: bytes, bits: int) -> None:
        self._codecs = import_reader("imagecodecs", extra="microscopy", kind="JPEG 2000 colour of more than 8 bits")
        self.size, self._data, self._bits = image.size, data, bits
        if embedded_pixels(JPEG_2000, data) > image.width * image.height:
            raise ImageError("damaged: its codestream is larger than the picture")

    def is_deep(self) -> bool:
        return True

    def read(self, number: int, notes: list[str]) -> Samples:
        values = self._codecs.jpeg2k_decode(self._data)
        return Samples(values, (0.0, 2.0**self._bits - 1) if values.dtype.kind == "u" else None)
