"""DICOM files of one or more frames, read by pydicom (extra ``dicom``)."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.errors import HeadstartError, ImageError
from headstart.images.dicom_grayscale import (
    GREY_ELEMENTS,
    PALETTE_ELEMENTS,
    grey_samples,
    palette_samples,
    stored_limits,
)
from headstart.images.formats import import_reader
from headstart.images.samples import PictureFile, Samples, add_notes, refuse_large

#: The elements with pixels; a picture has one of them.
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

#: Transfer syntaxes (PS3.6, table A-1).
DEFLATED, JPEG, JPEG_12_BIT = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
JPEG_2000, RLE = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"), "1.2.840.10008.1.2.5"

#: Transfer syntax → the decoder plugin of pydicom that is used.
PLUGINS = {JPEG: "pillow", JPEG_12_BIT: "pillow", **dict.fromkeys(JPEG_2000, "pillow"), RLE: "pydicom"}

#: Lossless transfer syntaxes that any plugin may decode: JPEG (two), JPEG-LS, High-Throughput JPEG 2000 (two).
OTHER_LOSSLESS = (
    "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
)  # fmt: skip

#: Deflated files that decompress to more are refused.
MAX_INFLATED_BYTES = 2**30

#: RLE needs at most this many bytes for each byte, and for each frame (PS3.5, annex G: a length byte for each run of two
#: bytes or more; a header of 64 bytes and up to 15 segments, padded to even lengths).
RLE_GROWTH, RLE_HEADER_BYTES = 2, 128

#: Version of the conversion, noted for each image. A change of the resulting pixels needs a new number.
RULES = "dicom-1"

#: The elements that are read.
ELEMENTS = (
    "SOPClassUID", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    *PIXELS, *GREY_ELEMENTS, *PALETTE_ELEMENTS,
)  # fmt: skip

#: SOP class of a DICOMDIR (PS3.6, table A-1).
DIRECTORY = "1.2.840.10008.1.3.10"

#: Photometric interpretations of one sample a pixel, and those of three that pydicom converts to RGB (PS3.3, C.7.6.3.1.2).
GREY = ("MONOCHROME1", "MONOCHROME2")
ONE_SAMPLE = (*GREY, "PALETTE COLOR")
THREE_SAMPLES = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")

#: Others of the standard, which are not read.
UNREAD = ("YBR_PARTIAL_422", "YBR_PARTIAL_420", "CMYK", "HSV", "ARGB")


class DicomFile(PictureFile):
    """A DICOM file; frames of more than ``max_pixels`` are refused before they are decoded."""

    format = "DICOM"

    def __init__(self, data: bytes, max_pixels: int) -> None:
        pydicom = import_reader("pydicom", extra="dicom", kind="DICOM")
        with _errors_without_values():
            _refuse_inflated(data)
            self._dataset = dataset = pydicom.dcmread(io.BytesIO(data), force=True, specific_tags=list(ELEMENTS))
            _set_syntax(dataset)
            _refuse_without_pixels(dataset)
            self.size = (int(dataset.Columns), int(dataset.Rows))
            refuse_large(*self.size, max_pixels)
            _check_photometric(dataset)
            self._decoder = _decoder_of(dataset)

    def is_deep(self) -> bool:
        with _errors_without_values():
            return self._dataset.PhotometricInterpretation in GREY or int(self._dataset.BitsAllocated) > 8

    def n_pictures(self) -> int:
        with _errors_without_values():
            return _n_frames(self._dataset)

    def read(self, number: int, notes: list[str]) -> Samples:
        found = [RULES]
        with _errors_without_values():
            samples = self._samples(number, found)
        add_notes(notes, found)
        return samples

    def _samples(self, number: int, notes: list[str]) -> Samples:
        dataset = self._dataset
        values = self._stored(number)
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            return palette_samples(values, dataset)
        if values.ndim == 2:
            return grey_samples(values, dataset, number, notes)
        limits = stored_limits(dataset)
        return Samples(values if limits == (0, 255) else values.astype(np.uint16), limits)

    def _stored(self, number: int) -> NDArray[Any]:
        """Return the stored values of a frame, shape (height, width) or (height, width, 3)."""
        dataset = self._dataset
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            _refuse_other_size(dataset, number)
        elif len(dataset[_pixels_of(dataset)].value) < _native_bytes(dataset):
            raise ImageError("truncated: the file ends before the picture does")
        plugin = _plugin_of(dataset)
        values, _ = self._decoder.as_array(dataset, index=number, decoding_plugin=plugin, allow_excess_frames=False)
        return values  # type: ignore[no-any-return]


def _set_syntax(dataset: Any) -> None:
    """Set the transfer syntax of a file without file meta information, as pydicom detected it."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _pixels_of(dataset: Any) -> str:
    """Return the name of the element with the pixels; empty if there is none."""
    return next((name for name in PIXELS if name in dataset), "")


def _plugin_of(dataset: Any) -> str:
    return PLUGINS.get(dataset.file_meta.TransferSyntaxUID, "")


def _decoder_of(dataset: Any) -> Any:
    """Return pydicom's decoder of the pixels; raise ImageError if there is none, or the result would depend on the plugin."""
    from pydicom.pixels import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    readable = not syntax.is_compressed or syntax in {DEFLATED, *PLUGINS, *OTHER_LOSSLESS}
    bits, n_samples = int(dataset.get("BitsStored") or 0), int(dataset.SamplesPerPixel)
    beyond_pillow = bits > 8 and (syntax == JPEG_12_BIT or (syntax in JPEG_2000 and n_samples > 1))
    if readable and not beyond_pillow:
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError:
            readable = False
        else:
            readable = decoder.is_available
    if not readable or beyond_pillow:
        raise ImageError(_unsupported(syntax, f" of {bits} bits" if beyond_pillow else ""))
    return decoder


def _unsupported(syntax: Any, kind: str) -> str:
    known = syntax.name != str(syntax) or re.fullmatch(r"[0-9.]{1,64}", syntax)
    name = f"{syntax.name} ({syntax})" if syntax.name != str(syntax) else str(syntax) if known else "that is no UID"
    plugin = "install a plugin of pydicom (pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg), or "
    return (
        f"not supported: transfer syntax {name}{kind}: {plugin if syntax in OTHER_LOSSLESS else ''}"
        "decompress it (gdcmconv --raw IN OUT, or dcmdjpeg IN OUT)"
    )


def _refuse_inflated(data: bytes) -> None:
    if DEFLATED.encode() not in data[132:1024]:
        return
    meta_end = 144 + int.from_bytes(data[140:144], "little")  # (0002,0000), the first element: length of the group
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflater.decompress(data[meta_end:], MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise ImageError(f"too large: it decompresses to more than {MAX_INFLATED_BYTES:,} bytes")


def _refuse_other_size(dataset: Any, number: int) -> None:
    """Raise ImageError for a compressed frame that would decompress to other pixels than the file claims."""
    from pydicom.encaps import get_frame

    offsets = None
    if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
        offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    frame = get_frame(dataset.PixelData, number, number_of_frames=_n_frames(dataset), extended_offsets=offsets)
    claimed = (int(dataset.Columns), int(dataset.Rows))
    if _plugin_of(dataset) == "pillow":
        with Image.open(io.BytesIO(frame), formats=("JPEG", "JPEG2000")) as image:
            if image.size != claimed:
                raise ImageError(f"damaged: it claims {claimed[0]:,} × {claimed[1]:,} pixels, its frames have others")
    elif dataset.file_meta.TransferSyntaxUID == RLE:
        n_bytes = claimed[0] * claimed[1] * int(dataset.SamplesPerPixel) * int(dataset.BitsAllocated) // 8
        if len(frame) > RLE_GROWTH * n_bytes + RLE_HEADER_BYTES:
            raise ImageError("damaged: its frames are larger than the pixels that it claims")


@contextmanager
def _errors_without_values() -> Iterator[None]:
    """Turn errors of pydicom into ImageError without their text, which may contain patient data."""
    try:
        yield
    except (HeadstartError, MemoryError):
        raise
    except Exception as error:
        raise ImageError(f"damaged: its DICOM elements or pixels cannot be read ({type(error).__name__})") from None


def _n_frames(dataset: Any) -> int:
    return int(dataset.get("NumberOfFrames") or 1)


def _native_bytes(dataset: Any) -> int:
    n_samples = int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel)
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        n_samples = n_samples // 3 * 2
    return _n_frames(dataset) * n_samples * int(dataset.BitsAllocated) // 8


def _refuse_without_pixels(dataset: Any) -> None:
    """Raise ImageError for DICOM objects other than images, e.g. reports, plans and directories."""
    if _pixels_of(dataset):
        return
    uid = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    if "Rows" in dataset or (not len(dataset) and uid != DIRECTORY):
        raise ImageError("truncated or damaged: the file ends before its pixels")
    known = uid is not None and uid.name != str(uid)
    raise ImageError(
        f"contains no picture: it is DICOM{f' of the kind {uid.name}' if known else ' without pixel data'}"
    )


def _check_photometric(dataset: Any) -> None:
    """Raise ImageError for other colour spaces, and for samples that do not start at the lowest bit."""
    interpretation, n_samples = dataset.PhotometricInterpretation, int(dataset.SamplesPerPixel)
    expected = ONE_SAMPLE if n_samples == 1 else THREE_SAMPLES if n_samples == 3 else ()
    if interpretation not in expected:
        known = interpretation in {*ONE_SAMPLE, *THREE_SAMPLES, *UNREAD}
        kind = f"{interpretation} of {n_samples} samples" if known else "its photometric interpretation"
        raise ImageError(f"{kind} is not supported: convert it to MONOCHROME2 or RGB, or to JPEG, PNG or TIFF")
    high_bit, bits = dataset.get("HighBit"), dataset.get("BitsStored")
    if _pixels_of(dataset) == "PixelData" and high_bit is not None and high_bit != bits - 1:
        raise ImageError(
            f"{bits} stored bits with bit {high_bit} as the highest are not supported: convert it to start at bit 0"
        )
