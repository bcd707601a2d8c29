"""Stored values of a DICOM frame to shown values (PS3.3, C.11.1 and C.11.2), lookup tables included."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import ImageError
from headstart.images.samples import Samples, to_levels, type_limits

COLOURS = ("Red", "Green", "Blue")

#: Elements of palettes.
PALETTE_ELEMENTS = tuple(
    f"{kind}{colour}PaletteColorLookupTable{part}"
    for colour in COLOURS
    for kind, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
)

#: Elements of grey frames.
GREY_ELEMENTS = (
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "WindowWidth",
    "VOILUTFunction", "PixelPaddingValue", "PixelPaddingRangeLimit", "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
)  # fmt: skip

#: Windows with larger centers or widths are ignored.
LARGEST = 1e15

#: Larger exponents make no difference to a float64 sigmoid.
MAX_EXPONENT = 500.0


@dataclass(frozen=True, slots=True)
class Table:
    """A lookup table (PS3.3, C.11.1.1 and C.11.2.1.1); values outside it take the first or the last entry."""

    first: int  # the value that maps to the first entry
    entries: tuple[int, ...]  # entries of the first and the following values
    bits: int

    @property
    def largest(self) -> int:
        """The largest possible entry."""
        return int(2**self.bits - 1)

    def look_up(self, values: NDArray[Any]) -> NDArray[np.uint16]:
        """Return the entries of values."""
        numbers = np.clip(np.floor(values).astype(np.int64) - self.first, 0, len(self.entries) - 1)
        entries: NDArray[np.uint16] = np.array(self.entries, np.uint16)[numbers]
        return entries

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return fractions of white."""
        return self.look_up(values) / self.largest


def _table_of(descriptor: Any, data: Any, *, little_endian: bool) -> Table:
    """Return the table of LUTDescriptor and LUTData, or of a palette's descriptor and data.

    8-bit entries come one a byte or one a word; data of representation OW or OB are bytes, others integers.
    """
    n_entries, first, bits = int(descriptor[0]) or 65536, int(descriptor[1]), int(descriptor[2])
    if isinstance(data, bytes):
        word = "u1" if bits <= 8 and len(data) < 2 * n_entries else "<u2" if little_endian else ">u2"
        data = np.frombuffer(data[: n_entries * np.dtype(word).itemsize], word)
    entries = np.atleast_1d(np.asarray(data))[:n_entries].astype(np.uint16)
    if len(entries) < 1 or not 8 <= bits <= 16:
        raise ImageError("damaged: one of its lookup tables has no entries, or no bits")
    if int(entries.max()) >= 2**bits:
        bits = 16
    return Table(first, tuple(entries.tolist()), bits)


def _table_in(item: Any, dataset: Any) -> Table:
    return _table_of(item.LUTDescriptor, item.LUTData, little_endian=dataset.original_encoding[1])


def palette_samples(values: NDArray[Any], dataset: Any) -> Samples:
    """Return the colours of a frame of palette indices, shape (height, width) (PS3.3, C.7.6.3.1.5 and C.7.9)."""
    if "RedPaletteColorLookupTableData" in dataset:
        little = dataset.original_encoding[1]
        pairs = [[dataset[f"{c}PaletteColorLookupTable{p}"].value for p in ("Descriptor", "Data")] for c in COLOURS]
        tables = [_table_of(descriptor, data, little_endian=little) for descriptor, data in pairs]
        colours = np.stack([table.look_up(values) for table in tables], axis=2)
        return Samples(to_levels(colours, (0.0, float(max(table.largest for table in tables))), []))
    from pydicom.pixels import apply_color_lut

    colours = apply_color_lut(values, dataset)[:, :, :3]
    return Samples(to_levels(colours, type_limits(colours.dtype), []))


@dataclass(frozen=True, slots=True)
class Window:
    """The line from black to white of VOILUTFunction LINEAR and LINEAR_EXACT (PS3.3, C.11.2.1.2.1 and C.11.2.1.3.2)."""

    low: float
    high: float

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return fractions of white."""
        return (np.clip(values.astype(np.float64), self.low, self.high) - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """The curve of VOILUTFunction SIGMOID (PS3.3, C.11.2.1.3.1)."""

    center: float
    width: float

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return fractions of white."""
        exponents = np.clip(-4 * (values.astype(np.float64) - self.center) / self.width, -MAX_EXPONENT, MAX_EXPONENT)
        return 1 / (1 + np.exp(exponents))


def grey_samples(values: NDArray[Any], dataset: Any, frame: int, notes: list[str]) -> Samples:
    """Return the values of a grey frame as they are shown; ``frame`` is its number, from 0."""
    is_white_zero = dataset.PhotometricInterpretation == "MONOCHROME1"
    padding = _padded(values, dataset)
    values, limits = _modality(values, dataset, _group(dataset, frame, "PixelValueTransformationSequence"))
    if padding is not None and padding.any() and not padding.all():
        values = _darkened(values, padding, is_white_zero)
        notes.append("padding")
    samples = Samples(values, limits, is_white_zero)
    return _with_window(samples, dataset, _group(dataset, frame, "FrameVOILUTSequence"), notes)


def _group(dataset: Any, frame: int, sequence: str) -> Any:
    """Return the functional group of a frame that has this sequence; the dataset itself if there is none."""
    for groups, number in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        items = dataset.get(groups) or ()
        if number < len(items) and items[number].get(sequence):
            return items[number].get(sequence)[0]
    return dataset


def stored_limits(dataset: Any) -> tuple[float, float] | None:
    """Return the lowest and the highest value that BitsStored allows; None for floats."""
    if "PixelData" not in dataset:
        return None
    bits, is_signed = int(dataset.BitsStored), dataset.PixelRepresentation == 1
    return (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if is_signed else (0.0, 2.0**bits - 1)


def _padded(values: NDArray[Any], dataset: Any) -> NDArray[np.bool_] | None:
    """Return which pixels are padding (PS3.3, C.7.5.1.1.2); None if the file defines no padding value."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    # The cast undoes e.g. −2,000 written as 63,536.
    ends = np.array([value, value if limit is None else limit], np.int64).astype(values.dtype)
    inside: NDArray[np.bool_] = (values >= ends.min()) & (values <= ends.max())
    return inside


def _darkened(values: NDArray[Any], padding: NDArray[np.bool_], is_white_zero: bool) -> NDArray[Any]:
    """Return values with the padding at most as bright as the darkest other pixel."""
    others = values[~padding]
    if is_white_zero:
        return np.where(padding, np.maximum(values, others.max()), values)
    return np.where(padding, np.minimum(values, others.min()), values)


def _modality(values: NDArray[Any], dataset: Any, item: Any) -> tuple[NDArray[Any], tuple[float, float] | None]:
    """Return the values after the modality transformation, and their possible range; None for floats.

    Unchanged 8-bit pixels stay uint8; other samples of 8 bits or fewer become int16.
    """
    limits = stored_limits(dataset)
    if tables := item.get("ModalityLUTSequence"):
        table = _table_in(tables[0], dataset)
        return table.look_up(values), (0.0, float(table.largest))
    slope, intercept = _number_of(item.get("RescaleSlope"), 1.0), _number_of(item.get("RescaleIntercept"), 0.0)
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept):
        raise ImageError("damaged: its rescale slope and intercept are not usable numbers")
    if (slope, intercept) == (1, 0):
        return (values if limits in {None, (0.0, 255.0)} or values.itemsize > 1 else values.astype(np.int16)), limits
    if limits is None:
        return values * slope + intercept, None
    low, high = sorted(end * slope + intercept for end in limits)
    whole = slope.is_integer() and intercept.is_integer() and max(-low, high) < 2**31
    if whole:
        return values.astype(np.int32) * np.int32(slope) + np.int32(intercept), (low, high)
    return values * np.float64(slope) + np.float64(intercept), (low, high)


def _with_window(samples: Samples, dataset: Any, item: Any, notes: list[str]) -> Samples:
    """Return samples with the first lookup table or window that the file names."""
    tables = item.get("VOILUTSequence")
    if tables and "LUTData" in tables[0]:
        notes.append("window")
        return replace(samples, values=_as_values(samples), curve=_table_in(tables[0], dataset))
    center, width = _first_number(item.get("WindowCenter")), _first_number(item.get("WindowWidth"))
    if center is None or width is None:
        return samples
    how = str(item.get("VOILUTFunction") or "LINEAR").strip().upper()
    smallest = {"LINEAR": 1.0, "LINEAR_EXACT": sys.float_info.min, "SIGMOID": sys.float_info.min}.get(how, math.inf)
    if not (smallest <= width < LARGEST and abs(center) < LARGEST):
        notes.append("window-unusable")
        return samples
    notes.append("window")
    samples = replace(samples, values=_as_values(samples))
    if how == "SIGMOID":
        return replace(samples, curve=Sigmoid(center, width))
    if how == "LINEAR":
        center, width = center - 0.5, width - 1
    low = center - width / 2
    return replace(samples, curve=Window(low, max(center + width / 2, math.nextafter(low, math.inf))))


def _as_values(samples: Samples) -> NDArray[Any]:
    """Return samples in a type other than uint8, which means final pixels."""
    return samples.values.astype(np.int16) if samples.values.dtype == np.uint8 else samples.values


def _number_of(value: Any, otherwise: float) -> float:
    found = _first_number(value)
    return otherwise if found is None else found


def _first_number(value: Any) -> float | None:
    """Return the first value of an element; None if it is missing or empty."""
    if value is None or isinstance(value, str | bytes):
        return None
    values = list(value) if isinstance(value, Iterable) else [value]
    return float(values[0]) if values and values[0] is not None else None
