"""What a file of features made elsewhere says, column by column, before it is checked as a whole."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.cache.portable import open_portable
from headstart.errors import DataError
from headstart.exchange import FORMAT, FORMAT_VERSION
from headstart.exchange.archive import Archive, StoredArray, reading

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class GivenFeatures:
    """Features and what belongs to them as a file has them; None for what it does not have.

    Attributes
    ----------
    shape : tuple of int
        Of X: (n, n_features) or (n, height, width, channels).
    blocks : callable
        Each call yields X from the top, in blocks of some rows, of any floating type.
    paths : sequence of str
        One per row.
    y : sequence of int or of str, or None
        Labels: numbers from 0, −1 where unlabelled; or names, empty where unlabelled.
    class_names, split, group, sha256 : sequence of str or None
        Names that numbers index; the others one per row.
    map_shape : tuple of int
        Height, width and channels where X holds maps that were flattened; else empty.
    recipe : str
        JSON, where the file comes from ``headstart convert``; else empty.
    """

    shape: tuple[int, ...]
    blocks: Callable[[], Iterator[NDArray[Any]]]
    paths: Sequence[str]
    y: Sequence[int] | Sequence[str] | None = None
    class_names: Sequence[str] | None = None
    split: Sequence[str] | None = None
    group: Sequence[str] | None = None
    sha256: Sequence[str] | None = None
    map_shape: tuple[int, ...] = ()
    recipe: str = ""


@contextmanager
def open_npz(path: Path) -> Iterator[GivenFeatures]:
    """Yield what a NumPy archive says; X is read when it is asked for, inside of the block.

    Raises
    ------
    DataError
        If it is no such archive, X or paths are missing, or an array is not of the type and shape that it must have.
    """
    with Archive(path) as archive, reading(path):
        X, paths = archive.array("X"), archive.array("paths", "path")
        if X is None or paths is None:
            raise DataError(
                f"{path} must hold the arrays X and paths, and may hold y, class_names, split, group and sha256. "
                f"Received: {', '.join(archive.names()) or 'none'}."
            )
        if X.dtype.kind != "f" or X.dtype.itemsize > 8 or len(X.shape) not in {2, 4}:
            raise DataError(
                "X must be float16, float32 or float64 of shape (n, n_features) or (n, height, width, channels). "
                f"Received: {X.dtype} of shape {X.shape}."
            )
        n = X.shape[0]
        map_shape, recipe = archive.array("map_shape"), archive.array("recipe")
        yield GivenFeatures(
            shape=X.shape,
            blocks=X.blocks,
            paths=texts(paths, n, unique=True),
            y=labels(archive.array("y"), n),
            class_names=optional_texts(archive.array("class_names")),
            split=optional_texts(archive.array("split", "splits"), n),
            group=optional_texts(archive.array("group", "groups"), n),
            sha256=digests(archive.array("sha256"), n),
            map_shape=tuple(integers(map_shape, 3)) if map_shape is not None else (),
            recipe=str(recipe.scalar()) if recipe is not None and recipe.shape == () else "",
        )


@contextmanager
def open_h5(path: Path) -> Iterator[GivenFeatures]:
    """Yield what a file says that ``headstart convert --portable`` wrote.

    Raises
    ------
    CacheError, DataError
        If it is something else, or damaged.
    """
    with open_portable(path) as file:
        if (file.attribute("format"), file.attribute("format_version")) != (FORMAT, str(FORMAT_VERSION)):
            raise DataError(f"{path} is no file that headstart convert --portable wrote, or of another version.")
        n = file.shape[0]
        paths = file.column("paths", n)
        check_unique(paths)
        yield GivenFeatures(
            shape=file.shape,
            blocks=file.blocks,
            paths=list(paths),
            y=file.column("y", n, "<i4").tolist(),
            class_names=list(file.column("class_names", None)),
            split=list(file.column("split", n)),
            group=list(file.column("group", n)),
            sha256=list(file.column("sha256", n)),
            map_shape=shape_from(json.loads(file.attribute("map_shape"))),
            recipe=file.attribute("recipe"),
        )


def shape_from(values: Any) -> tuple[int, ...]:
    """Return the shape that a JSON list says; raise DataError where it is none."""
    right = isinstance(values, list) and len(values) in {0, 3} and all(type(value) is int for value in values)
    if not right:
        raise DataError(f"map_shape is a list of height, width and channels. Received: {values!r}.")
    return tuple(values)


def check_unique(paths: Iterable[str], seen: set[str] | None = None) -> None:
    """Raise DataError at the first path that occurs twice, ``seen`` counting as before."""
    known = set() if seen is None else seen
    for path in paths:
        if path in known:
            raise DataError(f"The path {path!r} stands for two rows of X. Give each row a path of its own.")
        known.add(path)


def texts(array: StoredArray, length: int | None = None, *, unique: bool = False) -> list[str]:
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


def optional_texts(array: StoredArray | None, length: int | None = None) -> list[str] | None:
    """Return the strings of an array, or None where there is none."""
    return None if array is None else texts(array, length)


def integers(array: StoredArray, length: int) -> list[int]:
    """Return the whole numbers of an array."""
    check_array(array, "iu", "whole numbers", length)
    return [int(value) for block in array.blocks() for value in block.tolist()]


def labels(array: StoredArray | None, length: int) -> list[int] | list[str] | None:
    """Return labels, numbers or names, or None where there are none."""
    if array is None:
        return None
    if array.dtype.kind in "iu":
        return integers(array, length)
    check_array(array, "US", "whole numbers or class names", length)
    return texts(array, length)


def digests(array: StoredArray | None, length: int) -> list[str] | None:
    """Return digests as hexadecimal strings, or None where there are none."""
    if array is None:
        return None
    if array.dtype.str == "|u1" and array.shape == (length, 32):
        return [row.tobytes().hex() for block in array.blocks() for row in block]
    return texts(array, length)


def check_array(array: StoredArray, kinds: str, what: str, length: int | None) -> None:
    """Raise DataError where an array is not one-dimensional, of this length and of one of these kinds."""
    if array.dtype.kind not in kinds or len(array.shape) != 1 or length not in {None, array.shape[0]}:
        expected = "one value each" if length is None else f"shape ({length},)"
        raise DataError(
            f"The array {array.name} must hold {what}, {expected}. Received: {array.dtype} of shape {array.shape}."
        )
