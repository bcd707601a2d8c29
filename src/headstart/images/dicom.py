"""DICOM files of one frame or several: read by pydicom (extra ``dicom``), shown as the file says (images/grayscale.py).

Nothing but the elements below is looked at, and no value of an element becomes part of a message: errors of pydicom, whose
text may hold some, are told by their type alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import HeadstartError, ImageError
from headstart.images.extras import import_reader
from headstart.images.formats import DICOM_MARK, DICOM_MARK_AT, DICOM_SUFFIXES, HEAD_BYTES, has_magic, suffix_of
from headstart.images.grayscale import GREY_ELEMENTS, grey_samples, stored_limits
from headstart.images.lookup import PALETTE_ELEMENTS, palette_samples
from headstart.images.reader import refuse_large
from headstart.images.samples import Samples
from headstart.images.transfer import (
    PIXELS,
    decoder_of,
    pixels_of,
    plugin_of,
    refuse_inflated,
    refuse_other_size,
    set_syntax,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Version of what becomes of these files, noted with each of them. A change that gives other pixels gives another number.
RULES = "dicom-1"

#: The first bytes of files without preamble: group 2 or 8 of an element, little endian.
BARE = (b"\x02\x00", b"\x08\x00")

#: What is read of a file.
ELEMENTS = (
    "SOPClassUID", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    *PIXELS, *GREY_ELEMENTS, *PALETTE_ELEMENTS,
)  # fmt: skip

#: Kind of the index of a disk (PS3.6, table A-1).
DIRECTORY = "1.2.840.10008.1.3.10"

#: Photometric interpretations of one sample a pixel, and those of three that pydicom makes RGB of (PS3.3, C.7.6.3.1.2).
GREY = ("MONOCHROME1", "MONOCHROME2")
ONE_SAMPLE = (*GREY, "PALETTE COLOR")
THREE_SAMPLES = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def is_dicom(data: bytes, name: str) -> bool:
    """Return whether a file is DICOM: by its mark, or by its suffix and the group of its first element.

    The preamble before the mark may make it another image as well: then the suffix decides.
    """
    named_so = suffix_of(name) in DICOM_SUFFIXES
    if data[DICOM_MARK_AT:HEAD_BYTES] == DICOM_MARK:
        return named_so or not has_magic(data[:DICOM_MARK_AT])
    return named_so and data.startswith(BARE)


class DicomFile:
    """A DICOM file; see :class:`headstart.images.pages.PictureFile`.

    Parameters
    ----------
    data : bytes
        The whole file.
    max_pixels : int
        Frames of more pixels are refused before they are decoded.

    Raises
    ------
    ImageError
        If pydicom is not installed, or the file holds no picture, or one that is too large or not supported.
    """

    format = "DICOM"

    def __init__(self, data: bytes, max_pixels: int) -> None:
        pydicom = import_reader("pydicom", extra="dicom", kind="DICOM")
        with errors_without_values():
            refuse_inflated(data)
            self._dataset = dataset = pydicom.dcmread(io.BytesIO(data), force=True, specific_tags=list(ELEMENTS))
            set_syntax(dataset)
            refuse_without_pixels(dataset)
            self.size = (int(dataset.Columns), int(dataset.Rows))
            refuse_large(*self.size, max_pixels)
            check_kind(dataset)
            self._decoder = decoder_of(dataset)

    def is_deep(self) -> bool:
        """See :class:`headstart.images.pages.PictureFile`."""
        with errors_without_values():
            return self._dataset.PhotometricInterpretation in GREY or int(self._dataset.BitsAllocated) > 8

    def more(self) -> str:
        """See :class:`headstart.images.pages.PictureFile`."""
        return "first-frame" if self.n_pictures() > 1 else ""

    def n_pictures(self) -> int:
        """See :class:`headstart.images.pages.PictureFile`."""
        with errors_without_values():
            return n_frames(self._dataset)

    def read(self, number: int, notes: list[str]) -> Samples:
        """See :class:`headstart.images.pages.PictureFile`."""
        found = [RULES]
        with errors_without_values():
            samples = self._samples(number, found)
        notes += [note for note in found if note not in notes]
        return samples

    def _samples(self, number: int, notes: list[str]) -> Samples:
        """Return a frame as the file says that it is shown."""
        dataset = self._dataset
        values = self._stored(number)
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            return palette_samples(values, dataset)
        if values.ndim == 2:
            return grey_samples(values, dataset, number, notes)
        limits = stored_limits(dataset)
        return Samples(values if limits == (0, 255) else values.astype(np.uint16), limits)

    def _stored(self, number: int) -> NDArray[Any]:
        """Return the stored values of a frame, shape (height, width), or of its colours, shape (height, width, 3)."""
        dataset = self._dataset
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            refuse_other_size(dataset, number)
        elif len(dataset[pixels_of(dataset)].value) < native_bytes(dataset):
            raise ImageError("truncated: the file ends before the picture does")
        plugin = plugin_of(dataset)
        values, _ = self._decoder.as_array(dataset, index=number, decoding_plugin=plugin, allow_excess_frames=False)
        return values  # type: ignore[no-any-return]


@contextmanager
def errors_without_values() -> Iterator[None]:
    """Turn what pydicom raises into ImageError, without its text."""
    try:
        yield
    except (HeadstartError, MemoryError):
        raise
    except Exception as error:
        raise ImageError(f"damaged: its DICOM elements or pixels cannot be read ({type(error).__name__})") from None


def n_frames(dataset: Any) -> int:
    """Return how many frames there are."""
    return int(dataset.get("NumberOfFrames") or 1)


def native_bytes(dataset: Any) -> int:
    """Return how many bytes the frames take that are not compressed."""
    n_samples = int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel)
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        n_samples = n_samples // 3 * 2
    return n_frames(dataset) * n_samples * int(dataset.BitsAllocated) // 8


def refuse_without_pixels(dataset: Any) -> None:
    """Raise ImageError for reports, plans, indices and whatever else DICOM stores besides pictures."""
    if pixels_of(dataset):
        return
    uid = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    if "Rows" in dataset or (not len(dataset) and uid != DIRECTORY):
        raise ImageError("truncated or damaged: the file ends before its pixels")
    known = uid is not None and uid.name != str(uid)
    raise ImageError(f"holds no picture: it is DICOM{f' of the kind {uid.name}' if known else ' without pixel data'}")


def check_kind(dataset: Any) -> None:
    """Raise ImageError for pixels that are not read: other colour spaces, samples that do not begin at the lowest bit."""
    interpretation, n_samples = dataset.PhotometricInterpretation, int(dataset.SamplesPerPixel)
    expected = ONE_SAMPLE if n_samples == 1 else THREE_SAMPLES if n_samples == 3 else ()
    if interpretation not in expected:
        known = interpretation in {
            *ONE_SAMPLE,
            *THREE_SAMPLES,
            "YBR_PARTIAL_422",
            "YBR_PARTIAL_420",
            "CMYK",
            "HSV",
            "ARGB",
        }
        kind = f"{interpretation} of {n_samples} samples" if known else "its photometric interpretation"
        raise ImageError(f"{kind} is not supported: convert it to MONOCHROME2 or RGB, or to JPEG, PNG or TIFF")
    high_bit, bits = dataset.get("HighBit"), dataset.get("BitsStored")
    if pixels_of(dataset) == "PixelData" and high_bit is not None and high_bit != bits - 1:
        raise ImageError(
            f"{bits} bits stored of which the highest is bit {high_bit} are not supported: convert it to start at bit 0"
        )
