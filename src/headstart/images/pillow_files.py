"""Files read by Pillow: the reader is chosen by content; truncated files are detected."""

from __future__ import annotations

import io
import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.ExifTags import Base as Tag

from headstart.errors import ImageError
from headstart.images import pillow_samples, tiff_tags
from headstart.images.formats import RAW_SUFFIXES, readers, suffix_of, unidentified
from headstart.images.heic_jpeg2000 import grey_samples
from headstart.images.samples import PictureFile, Samples, add_notes, refuse_large

Reader: TypeAlias = tuple[Callable[[IO[bytes], str | bytes], ImageFile.ImageFile], Callable[[bytes], bool | str] | None]

#: Limit of pixels for formats whose readers are written in Python and slow.
MAX_SLOW_PIXELS = 8_000_000
SLOW_FORMATS = frozenset({"QOI"})

CAMERA_RAW = "camera raw is not supported: convert it to JPEG, PNG or TIFF"

#: Modules whose warnings are ignored; those of pydicom may contain patient data.
PILLOW = r"(PIL|pillow_heif|pydicom)\."

_filtering, _loading = threading.Lock(), threading.Lock()

# Pillow logs what it also raises; without a handler, Python would print it.
logging.getLogger("PIL").addHandler(logging.NullHandler())

#: Colour type → samples per pixel (PNG, third edition, table 8).
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

#: First column and row, and steps, of the seven passes of Adam7 (PNG, third edition, table 14).
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

#: Bytes that are decompressed at once.
STEP_BYTES = 2**20

#: Formats whose further frames are not pages but layers, other views or maps.
SINGLE_FORMATS = frozenset({"MPO", "PSD"})

#: Limit of pages where they have to be counted.
MAX_PAGES = 10_000

#: EXIF orientation → function that turns the image upright, and its note (EXIF 2.32, tag 0x0112).
ORIENTATIONS: dict[int, tuple[Callable[[NDArray[Any]], NDArray[Any]], str]] = {
    2: (lambda pixels: pixels[:, ::-1], "exif-mirrored"),
    3: (lambda pixels: pixels[::-1, ::-1], "exif-rotated-180"),
    4: (lambda pixels: pixels[::-1], "exif-flipped"),
    5: (lambda pixels: pixels.swapaxes(0, 1), "exif-transposed"),
    6: (lambda pixels: pixels[::-1].swapaxes(0, 1), "exif-rotated-90"),
    7: (lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1), "exif-transversed"),
    8: (lambda pixels: pixels[:, ::-1].swapaxes(0, 1), "exif-rotated-270"),
}


def open_image(data: bytes, name: str) -> ImageFile.ImageFile:
    """Return the image, opened by the first reader that accepts it; raise ImageError if none does.

    Unlike ``Image.open``, without a process-wide limit of pixels: the caller checks the size.
    """
    refusals = []
    for format_name in readers(data, name):
        if format_name not in _registered_readers():
            continue
        factory, accept = _registered_readers()[format_name]
        accepted = accept(data[:16]) if accept else True
        try:
            if isinstance(accepted, str):  # this Pillow was built without the format
                refusals.append(accepted)
            elif accepted:
                return factory(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:  # a reader's way to say "not mine"
            refusals.append(f"{format_name}: {error}")
    raise ImageError(unidentified(data, name, refusals))


@cache
def _registered_readers() -> dict[str, Reader]:
    """Return format → reader, and a test of the first 16 bytes."""
    Image.init()
    return dict(Image.OPEN)


def check_size(image: Image.Image, max_pixels: int) -> None:
    """Raise ImageError for an image that claims more pixels than are decoded, or none."""
    limit = min(max_pixels, MAX_SLOW_PIXELS) if image.format in SLOW_FORMATS else max_pixels
    refuse_large(*image.size, limit, f" of {image.format}" if limit < max_pixels else "")


def refuse_camera_raw(image: ImageFile.ImageFile, name: str) -> None:
    """Raise ImageError for camera raw files, whose first picture is a preview of some hundred pixels."""
    if image.format == "TIFF" and is_camera_raw(pillow_samples.tags_of(image), name):
        raise ImageError(CAMERA_RAW)


def is_camera_raw(tags: Mapping[int, Any], name: str) -> bool:
    """Return whether a TIFF with these tags is camera raw."""
    preview = tags.get(Tag.NewSubfileType) == tiff_tags.REDUCED and Tag.SubIFDs in tags
    return suffix_of(name) in RAW_SUFFIXES or Tag.DNGVersion in tags or preview


def _refuse_missing_strips(image: ImageFile.ImageFile) -> None:
    """Raise ImageError if the strips or tiles of a TIFF do not cover the image: Pillow would leave the rest black."""
    extents = [tile.extents for tile in image.tile if tile.extents] if image.format == "TIFF" else []
    covered = max((right for _, _, right, _ in extents), default=0) * max((bottom for *_, bottom in extents), default=0)
    if extents and covered < image.width * image.height:
        raise ImageError(
            f"damaged: it claims {image.width:,} × {image.height:,} pixels, but contains only {int(covered):,} of "
            f"{image.width * image.height:,}"
        )


def ignore_pillow_warnings() -> None:
    """Put the filter for Pillow's warnings first, unless it is.

    ``warnings.catch_warnings`` is not thread-safe.
    """
    first = warnings.filters[0] if warnings.filters else None
    pattern = getattr(first[3], "pattern", None) if first else None
    if first is None or first[0] != "ignore" or pattern != PILLOW:
        with _filtering:
            warnings.filterwarnings("ignore", module=PILLOW)


def _refuse_missing_rows(image: ImageFile.ImageFile, data: bytes) -> None:
    """Raise ImageError if the data of a PNG, which is loaded for it, fill only a part of it.

    They are decompressed again only if the last row is black, as missing ones are, or the rows are interlaced.
    """
    if image.format != "PNG" or data[12:16] != b"IHDR":
        return
    image.load()
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if not interlaced and any(image.crop((0, image.height - 1, image.width, image.height)).tobytes()):
        return
    pixel_bits = bits * SAMPLES.get(colour, 1)
    expected = 0
    for left, top, x_step, y_step in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = len(range(left, width, x_step)), len(range(top, height, y_step))
        expected += rows * (1 + (columns * pixel_bits + 7) // 8) if columns else 0
    found = _unpacked_bytes(data, expected)
    if found < expected:
        raise ImageError(f"truncated: it holds {found:,} of the {expected:,} bytes of its rows")


def _spread_transparency(image: ImageFile.ImageFile, data: bytes) -> None:
    """Scale the transparent value of a grey PNG of 2 or 4 bits to 8, as Pillow does with the samples only."""
    transparent = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "L" and isinstance(transparent, int) and data[24:25] in {b"\2", b"\4"}:
        image.info["transparency"] = transparent * 255 // (2 ** data[24] - 1)


def _unpacked_bytes(data: bytes, enough: int) -> int:
    """Return how many bytes the picture data of a PNG decompress to, at most ``enough``: later data may be damaged."""
    inflate, found = zlib.decompressobj(), 0
    for chunk in _picture_data(data):
        rest: bytes = chunk
        while rest and found < enough:
            found += len(inflate.decompress(rest, min(STEP_BYTES, enough - found)))
            rest = inflate.unconsumed_tail
    return found


def _picture_data(data: bytes) -> Iterator[bytes]:
    start = 8
    while start + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        if kind == b"IDAT":
            yield data[start + 8 : start + 8 + length]
        start += 12 + length


class PillowFile(PictureFile):
    """A file read by Pillow."""

    def __init__(self, image: ImageFile.ImageFile, data: bytes, name: str, max_pixels: int) -> None:
        self.image, self._data, self._name, self._max_pixels = image, data, name, max_pixels
        self.format, self.size = image.format or "", image.size
        self._is_tiff = self.format == "TIFF"
        tags = pillow_samples.tags_of(image)
        self._description = str(tags.get(Tag.ImageDescription, ""))
        self._starts_smaller = self._is_smaller(0)
        if self._is_tiff and not _has_more_frames(image):
            strips = tiff_tags.tag_numbers(tags, Tag.StripOffsets), tiff_tags.tag_numbers(tags, Tag.StripByteCounts)
            tiff_tags.refuse_hidden_pictures(self._description, *strips, len(data))

    def is_deep(self) -> bool:
        return pillow_samples.may_be_deep(self.image, self._data)

    def more(self) -> str:
        if self.format == "PSD" or not _has_more_frames(self.image):
            return ""
        if not self._is_tiff:
            return "first-view" if self.format in SINGLE_FORMATS else "first-frame"
        if self._joins_pages or self._starts_smaller:
            return "first-page" if len(self._pictures) > 1 else ""
        return "first-page" if any(not self._is_smaller(number) for number in self._further_pages()) else ""

    def n_pictures(self) -> int:
        return len(self._pictures)

    def read(self, number: int, notes: list[str]) -> Samples:
        pages = self._pictures[number] if number or self._joins_pages or self._starts_smaller else (0,)
        found: list[str] = []
        samples = joined([self._page(page, found) for page in pages], found)
        add_notes(notes, found)
        return samples

    @cached_property
    def _pictures(self) -> list[tuple[int, ...]]:
        if self.format in SINGLE_FORMATS:
            return [(0,)]
        if not self._is_tiff:
            return [(number,) for number in range(getattr(self.image, "n_frames", 1))]
        first = [] if self._starts_smaller else [0]
        pages = [*first, *(number for number in self._further_pages() if not self._is_smaller(number))]
        return tiff_tags.pictures_of(self._description, pages or [0])

    @property
    def _joins_pages(self) -> bool:
        """Whether each picture is made of several pages, according to the description."""
        return ("C", tiff_tags.N_COLOURS) in tiff_tags.axes_of(self._description)

    def _further_pages(self) -> Iterator[int]:
        """Yield the numbers of the pages after the first, seeking each; the last may be unreadable."""
        for number in range(1, MAX_PAGES):
            try:
                self.image.seek(number)
            except EOFError:
                return
            except Exception:  # Pillow's readers may raise anything on a damaged file
                yield number
                return
            yield number
        raise ImageError(f"too large: it has {MAX_PAGES:,} pages or more")

    def _is_smaller(self, number: int) -> bool:
        """Return whether the current page is a reduced version of another one, or a mask."""
        kind = tiff_tags.tag_number(pillow_samples.tags_of(self.image), Tag.NewSubfileType, 0)
        return number == self.image.tell() and bool(kind & (tiff_tags.REDUCED | tiff_tags.MASK))

    def _reopened(self, number: int) -> ImageFile.ImageFile:
        """Return the file opened again, at a page that is not loaded."""
        image = open_image(self._data, self._name)
        if number:
            image.seek(number)
        return image

    def _page(self, number: int, notes: list[str]) -> Samples:
        """Return the samples of a page, turned by its EXIF orientation: a view, not a copy."""
        image = self.image
        if self.format not in SINGLE_FORMATS and number != image.tell():
            image.seek(number)
        check_size(image, self._max_pixels)
        _refuse_missing_strips(image)
        rawmode = pillow_samples.rawmode_of(image)
        if self._is_tiff:  # Pillow turns these on loading, and removes the tag
            _note_orientation(image, notes)
        samples = self._samples(image, rawmode, number, notes)
        if self._is_tiff:
            return samples
        orientation = _note_orientation(image, notes)
        return turned(samples, orientation) if orientation in ORIENTATIONS else samples

    def _samples(self, image: ImageFile.ImageFile, rawmode: str, number: int, notes: list[str]) -> Samples:
        if (samples := pillow_samples.netpbm_samples(image, self._data)) is not None:
            return samples
        _refuse_missing_rows(image, self._data)
        if pillow_samples.is_16_bit_colour(image, rawmode):
            return pillow_samples.colour_16_bit(rawmode, lambda: self._reopened(number))
        if pillow_samples.loses_bits(image, self._data):
            notes.append("upper-bits")
        pillow_samples.load(image)
        _spread_transparency(image, self._data)
        return (
            grey_samples(image, self._data)
            or pillow_samples.deep_samples(image)
            or Samples(pillow_samples.to_rgb(image, notes))
        )


class PillowImage(PictureFile):
    """An image that the caller has opened with Pillow or made of an array: what Pillow decodes of its current frame."""

    def __init__(self, image: Image.Image, max_pixels: int) -> None:
        check_size(image, max_pixels)
        self.image, self.format, self.size = image, image.format or "", image.size

    def read(self, number: int, notes: list[str]) -> Samples:
        image, orientation = self.image, 1
        with _loading:  # the same image may be given twice, and Pillow loads it in one thread only
            if pillow_samples.is_16_bit_colour(image, pillow_samples.rawmode_of(image)):
                notes.append("upper-bits")
            if image.format == "TIFF":  # see PillowFile
                _note_orientation(image, notes)
            image.load()
            if image.format != "TIFF":
                orientation = _note_orientation(image, notes)
        samples = pillow_samples.deep_samples(image) or Samples(pillow_samples.to_rgb(image, notes))
        return turned(samples, orientation) if orientation in ORIENTATIONS else samples


def joined(planes: Sequence[Samples], notes: list[str]) -> Samples:
    """Return the samples of a picture of one page, or of three that are its colours."""
    if len(planes) == 1:
        return planes[0]
    add_notes(notes, ["pages-are-colours"])
    return replace(planes[0], values=np.stack([_one_channel(plane) for plane in planes], axis=2))


def _one_channel(samples: Samples) -> NDArray[Any]:
    """Return the samples of a grey page, shape (height, width); raise ImageError for a colour page."""
    colours = samples.colours
    if (colours != colours[:, :, :1]).any():
        raise ImageError("its pages are named red, green and blue, but are not grey")
    return colours[:, :, 0]


def turned(samples: Samples, orientation: int) -> Samples:
    """Return samples turned upright: a view, not a copy."""
    return replace(samples, values=ORIENTATIONS[orientation][0](samples.values))


def _note_orientation(image: Image.Image, notes: list[str]) -> int:
    """Return the EXIF orientation, and note it if it is not upright."""
    try:
        orientation = image.getexif().get(Tag.Orientation, 1)
        if orientation in ORIENTATIONS:
            notes.append(ORIENTATIONS[orientation][1])
            return int(orientation)
    except Exception:  # damaged metadata of an intact picture
        notes.append("exif-unreadable")
    return 1


def orientation_of(notes: list[str]) -> int:
    """Return the EXIF orientation that was noted."""
    return next((number for number, (_, note) in ORIENTATIONS.items() if note in notes), 1)


def _has_more_frames(image: ImageFile.ImageFile) -> bool:
    try:
        return pillow_samples.is_animated(image)
    except Exception:  # the second frame is damaged
        return True
