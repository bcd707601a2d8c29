"""Arrays of a file that others made, whatever its format: checked, and turned into texts, numbers and labels."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headstart.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Array(Protocol):
    """An array of a file, its type and shape known, its values still there."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its values."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of it."""

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield it from the top."""

    def scalar(self) -> Any:
        """Return the value of an array without dimensions."""


class Arrays(Protocol):
    """The arrays of a file by name."""

    def names(self) -> list[str]:
        """Return all names."""

    def array(self, *names: str) -> Array | None:
        """Return the first array that has one of these names, or None."""


def check_unique(paths: Iterable[str], seen: set[str] | None = None) -> None:
    """Raise DataError at the first path that occurs twice, ``seen`` counting as before."""
    known = set() if seen is None else seen
    for path in paths:
        if path in known:
            raise DataError(f"The path {path!r} stands for two rows of X. Give each row a path of its own.")
        known.add(path)


def texts(array: Array, length: int | None = None, *, unique: bool = False) -> list[str]:
    """Return the strings of an array; with ``unique`` the first that occurs twice is refused at once."""
    check_array(array, "US", "text", length)
    found: list[str] = []
    seen: set[str] = set()
    for block in array.blocks():
        if array.dtype.kind == "U" and (code_points(block) > sys.maxunicode).any():
            raise ValueError(f"the array {array.name} holds what is no character")  # NumPy would take it for one
        part = block.tolist()
        strings = [value.decode("utf-8", "surrogateescape") for value in part] if array.dtype.kind == "S" else part
        if unique:
            check_unique(strings, seen)
        found += strings
    return found


def code_points(block: NDArray[Any]) -> NDArray[np.uint32]:
    """Return the numbers of all characters."""
    return block.view(np.dtype(np.uint32).newbyteorder(block.dtype.byteorder))


def optional_texts(array: Array | None, length: int | None = None) -> list[str] | None:
    """Return the strings of an array, or None where there is none."""
    return None if array is None else texts(array, length)


def integers(array: Array, length: int) -> list[int]:
    """Return the whole numbers of an array."""
    check_array(array, "iu", "whole numbers", length)
    return [int(value) for block in array.blocks() for value in block.tolist()]


def labels(array: Array | None, length: int) -> list[int] | list[str] | None:
    """Return labels, numbers or names, or None where there are none.

    Numbers may be whole ones of any type, in one column, or rows of 0 with a 1 at the place of the class.

    Raises
    ------
    DataError
        If they are something else: measured values, or probabilities.
    """
    if array is None:
        return None
    if array.dtype.kind in "US":
        check_array(array, "US", "whole numbers or class names", length)
        return texts(array, length)
    if array.dtype.kind not in "biuf" or len(array.shape) not in {1, 2} or array.shape[0] != length:
        raise DataError(
            f"The array {array.name} must hold whole numbers, class names, or rows of 0 with a 1 for the class, one for "
            f"each of the {length:,} rows. Received: {array.dtype} of shape {array.shape}."
        )
    return [number for block in array.blocks() for number in numbers_of(block, array.name)]


def numbers_of(block: NDArray[Any], name: str) -> list[int]:
    """Return the class of each row as a number."""
    if block.ndim == 2 and block.shape[1] != 1:
        one_hot = ((block == 0) | (block == 1)).all(axis=1) & ((block == 1).sum(axis=1) == 1)
        if not one_hot.all():
            raise DataError(
                f"A row of {name} has {block.shape[1]} numbers that are not 0 with a single 1: "
                f"{block[~one_hot][0][:5].tolist()}. "
                "An image has one class. Write its number or its name."
            )
        return [int(number) for number in block.argmax(axis=1)]
    values = block.reshape(len(block))
    if values.dtype.kind == "f":
        wrong = values[~np.isfinite(values) | (values != np.floor(values))]
        if len(wrong):
            raise DataError(
                f"{name} holds {wrong[0]}, which is no class: a measured quantity, or a label that is missing? Expected: "
                "whole numbers from 0, −1 where unlabelled; or names."
            )
    return [int(value) for value in values.tolist()]


def digests(array: Array | None, length: int) -> list[str] | None:
    """Return digests as hexadecimal strings, or None where there are none."""
    if array is None:
        return None
    if array.dtype.str == "|u1" and array.shape == (length, 32):
        return [row.tobytes().hex() for block in array.blocks() for row in block]
    return texts(array, length)


def check_array(array: Array, kinds: str, what: str, length: int | None) -> None:
    """Raise DataError where an array is not one-dimensional, of this length and of one of these kinds."""
    if array.dtype.kind not in kinds or len(array.shape) != 1 or length not in {None, array.shape[0]}:
        expected = "one value each" if length is None else f"shape ({length},)"
        raise DataError(
            f"The array {array.name} must hold {what}, {expected}. Received: {array.dtype} of shape {array.shape}."
        )
