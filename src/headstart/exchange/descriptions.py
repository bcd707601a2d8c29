"""What a file of features made elsewhere says of its rows, checked as a whole."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from headstart.errors import DataError
from headstart.images.split_names import split_of
from headstart.schema import ImageRef
from headstart.texts import class_name

if TYPE_CHECKING:
    from headstart.exchange.given import GivenFeatures


def check_lengths(given: GivenFeatures) -> None:
    """Raise DataError where there is not one value per row."""
    columns = {"paths": given.paths, "y": given.y, "split": given.split, "group": given.group, "sha256": given.sha256}
    for name, values in columns.items():
        if values is not None and len(values) != given.shape[0]:
            raise DataError(f"X has {given.shape[0]:,} rows, and {name} has {len(values):,}. One each is needed.")


def resolve_labels(given: GivenFeatures, class_names: Sequence[str] | None) -> tuple[list[str | None], tuple[str, ...]]:
    """Return the class of each row, None where it is unlabelled, and the names of all classes.

    Names that are not given are those that occur, sorted; numbers without names are named as they are written. Names that
    differ only in their Unicode form or in spaces at their ends are one.

    Raises
    ------
    DataError
        If a label has no name, two names are equal, or it is not clear what −1 means.
    """
    given_names = [str(name) for name in class_names or given.class_names or ()]
    if len(set(given_names)) < len(given_names):
        raise DataError(f"Class names must be different. Received: {', '.join(map(repr, given_names))}.")
    names = [class_name(name) for name in given_names]
    n = given.shape[0]
    if given.y is None:
        return [None] * n, unique(names)
    y: list[Any] = list(given.y)
    if all(isinstance(label, str) for label in y):
        kept = {label: class_name(label.strip()) for label in set(y)}
        names = names or sorted(set(kept.values()) - {""})
        unknown = sorted(set(kept.values()) - set(names) - {""})
        if unknown:
            raise DataError(f"y has labels that are not among the class names: {', '.join(unknown[:5])}.")
        return [kept[label] or None for label in y], unique(names)
    return numbered(y, names), unique(names or [str(number) for number in sorted(set(y) - {-1})])


def numbered(y: Sequence[int], names: Sequence[str]) -> list[str | None]:
    """Return the class that each number means, None for −1; without names the number itself."""
    lowest, highest = min(y), max(y)
    if lowest < -1 or (names and highest >= len(names)):
        expected = f"from 0 to {len(names) - 1}" if names else "from 0"
        raise DataError(f"y must hold numbers {expected}, −1 where unlabelled. Received: {lowest} to {highest}.")
    if not names and set(y) == {-1, 1}:
        raise DataError(
            "y holds −1 and 1 alone, and −1 means unlabelled. If these are two classes, write 0 and 1. If they are not, give "
            "the names of the classes (--class-names)."
        )
    texts = {number: names[number] if names else str(number) for number in set(y) if number >= 0}
    return [texts.get(number) for number in y]


def unique(names: Sequence[str]) -> tuple[str, ...]:
    """Return names without those that occurred before."""
    return tuple(dict.fromkeys(names))


def make_refs(given: GivenFeatures, labels: Sequence[str | None]) -> list[ImageRef]:
    """Return what is said of each row, checked."""
    n = given.shape[0]
    split, group = given.split or [""] * n, given.group or [""] * n
    unknown = sorted({name for name in split if name and split_of(name) is None})
    if unknown:
        raise DataError(f"A split is train, validation or test. Received: {', '.join(map(repr, unknown[:5]))}.")
    for path in given.paths:
        check_path(path)
    for digest in given.sha256 or ():
        if not re.fullmatch("[0-9a-fA-F]{64}", digest):
            raise DataError(f"A SHA-256 has 64 hexadecimal digits. Received: {digest[:80]!r}.")
    return [
        ImageRef(path, label, split_of(one), other or None, 0, 0)
        for path, label, one, other in zip(given.paths, labels, split, group, strict=True)
    ]


def check_path(path: str) -> None:
    """Raise DataError where a path is empty, absolute, leads out of the folder of images, or is no text."""
    try:
        path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise DataError(f"The path {path[:200]!r} is not text: {error.reason}.") from error
    inside = bool(path) and not PurePosixPath(path).is_absolute() and not PureWindowsPath(path).anchor
    if not inside or ".." in PurePosixPath(path).parts or "\0" in path:
        raise DataError(f"A path is relative to the folder of images, and inside of it. Received: {path[:200]!r}.")
