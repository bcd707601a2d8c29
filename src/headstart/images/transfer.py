"""How the frames of a DICOM file are encoded, and who decodes them so that the same file has the same pixels everywhere.

Pillow decodes JPEG and JPEG 2000, pydicom itself RLE; lossless syntaxes of other kinds are left to whatever plugin of
pydicom is installed, since all of them give the same.
"""

from __future__ import annotations

import io
import re
import zlib
from typing import Any

from PIL import Image

from headstart.errors import ImageError

#: The elements that hold pixels, of which a picture has one.
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

#: Transfer syntaxes (PS3.6, table A-1): deflated; JPEG of 8 and of 12 bits; JPEG 2000; RLE.
DEFLATED, JPEG, JPEG_12_BIT = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
JPEG_2000, RLE = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"), "1.2.840.10008.1.2.5"

#: What decodes them.
PLUGINS = {JPEG: "pillow", JPEG_12_BIT: "pillow", **dict.fromkeys(JPEG_2000, "pillow"), RLE: "pydicom"}

#: Lossless ones of other kinds: JPEG (two), JPEG-LS, High-Throughput JPEG 2000 (two).
OTHER_LOSSLESS = (
    "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
)  # fmt: skip

#: Deflated files that unpack to more are refused.
MAX_INFLATED_BYTES = 2**30

#: RLE never needs more than so many bytes for one, and so many for a frame (PS3.5, annex G: a byte of length for each run of
#: two bytes or more; a header of 64 bytes and up to 15 segments, padded to even lengths).
RLE_GROWTH, RLE_HEADER_BYTES = 2, 128


def set_syntax(dataset: Any) -> None:
    """Name the transfer syntax of a file without file meta information, as pydicom has found it out."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def pixels_of(dataset: Any) -> str:
    """Return the name of the element that holds the pixels; nothing where there is none."""
    return next((name for name in PIXELS if name in dataset), "")


def plugin_of(dataset: Any) -> str:
    """Return the plugin that decodes the pixels; nothing where it does not matter which."""
    return PLUGINS.get(dataset.file_meta.TransferSyntaxUID, "")


def decoder_of(dataset: Any) -> Any:
    """Return pydicom's decoder of the pixels.

    Raises
    ------
    ImageError
        If there is none for the transfer syntax, or the result would depend on which one it is.
    """
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
        raise ImageError(unsupported(syntax, f" of {bits} bits" if beyond_pillow else ""))
    return decoder


def unsupported(syntax: Any, kind: str) -> str:
    """Return the reason of a transfer syntax that is not read, and what to do."""
    known = syntax.name != str(syntax) or re.fullmatch(r"[0-9.]{1,64}", syntax)
    name = f"{syntax.name} ({syntax})" if syntax.name != str(syntax) else str(syntax) if known else "that is no UID"
    plugin = "install a plugin of pydicom (pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg), or "
    return (
        f"not supported: transfer syntax {name}{kind}: {plugin if syntax in OTHER_LOSSLESS else ''}"
        "decompress it (gdcmconv --raw IN OUT, or dcmdjpeg IN OUT)"
    )


def refuse_inflated(data: bytes) -> None:
    """Raise ImageError for a deflated file that unpacks to more than a picture needs."""
    if DEFLATED.encode() not in data[132:1024]:
        return
    meta_end = 144 + int.from_bytes(
        data[140:144], "little"
    )  # (0002,0000), the first element, says where the group ends
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflater.decompress(data[meta_end:], MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise ImageError(f"too large: it unpacks to more than {MAX_INFLATED_BYTES:,} bytes")


def refuse_other_size(dataset: Any, number: int) -> None:
    """Raise ImageError for a compressed frame that would unpack to other pixels than the file claims."""
    from pydicom.encaps import get_frame

    offsets = None
    if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
        offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    n_frames = int(dataset.get("NumberOfFrames") or 1)
    frame = get_frame(dataset.PixelData, number, number_of_frames=n_frames, extended_offsets=offsets)
    claimed = (int(dataset.Columns), int(dataset.Rows))
    if plugin_of(dataset) == "pillow":
        with Image.open(io.BytesIO(frame), formats=("JPEG", "JPEG2000")) as image:
            if image.size != claimed:
                raise ImageError(
                    f"damaged: it claims {claimed[0]:,} × {claimed[1]:,} pixels, but its frames have others"
                )
    elif dataset.file_meta.TransferSyntaxUID == RLE:
        n_bytes = claimed[0] * claimed[1] * int(dataset.SamplesPerPixel) * int(dataset.BitsAllocated) // 8
        if len(frame) > RLE_GROWTH * n_bytes + RLE_HEADER_BYTES:
            raise ImageError("damaged: its frames hold more than the pixels that it claims")
