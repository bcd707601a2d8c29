"""What a cache knows of its images beside their features, column by column, read when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.columns import HexColumn
from headstart.texts import TextColumn


class Rows:
    """The columns of ``/rows``; each is read, and its digest compared, when it is first asked for.

    Text takes its own length in memory, and a Python string is made only for a value that is looked at: a sequence of
    str, not a list.

    Parameters
    ----------
    read : callable
        Returns the column of a name; raises CacheError where it is damaged.
    """

    def __init__(self, read: Callable[[str], Any]) -> None:
        self._read = read

    @cached_property
    def path(self) -> TextColumn:
        """Relative to the root of the scan; bytes that are not UTF-8 are lone surrogates (``os.fsdecode``)."""
        return self._text("path")

    @cached_property
    def split(self) -> TextColumn:
        """``train``, ``validation``, ``test``, or empty."""
        return self._text("split")

    @cached_property
    def group(self) -> TextColumn:
        """Name of the group, or empty."""
        return self._text("group")

    @cached_property
    def notes(self) -> NotesColumn:
        """What was done to each image: tuples of str."""
        return NotesColumn(self._text("notes"))

    @cached_property
    def sha256(self) -> HexColumn:
        """Digest of the image's bytes, 64 hexadecimal digits; ``.array`` has shape (n_images, 32), uint8."""
        return HexColumn(self._read("sha256"))

    @cached_property
    def features_sha256(self) -> HexColumn:
        """Digest of the stored row of ``/features`` followed by that of ``/pooled``."""
        return HexColumn(self._read("features_sha256"))

    @cached_property
    def label(self) -> NDArray[np.int32]:
        """Index of the class, −1 where unlabelled, shape (n_images,)."""
        return self._numbers("label")

    @cached_property
    def size_bytes(self) -> NDArray[np.int64]:
        """Size of the image file."""
        return self._numbers("size_bytes")

    @cached_property
    def mtime_ns(self) -> NDArray[np.int64]:
        """Time of last change of the image file, nanoseconds since 1970."""
        return self._numbers("mtime_ns")

    @cached_property
    def stamp(self) -> NDArray[np.uint32]:
        """Bits of inode and time of status change of the image file (images/refs.py); 0 where they are not known."""
        return self._numbers("stamp")

    @cached_property
    def width_px(self) -> NDArray[np.int32]:
        """Width of the image as it is seen, before the resize."""
        return self._numbers("width_px")

    @cached_property
    def height_px(self) -> NDArray[np.int32]:
        """Height of the image as it is seen, before the resize."""
        return self._numbers("height_px")

    def kept(self, *names: str) -> Rows:
        """Return some columns, read now, for when the file is closed; there are no others then."""
        return Rows({name: self._read(name) for name in names}.__getitem__)

    def _text(self, name: str) -> TextColumn:
        column: TextColumn = self._read(name)
        return column

    def _numbers(self, name: str) -> NDArray[Any]:
        column: NDArray[Any] = self._read(name)
        return column


class NotesColumn:
    """Notes as tuples of str, made when they are looked at."""

    def __init__(self, texts: TextColumn) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, row: int) -> tuple[str, ...]:
        return split_notes(self.texts[row])

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return map(split_notes, self.texts)


def split_notes(text: str) -> tuple[str, ...]:
    """Return the notes that were joined by commas."""
    return tuple(text.split(",")) if text else ()
