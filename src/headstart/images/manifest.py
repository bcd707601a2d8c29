"""A CSV manifest: path, label and optionally split and group."""

from __future__ import annotations

import csv
import io
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from typing import IO

from headstart.errors import DataError
from headstart.images.objects import listed_refs
from headstart.images.refs import state_of
from headstart.schema import SPLITS, ImageRef
from headstart.storage import bucket
from headstart.storage.address import Address, Location

COLUMNS = ("path", "label", "split", "group")

#: Rows named in an error before the rest is counted.
LISTED = 5


def read_manifest(manifest: Location, root: Location, split_names: Mapping[str, str]) -> list[ImageRef]:
    """Return the images that a manifest names, in its order.

    The file is UTF-8, with or without a byte order mark, separated by commas, semicolons or tabs (the one that occurs most
    often in the first line). An empty label means unlabelled, an empty split or group means none. Paths are relative to
    ``root``, or absolute and below it; links are followed. Bytes that are not UTF-8 are kept in paths, since files may be
    named so, and refused in labels and groups.

    Raises
    ------
    DataError
        If a column is missing or unknown, a path is named twice, leads out of ``root`` or to no file, a split is unknown or
        a label is not UTF-8. A file that is missing is an error, not a failure among others: the list is wrong.
    """
    refs, seen, twice = [], set(), ""
    for number, row in read_rows(manifest):
        ref = to_ref(number, row, manifest, root, split_names)
        if ref.path in seen and not twice:
            twice = f"{manifest}, line {number}: {ref.path} is named twice."
        seen.add(ref.path)
        refs.append(ref)
    if not refs:
        raise DataError(f"{manifest} names no images.")
    if isinstance(root, Address):
        refs = listed_refs(root, refs)
    missing = [ref.path for ref in refs if ref.size_bytes < 0]
    if missing:
        raise DataError(
            f"{manifest} names {len(missing):,} files that are not in {root} (or are no files): {', '.join(missing[:LISTED])}"
            f"{' …' if len(missing) > LISTED else ''}. Correct the paths, which are relative to that folder."
        )
    if twice:
        raise DataError(twice)
    return refs


def read_rows(manifest: Location) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and columns of each row."""
    try:
        with opened(manifest) as file:
            header = file.readline()
            separator = max(",;\t", key=header.count)
            names = [name.strip().lower() for name in next(csv.reader([header], delimiter=separator), [])]
            check_columns(manifest, names)
            reader = csv.reader(file, delimiter=separator, strict=True)
            for cells in reader:
                if cells:
                    yield reader.line_num + 1, to_row(manifest, reader.line_num + 1, names, cells)
    except (OSError, csv.Error) as error:
        raise DataError(f"{manifest} cannot be read as CSV: {error}") from error


def check_columns(manifest: Location, names: list[str]) -> None:
    """Raise DataError unless the columns are path, label and at most split and group."""
    wrong = [name for name in names if name not in COLUMNS]
    if "path" not in names or "label" not in names or wrong or len(set(names)) != len(names):
        raise DataError(
            f"{manifest} needs a first line with the columns path and label, and optionally split and group. "
            f"Received: {', '.join(names) or 'nothing'}."
        )


def to_row(manifest: Location, number: int, names: list[str], cells: list[str]) -> dict[str, str]:
    """Return one row by column; raise DataError where it has too many or too few cells."""
    if len(cells) != len(names):
        raise DataError(f"{manifest}, line {number}: {len(cells)} cells where {len(names)} columns were announced.")
    return dict(zip(names, cells, strict=True))


def to_ref(
    number: int, row: Mapping[str, str], manifest: Location, root: Location, split_names: Mapping[str, str]
) -> ImageRef:
    """Return the image of one row; its size is −1 where there is no such file."""
    path = relative(row["path"], root)
    if path is None:
        raise DataError(f"{manifest}, line {number}: {row['path']} leads out of {root}. Expected: a path below it.")
    split = row.get("split", "").strip().lower() or None
    if split is not None and split not in split_names:
        raise DataError(f"{manifest}, line {number}: unknown split {split!r}. Expected one of: {', '.join(SPLITS)}.")
    label, group = sys.intern(row["label"].strip()) or None, row.get("group", "").strip() or None
    if not is_text(label or "") or not is_text(group or ""):
        raise DataError(f"{manifest}, line {number}: the label is not UTF-8. Save the file as “CSV UTF-8”.")
    return ImageRef(path, label, split_names[split] if split else None, group, *state(root, path))


def is_text(text: str) -> bool:
    """Return whether a cell was valid UTF-8: other bytes have become lone surrogates."""
    return not any("\udc80" <= char <= "\udcff" for char in text)


def state(root: Location, path: str) -> tuple[int, int, int]:
    """Return size in bytes, time of change (ns) and stamp of a file; size −1 where it is no regular one, or in a bucket."""
    if isinstance(root, Address):
        return -1, 0, 0
    try:
        info = os.stat(os.path.join(root, path))  # noqa: PTH116, PTH118 (a million rows)
    except (OSError, ValueError):
        return -1, 0, 0
    return state_of(info) if stat.S_ISREG(info.st_mode) else (-1, 0, 0)


def is_manifest(location: Location) -> bool:
    """Return whether there is a CSV file, or an object of that name."""
    if location.suffix.lower() != ".csv":
        return False
    return bucket.stat(location) is not None if isinstance(location, Address) else location.is_file()


def opened(manifest: Location) -> IO[str]:
    """Return a manifest, open for reading; one in a bucket is read whole."""
    if isinstance(manifest, Address):
        data = io.BytesIO(bucket.read(manifest))
        return io.TextIOWrapper(data, encoding="utf-8-sig", errors="surrogateescape", newline="")
    return manifest.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def relative(path: str, root: Location) -> str | None:
    """Return a manifest's path relative to the root, without detours; None where it leads out of it.

    One that is an absolute path, or an address, is taken as that.
    """
    if isinstance(root, Address):
        if "://" in path:
            above = f"{root}/"
            return path.removeprefix(above) if path.startswith(above) else None
    elif os.path.isabs(path):  # noqa: PTH117
        path = os.path.relpath(path, root.absolute())
    inside = os.path.normpath(path).replace(os.sep, "/")
    return None if inside == ".." or inside.startswith(("../", "/")) else inside
