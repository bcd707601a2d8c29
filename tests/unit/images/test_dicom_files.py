"""DICOM files of other kinds, without pixels or decoder, and damaged ones."""

from __future__ import annotations

import io
import struct
import sys

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    BasicTextSRStorage,
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from dicoms import by_pillow, dataset_of, dicom, written
from headstart.errors import ImageError
from headstart.images import dicom as transfer
from headstart.images.decode import decode
from headstart.images.discovery.scan import discover

RNG = np.random.default_rng(0)
CT = RNG.integers(0, 4096, (13, 17)).astype(np.uint16)
BYTES = RNG.integers(0, 256, (13, 17), dtype=np.uint8)


def test_files_without_preamble_or_suffix(tmp_path: object) -> None:
    dataset = dataset_of(CT, ImplicitVRLittleEndian, BitsStored=12)
    whole = written(dataset)
    bare = io.BytesIO()
    del dataset.file_meta
    pydicom.dcmwrite(bare, dataset, implicit_vr=True, little_endian=True, enforce_file_format=False)
    start = bare.getvalue().index(b"\x08\x00\x16\x00")
    np.testing.assert_array_equal(decode(bare.getvalue()[start:], name="x.DCM").pixels, decode(whole).pixels)
    with pytest.raises(ImageError, match="not an image"):
        decode(bare.getvalue()[start:], name="x.dat")
    folder = tmp_path / "ct"  # type: ignore[operator]
    folder.mkdir()
    for name in ("IM000001", "a.dcm", "DICOMDIR"):
        (folder / name).write_bytes(whole)
    assert [ref.path for ref in discover(tmp_path).refs] == ["ct/IM000001", "ct/a.dcm"]


def no_pixels(uid: str) -> bytes:
    dataset = dataset_of(BYTES)
    del dataset.PixelData, dataset.Rows
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid
    return written(dataset)


def no_decoder(syntax: str) -> bytes:
    dataset = dataset_of(CT, syntax)
    dataset.PixelData = pydicom.encaps.encapsulate([b"not looked at "])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return written(dataset, implicit_vr=False, little_endian=True)


def other_frame_size() -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(by_pillow(BYTES, JPEG2000Lossless)))
    dataset.Rows = 12
    return written(dataset)


def too_much_rle() -> bytes:
    dataset = dataset_of(BYTES, RLELossless)
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * 5000
    dataset.PixelData = pydicom.encaps.encapsulate([frame])
    return written(dataset)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (no_pixels(BasicTextSRStorage), "contains no picture: it is DICOM of the kind Basic Text SR Storage"),
        (no_pixels("1.2.3.4"), "contains no picture: it is DICOM without pixel data"),
        (dicom(CT)[:-9], "truncated"),
        (dicom(CT)[:700], "truncated|no picture"),
        (by_pillow(BYTES, JPEGBaseline8Bit)[:-200], "damaged|truncated"),
        (dicom(CT, PhotometricInterpretation="SECRET NAME"), "its photometric interpretation is not supported"),
        (dicom(CT, BitsStored=12, HighBit=15), "12 stored bits with bit 15 as the highest are not supported"),
        (dicom(CT, RescaleSlope=0), "slope and intercept are not usable"),
        (dicom(CT, Rows=0), "holds no pixels"),
        (dicom(CT, Rows=60000, Columns=60000), "too large: 60,000 × 60,000 pixels"),
        (dicom(CT, BitsStored=20), "damaged"),
        (no_decoder(JPEGLSLossless), r"transfer syntax JPEG-LS Lossless.*pip install pylibjpeg.*or decompress"),
        (no_decoder("1.2.840.10008.1.2.4.102"), "transfer syntax MPEG-4 .*: decompress it"),
        (by_pillow(CT * 16, JPEG2000Lossless, SamplesPerPixel=3, PhotometricInterpretation="RGB"), "16 bits"),
        (other_frame_size(), "claims 17 × 12 pixels, its frames have others"),
        (too_much_rle(), "larger than the pixels that it claims"),
    ],
)
def test_reasons(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decode(data, name="a.dcm")
    assert "SECRET" not in str(caught.value)


def test_deflated_files_are_not_unpacked_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "MAX_INFLATED_BYTES", 10_000)
    with pytest.raises(ImageError, match="decompresses to more than 10,000 bytes"):
        decode(dicom(np.zeros((100, 100), np.uint16), DeflatedExplicitVRLittleEndian))


def test_without_the_extra_the_message_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImageError, match=r'extra dicom: pip install "headstart\[dicom\]"'):
        decode(dicom(CT))
