"""Labelled images → a folder of class folders."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from headstart.errors import DataError
from headstart.texts import reason_of


def silent(_: int) -> None:
    """Count nothing."""


def make_class_folders(
    labels: Mapping[str, str], data: Path, output: Path, *, advance: Callable[[int], None] = silent
) -> dict[str, int]:
    """Copy labelled images into a folder for each class, and return class → number of images.

    An image keeps its path below the folder of its class. The originals stay; the new folder appears whole or not at all.

    Parameters
    ----------
    labels : mapping of str to str
        Path, relative to ``data``, → class.
    data : Path
        The folder of images.
    output : Path
        Must not exist, or be empty.
    advance : callable
        Told how many more images are copied.

    Raises
    ------
    DataError
        If ``output`` holds something or lies in ``data``, a class cannot be the name of a folder, a path leads out of
        ``data`` or to no file, or something cannot be copied.
    """
    check_target(data, output)
    for label in sorted(set(labels.values())):
        check_label(label)
    missing = [path for path in labels if not is_inside(path) or not (data / path).is_file()]
    if missing:
        raise DataError(
            f"{len(missing):,} of {len(labels):,} images are not in {data}, as {missing[0]!r}. Name the folder that the "
            "features were extracted from."
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as partial:
            whole = Path(partial) / "whole"
            for path, label in labels.items():
                target = whole / label / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(data / path, target)
                advance(1)
            if output.exists():
                output.rmdir()
            whole.rename(output)
    except OSError as error:
        raise DataError(f"The images cannot be copied to {output}: {reason_of(error)} ({error.filename}).") from error
    return dict(sorted(Counter(labels.values()).items()))


def check_target(data: Path, output: Path) -> None:
    """Raise DataError unless the output is a new or an empty folder outside the images' own."""
    if not data.is_dir():
        raise DataError(f"There is no folder {data}. Expected: the one that the features were extracted from.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output} exists and is not empty. Name a new folder; nothing was copied.")
    if output.resolve().is_relative_to(data.resolve()):
        raise DataError(
            f"{output} lies in {data}, where the copies would be taken for images of it. Name another folder."
        )


def check_label(label: str) -> None:
    """Raise DataError where a class cannot be the name of a folder on every system."""
    if label.startswith(".") or label.endswith(".") or any(c in '/\\:*?"<>|' or ord(c) < 32 for c in label):
        raise DataError(
            f'The class {label!r} cannot be the name of a folder. Expected: a name without / \\ : * ? " < > | and without a '
            "full stop at either end."
        )


def is_inside(path: str) -> bool:
    """Return whether a relative path stays in its folder."""
    pure = PurePosixPath(path)
    return not (pure.is_absolute() or ".." in pure.parts or os.path.isabs(path) or "\0" in path)  # noqa: PTH117
