"""Lookup tables of DICOM: of values (PS3.3, C.11.1.1 and C.11.2.1.1), and of colours (C.7.6.3.1.5 and C.7.9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import ImageError
from headstart.images.samples import Samples, to_levels, type_limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The tables of a palette.
COLOURS = ("Red", "Green", "Blue")

#: What is read of a file for them.
PALETTE_ELEMENTS = tuple(
    f"{kind}{colour}PaletteColorLookupTable{part}"
    for colour in COLOURS
    for kind, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
)


@dataclass(frozen=True, slots=True)
class Table:
    """A lookup table (PS3.3, C.11.1.1 and C.11.2.1.1): values below the first take its entry, values above the last that.

    Attributes
    ----------
    first : int
        The value of the first entry.
    entries : tuple of int
        What becomes of it and of those that follow.
    bits : int
        Bits of an entry.
    """

    first: int
    entries: tuple[int, ...]
    bits: int

    @property
    def largest(self) -> int:
        """The largest entry that there can be."""
        return int(2**self.bits - 1)

    def look_up(self, values: NDArray[Any]) -> NDArray[np.uint16]:
        """Return the entries of values."""
        numbers = np.clip(np.floor(values).astype(np.int64) - self.first, 0, len(self.entries) - 1)
        entries: NDArray[np.uint16] = np.array(self.entries, np.uint16)[numbers]
        return entries

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return the shares of white."""
        return self.look_up(values) / self.largest


def table_of(descriptor: Any, data: Any, *, little_endian: bool) -> Table:
    """Return a table from the elements LUTDescriptor and LUTData, or those of a palette.

    Entries of 8 bits come one a byte, or one a word; data of the representation OW or OB are bytes, others integers.
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


def table_in(item: Any, dataset: Any) -> Table:
    """Return the table of an item of ModalityLUTSequence or VOILUTSequence."""
    return table_of(item.LUTDescriptor, item.LUTData, little_endian=dataset.original_encoding[1])


def palette_samples(values: NDArray[Any], dataset: Any) -> Samples:
    """Return the colours of a frame of shape (height, width) that holds their numbers (PS3.3, C.7.6.3.1.5 and C.7.9)."""
    if "RedPaletteColorLookupTableData" in dataset:
        little = dataset.original_encoding[1]
        pairs = [[dataset[f"{c}PaletteColorLookupTable{p}"].value for p in ("Descriptor", "Data")] for c in COLOURS]
        tables = [table_of(descriptor, data, little_endian=little) for descriptor, data in pairs]
        colours = np.stack([table.look_up(values) for table in tables], axis=2)
        return Samples(to_levels(colours, (0.0, float(max(table.largest for table in tables))), []))
    from pydicom.pixels import apply_color_lut

    colours = apply_color_lut(values, dataset)[:, :, :3]
    return Samples(to_levels(colours, type_limits(colours.dtype), []))
