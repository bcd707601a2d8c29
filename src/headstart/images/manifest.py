"""A CSV manifest: path, label and optionally split and group."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

from headstart.errors import DataError
from headstart.schema import SPLITS, ImageRef

COLUMNS = ("path", "label", "split", "group")

#: Rows named in an error before the rest is counted.
LISTED = 5


def read_manifest(manifest: Path, root: Path, split_names: Mapping[str, str]) -> list[ImageRef]:
    """Return the images that a manifest names, in its order.

    The file is UTF-8, with or without a byte order mark, separated by commas, semicolons or tabs. An empty label means
    unlabelled, an empty split or group means none.

    Raises
    ------
    DataError
        If a column is missing or unknown, a path is named twice, leads out of ``root`` or to no file, or a split is unknown.
    """
    rows = read_rows(manifest)
    if not rows:
        raise DataError(f"{manifest} names no images.")
    refs = [to_ref(number, row, manifest, root, split_names) for number, row in rows]
    missing = [ref.path for ref in refs if ref.size_bytes < 0]
    if missing:
        raise DataError(
            f"{manifest} names {len(missing):,} files that are not in {root}: {', '.join(missing[:LISTED])}"
            f"{' …' if len(missing) > LISTED else ''}. Correct the paths, which are relative to that folder."
        )
    seen: set[str] = set()
    for (number, _), ref in zip(rows, refs, strict=True):
        if ref.path in seen:
            raise DataError(f"{manifest}, line {number}: {ref.path} is named twice.")
        seen.add(ref.path)
    return refs


def read_rows(manifest: Path) -> list[tuple[int, dict[str, str]]]:
    """Return line number and columns of each row."""
    try:
        with manifest.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            header = file.readline()
            separator = max(",;\t", key=header.count)
            names = [name.strip().lower() for name in next(csv.reader([header], delimiter=separator), [])]
            check_columns(manifest, names)
            reader = csv.reader(file, delimiter=separator, strict=True)
            return [
                (reader.line_num + 1, to_row(manifest, reader.line_num + 1, names, cells)) for cells in reader if cells
            ]
    except (OSError, csv.Error) as error:
        raise DataError(f"{manifest} cannot be read as CSV: {error}") from error


def check_columns(manifest: Path, names: list[str]) -> None:
    """Raise DataError unless the columns are path, label and at most split and group."""
    wrong = [name for name in names if name not in COLUMNS]
    if "path" not in names or "label" not in names or wrong or len(set(names)) != len(names):
        raise DataError(
            f"{manifest} needs a first line with the columns path and label, and optionally split and group. "
            f"Received: {', '.join(names) or 'nothing'}."
        )


def to_row(manifest: Path, number: int, names: list[str], cells: list[str]) -> dict[str, str]:
    """Return one row by column; raise DataError where it has too many or too few cells."""
    if len(cells) != len(names):
        raise DataError(f"{manifest}, line {number}: {len(cells)} cells where {len(names)} columns were announced.")
    return dict(zip(names, cells, strict=True))


def to_ref(number: int, row: Mapping[str, str], manifest: Path, root: Path, split_names: Mapping[str, str]) -> ImageRef:
    """Return the image of one row; its size is −1 where there is no such file."""
    path = relative(row["path"], root)
    if path is None:
        raise DataError(f"{manifest}, line {number}: {row['path']} leads out of {root}. Expected: a path below it.")
    split = row.get("split", "").strip().lower() or None
    if split is not None and split not in split_names:
        raise DataError(f"{manifest}, line {number}: unknown split {split!r}. Expected one of: {', '.join(SPLITS)}.")
    group = row.get("group", "").strip() or None
    try:
        info = (root / path).stat()
        size, mtime = info.st_size, info.st_mtime_ns
    except (OSError, ValueError):
        size, mtime = -1, 0
    return ImageRef(path, row["label"].strip() or None, split_names[split] if split else None, group, size, mtime)


def relative(path: str, root: Path) -> str | None:
    """Return a manifest's path relative to the root, without detours; None where it leads out of it."""
    inside = os.path.relpath(root.absolute() / path, root.absolute()).replace(os.sep, "/")
    return None if inside == ".." or inside.startswith("../") else inside
