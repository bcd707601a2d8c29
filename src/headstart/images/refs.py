"""The images of a scan as columns."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from operator import eq
from typing import overload

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError
from headstart.schema import ImageRef
from headstart.texts import BLOCK_ROWS, TextColumn

#: Label, split and group of an image.
Tag = tuple[str | None, str | None, str | None]


class ImageRefs(Sequence[ImageRef]):
    """Many :class:`ImageRef`, as columns: of a million images the objects would take 250 MB, this takes 55.

    A sequence like a list of them; an object is made when it is asked for, another one each time.

    Parameters
    ----------
    paths : TextColumn
        Path of each image.
    tags : sequence of Tag
        Each label, split and group that occur together.
    codes : ndarray of shape (n_images,), int32
        Index of each image's tag.
    sizes : ndarray of shape (n_images,), int64
        Bytes of each file.
    times : ndarray of shape (n_images,), int64
        When each file was changed, nanoseconds since 1970.
    """

    def __init__(
        self,
        paths: TextColumn,
        tags: Sequence[Tag],
        codes: NDArray[np.int32],
        sizes: NDArray[np.int64],
        times: NDArray[np.int64],
    ) -> None:
        self.paths, self.tags, self.codes, self.sizes, self.times = paths, tuple(tags), codes, sizes, times

    @classmethod
    def of(cls, refs: Iterable[ImageRef]) -> ImageRefs:
        """Return some images as columns; those that are, as they are.

        Raises
        ------
        DataError
            If a path is not text and stands for no bytes either, as Windows has them.
        """
        if isinstance(refs, ImageRefs):
            return refs
        data, ends, sizes, times, codes = bytearray(), array("q"), array("q"), array("q"), array("i")
        numbers: dict[Tag, int] = {}
        for ref in refs:
            data += encoded(ref.path)
            ends.append(len(data))
            sizes.append(ref.size_bytes)
            times.append(ref.mtime_ns)
            codes.append(numbers.setdefault((ref.label, ref.split, ref.group), len(numbers)))
        columns = [np.frombuffer(column, np.int64) for column in (ends, sizes, times)]
        return cls(TextColumn(bytes(data), columns[0]), tuple(numbers), np.frombuffer(codes, np.int32), *columns[1:])

    def taken(self, rows: NDArray[np.int64]) -> ImageRefs:
        """Return the columns of some images, in the order asked for."""
        used, codes = np.unique(self.codes[rows], return_inverse=True)
        tags = [self.tags[code] for code in used.tolist()]
        return ImageRefs(self.paths.taken(rows), tags, codes.astype(np.int32), self.sizes[rows], self.times[rows])

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, index: int) -> ImageRef: ...
    @overload
    def __getitem__(self, index: slice) -> list[ImageRef]: ...
    def __getitem__(self, index: int | slice) -> ImageRef | list[ImageRef]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        label, split, group = self.tags[self.codes[index]]
        return ImageRef(self.paths[index], label, split, group, int(self.sizes[index]), int(self.times[index]))

    def __iter__(self) -> Iterator[ImageRef]:
        paths = iter(self.paths)
        for start in range(0, len(self), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            columns = (column[block].tolist() for column in (self.codes, self.sizes, self.times))
            for code, size, time in zip(*columns, strict=True):
                label, split, group = self.tags[code]
                yield ImageRef(next(paths), label, split, group, size, time)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]


def encoded(path: str) -> bytes:
    """Return the bytes that a path stands for."""
    try:
        return path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise DataError(f"The path {path!r} is not text: {error.reason}. Rename the file.") from error
