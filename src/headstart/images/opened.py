"""Files that Pillow reads, as pictures: ordinary pixels as RGB, samples of more than 8 bits as they are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import ImageError
from headstart.images.channels import N_COLOURS, axes_of, pictures_of, refuse_hidden_pictures
from headstart.images.depth import (
    colour_16_bit,
    deep_samples,
    is_16_bit_colour,
    is_animated,
    load,
    loses_bits,
    may_be_deep,
    netpbm_samples,
    rawmode_of,
)
from headstart.images.jpeg2000 import grey_samples
from headstart.images.pixels import to_rgb
from headstart.images.png import refuse_missing_rows, spread_transparency
from headstart.images.reader import check_size, open_image, refuse_missing_strips
from headstart.images.samples import Samples
from headstart.images.tags import (
    IMAGE_DESCRIPTION,
    MASK,
    NEW_SUBFILE_TYPE,
    REDUCED,
    STRIP_SIZES,
    STRIP_STARTS,
    tag_number,
    tag_numbers,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image, ImageFile

#: Formats whose further frames are no pages: layers of a picture, other views or maps of a photograph.
SINGLE_FORMATS = frozenset({"MPO", "PSD"})

#: Files of more pages are refused where the pages have to be counted.
MAX_PAGES = 10_000

#: EXIF orientation → what shows the image upright, and what it is called in the notes (EXIF 2.32, tag 0x0112).
ORIENTATIONS: dict[int, tuple[Callable[[NDArray[Any]], NDArray[Any]], str]] = {
    2: (lambda pixels: pixels[:, ::-1], "exif-mirrored"),
    3: (lambda pixels: pixels[::-1, ::-1], "exif-rotated-180"),
    4: (lambda pixels: pixels[::-1], "exif-flipped"),
    5: (lambda pixels: pixels.swapaxes(0, 1), "exif-transposed"),
    6: (lambda pixels: pixels[::-1].swapaxes(0, 1), "exif-rotated-90"),
    7: (lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1), "exif-transversed"),
    8: (lambda pixels: pixels[:, ::-1].swapaxes(0, 1), "exif-rotated-270"),
}


class PillowFile:
    """A file that Pillow reads; see :class:`headstart.images.pages.PictureFile`."""

    def __init__(self, image: ImageFile.ImageFile, data: bytes, name: str, max_pixels: int) -> None:
        self.image, self._data, self._name, self._max_pixels = image, data, name, max_pixels
        self.format, self.size = image.format or "", image.size
        self._is_tiff = self.format == "TIFF"
        tags = getattr(image, "tag_v2", {}) if self._is_tiff else {}
        self._description = str(tags.get(IMAGE_DESCRIPTION, ""))
        self._starts_smaller = self._is_smaller(0)
        if self._is_tiff and not has_more_frames(image):
            strips = tag_numbers(tags, STRIP_STARTS), tag_numbers(tags, STRIP_SIZES)
            refuse_hidden_pictures(self._description, *strips, len(data))

    def is_deep(self) -> bool:
        """See :class:`headstart.images.pages.PictureFile`."""
        return may_be_deep(self.image, self._data)

    def more(self) -> str:
        """See :class:`headstart.images.pages.PictureFile`."""
        if self.format == "PSD" or not has_more_frames(self.image):
            return ""
        if not self._is_tiff:
            return "first-view" if self.format in SINGLE_FORMATS else "first-frame"
        if self._joins_pages or self._starts_smaller:
            return "first-page" if len(self._pictures) > 1 else ""
        return "first-page" if any(not self._is_smaller(number) for number in self._further_pages()) else ""

    def n_pictures(self) -> int:
        """See :class:`headstart.images.pages.PictureFile`."""
        return len(self._pictures)

    def read(self, number: int, notes: list[str]) -> Samples:
        """See :class:`headstart.images.pages.PictureFile`."""
        pages = self._pictures[number] if number or self._joins_pages or self._starts_smaller else (0,)
        found: list[str] = []
        samples = joined([self._page(page, found) for page in pages], found)
        notes += [note for note in dict.fromkeys(found) if note not in notes]
        return samples

    @cached_property
    def _pictures(self) -> list[tuple[int, ...]]:
        """The pages of each picture."""
        if self.format in SINGLE_FORMATS:
            return [(0,)]
        if not self._is_tiff:
            return [(number,) for number in range(getattr(self.image, "n_frames", 1))]
        first = [] if self._starts_smaller else [0]
        pages = [*first, *(number for number in self._further_pages() if not self._is_smaller(number))]
        return pictures_of(self._description, pages or [0])

    @property
    def _joins_pages(self) -> bool:
        """Whether its description says that each picture is made of several pages."""
        return ("C", N_COLOURS) in axes_of(self._description)

    def _further_pages(self) -> Iterator[int]:
        """Yield the numbers of the pages behind the first, each sought; the last may be one that cannot be read."""
        for number in range(1, MAX_PAGES):
            try:
                self.image.seek(number)
            except EOFError:
                return
            except Exception:  # Pillow's readers raise nearly everything on a hostile file
                yield number
                return
            yield number
        raise ImageError(f"too large: it has {MAX_PAGES:,} pages or more")

    def _is_smaller(self, number: int) -> bool:
        """Return whether the page that was sought is a smaller version of another one, or a mask."""
        kind = tag_number(getattr(self.image, "tag_v2", {}), NEW_SUBFILE_TYPE, 0)
        return number == self.image.tell() and bool(kind & (REDUCED | MASK))

    def _reopened(self, number: int) -> ImageFile.ImageFile:
        """Return the file anew, at a page that is not loaded."""
        image = open_image(self._data, self._name)
        if number:
            image.seek(number)
        return image

    def _page(self, number: int, notes: list[str]) -> Samples:
        """Return the samples of a page, turned as the EXIF orientation says: a view, not a copy."""
        image = self.image
        if self.format not in SINGLE_FORMATS and number != image.tell():
            image.seek(number)
        check_size(image, self._max_pixels)
        refuse_missing_strips(image)
        rawmode = rawmode_of(image)
        if self._is_tiff:  # Pillow turns these while it loads them, and forgets that it did
            note_orientation(image, notes)
        samples = self._samples(image, rawmode, number, notes)
        if self._is_tiff:
            return samples
        orientation = note_orientation(image, notes)
        return turned(samples, orientation) if orientation in ORIENTATIONS else samples

    def _samples(self, image: ImageFile.ImageFile, rawmode: str, number: int, notes: list[str]) -> Samples:
        """Return the samples of a page as Pillow shows it."""
        if (samples := netpbm_samples(image, self._data)) is not None:
            return samples
        refuse_missing_rows(image, self._data)
        if is_16_bit_colour(image, rawmode):
            return colour_16_bit(rawmode, lambda: self._reopened(number))
        if loses_bits(image, self._data):
            notes.append("upper-bits")
        load(image)
        spread_transparency(image, self._data)
        return grey_samples(image, self._data) or deep_samples(image) or Samples(to_rgb(image, notes))


def joined(planes: Sequence[Samples], notes: list[str]) -> Samples:
    """Return the samples of a picture that is one page, or three that are its colours."""
    if len(planes) == 1:
        return planes[0]
    if "pages-are-colours" not in notes:
        notes.append("pages-are-colours")
    return replace(planes[0], values=np.stack([one_channel(plane) for plane in planes], axis=2))


def one_channel(samples: Samples) -> NDArray[Any]:
    """Return the samples of a grey page, shape (height, width).

    Raises
    ------
    ImageError
        If it is none: its pages cannot be the colours of one picture.
    """
    colours = samples.colours
    if (colours != colours[:, :, :1]).any():
        raise ImageError("its pages are named red, green and blue, but are not grey")
    return colours[:, :, 0]


def turned(samples: Samples, orientation: int) -> Samples:
    """Return samples turned upright: a view, not a copy."""
    return replace(samples, values=ORIENTATIONS[orientation][0](samples.values))


def note_orientation(image: Image.Image, notes: list[str]) -> int:
    """Return the EXIF orientation, and note it if it is not upright."""
    try:
        orientation = image.getexif().get(0x0112, 1)
        if orientation in ORIENTATIONS:
            notes.append(ORIENTATIONS[orientation][1])
            return int(orientation)
    except Exception:  # damaged metadata beside a sound picture; noted, since the rotation is then not known
        notes.append("exif-unreadable")
    return 1


def orientation_of(notes: list[str]) -> int:
    """Return the EXIF orientation that was noted."""
    return next((number for number, (_, note) in ORIENTATIONS.items() if note in notes), 1)


def has_more_frames(image: ImageFile.ImageFile) -> bool:
    """Return whether other frames or pages follow."""
    try:
        return is_animated(image)
    except Exception:  # the second frame is damaged, the first is sound
        return True
