"""DICOM files for tests, written by pydicom; every one carries a name that must never be printed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, generate_uid

#: The name of nobody, in the file of every test.
PATIENT = "SECRET^NAME"


def dataset_of(values: np.ndarray, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> FileDataset:
    """Return a file of one frame of shape (height, width), or of colours of shape (height, width, 3), or several of them."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["headstart"])
    meta.TransferSyntaxUID = syntax
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.set_original_encoding(meta.TransferSyntaxUID.is_implicit_VR, meta.TransferSyntaxUID.is_little_endian)
    is_colour = values.ndim >= 3 and values.shape[-1] == 3
    height, width = values.shape[-3:-1] if is_colour else values.shape[-2:]
    n_frames = values.size // (height * width * (3 if is_colour else 1))
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.PatientName = PATIENT
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = height, width, 3 if is_colour else 1
    dataset.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    if is_colour:
        dataset.PlanarConfiguration = 0
    if n_frames > 1:
        dataset.NumberOfFrames = n_frames
    if values.dtype.kind == "f":
        dataset.BitsAllocated = 8 * values.itemsize
        setattr(dataset, "FloatPixelData" if values.itemsize == 4 else "DoubleFloatPixelData", values.tobytes())
    else:
        dataset.BitsAllocated = dataset.BitsStored = 8 * values.itemsize
        dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(values.dtype.kind == "i")
        data = values.tobytes()
        dataset.PixelData = data + bytes(len(data) % 2)
        dataset["PixelData"].VR = "OB" if values.itemsize == 1 else "OW"
    for name, value in elements.items():
        setattr(dataset, name, value)
    if "BitsStored" in elements and "HighBit" not in elements:
        dataset.HighBit = dataset.BitsStored - 1
    return dataset


def written(dataset: FileDataset, **options: Any) -> bytes:
    """Return the bytes of a file."""
    file = io.BytesIO()
    dcmwrite(file, dataset, **{"enforce_file_format": True, **options})
    return file.getvalue()


def dicom(values: np.ndarray, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> bytes:
    """Return the bytes of a file; see :func:`dataset_of`."""
    return written(dataset_of(values, syntax, **elements))


def item(**elements: Any) -> Dataset:
    """Return an item of a sequence."""
    found = Dataset()
    for name, value in elements.items():
        setattr(found, name, value)
    if isinstance(elements.get("LUTData"), list):
        found["LUTData"].VR = "US"
    return found


def by_pillow(values: np.ndarray, syntax: str, frames: Sequence[np.ndarray] = (), **elements: Any) -> bytes:
    """Return a file whose frames are compressed by Pillow: JPEG, or JPEG 2000 without loss."""
    encoded = []
    for frame in frames or [values]:
        file = io.BytesIO()
        if syntax == JPEGBaseline8Bit:
            Image.fromarray(frame).save(file, "JPEG", quality=95)
        else:
            Image.fromarray(frame).save(file, "JPEG2000", irreversible=False, no_jp2=True, mct=int(values.ndim == 3))
        encoded.append(file.getvalue())
    dataset = dataset_of(values, syntax, **elements)
    if len(encoded) > 1:
        dataset.NumberOfFrames = len(encoded)
    dataset.PixelData = encapsulate(encoded)
    dataset["PixelData"].VR = "OB"
    if values.ndim == 3:
        dataset.PhotometricInterpretation = "YBR_RCT" if syntax == JPEG2000Lossless else "YBR_FULL_422"
    return written(dataset)
