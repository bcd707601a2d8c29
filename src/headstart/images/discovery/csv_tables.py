"""Rows of CSV and TSV files in their many variants, and the files that their paths name."""

from __future__ import annotations

import csv
import io
import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import IO, cast

from headstart.errors import DataError
from headstart.images.discovery.classes_and_splits import named
from headstart.images.discovery.refs import state_of
from headstart.storage import bucket
from headstart.storage.bucket import Address, Location
from headstart.texts import counted, plain_cell

#: Suffixes of tables.
TABLE_SUFFIXES = (".csv", ".tsv", ".txt")

#: Separators, and a character that occurs in no path, for tables without one.
SEPARATORS, NO_SEPARATOR = ",;\t|", "\x1f"

#: The line that tells Excel the separator.
SEP_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE | re.DOTALL)

#: First bytes → encoding (The Unicode Standard 23.8, "Byte Order Mark").
MARKS = ((b"\xff\xfe\0\0", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))

#: First bytes of files that are not text → kind and advice.
OTHER_KINDS = (
    (b"PK\x03\x04", "an Excel workbook, or an archive: save the sheet as CSV UTF-8"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook: save the sheet as CSV UTF-8"),
    (b"\x1f\x8b", "compressed: unpack it"),
    (b"PAR1", "a Parquet table: save it as CSV"),
)

#: Bytes used to detect the encoding.
HEAD_BYTES = 4096

#: Entries of a folder that are compared with a missing path.
MAX_ENTRIES = 100_000

#: Pattern of a path that cannot be found → advice.
REMEDIES = (
    (
        re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:/"),
        "Addresses are not fetched: get the files, and name them by paths relative to that folder.",
    ),
    (
        re.compile(r"^[A-Za-z]:[\\/]"),
        "These are paths on a drive of Windows. Write them relative to that folder, with / between folders.",
    ),
    (re.compile("[\udc80-\udcff]"), "The names are not UTF-8. Save the file as “CSV UTF-8”."),
    (re.compile(r"^'.*'$"), "Remove the quotes ', or write them as \"."),
)


def read_rows(table: Location) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of each row, the header first; empty rows are skipped.

    The text is UTF-8, or UTF-16 or UTF-32 with a byte order mark. The separator is that of a first line ``sep=;``, else
    the comma, semicolon, tab or bar that occurs most often in the first row. Bytes that are not UTF-8 become lone
    surrogates. Raises DataError if the file cannot be read, or is not a text table.
    """
    try:
        with _opened(table) as file:
            number, line = _first_line(file)
            separator = SEP_LINE.fullmatch(line)
            if separator:
                skipped, line = _first_line(file)
                number += skipped
            mark = separator[1] if separator else _separator_of(line)
            reader = csv.reader(chain([line], file), delimiter=mark, skipinitialspace=f"{mark} " in line, strict=True)
            for cells in reader:
                if any(map(str.strip, cells)):
                    yield number + reader.line_num - 1, cells
    except csv.Error as error:
        raise DataError(f'{table} cannot be read as CSV: {error}. Is a quote " opened and not closed?') from error
    except (OSError, UnicodeError) as error:
        raise DataError(f"{table} cannot be read as CSV: {error}") from error


def _first_line(file: IO[str]) -> tuple[int, str]:
    """Return the next line that is not blank (empty at the end), after the number of lines read."""
    number = 0
    for line in iter(file.readline, ""):
        number += 1
        if line.strip():
            return number, line
    return number, ""


def _separator_of(line: str) -> str:
    """Return the most frequent separator of a line, outside of quotes."""
    bare = re.sub(r'"[^"]*"', "", line)
    best = max(SEPARATORS, key=bare.count)
    return best if best in bare else NO_SEPARATOR


def _opened(table: Location) -> IO[str]:
    data = io.BytesIO(bucket.read(table)) if isinstance(table, Address) else table.open("rb")
    try:
        encoding = _encoding_of(data.read(HEAD_BYTES), table)
        data.seek(0)
    except BaseException:
        data.close()
        raise
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    return io.TextIOWrapper(cast("IO[bytes]", data), encoding=encoding, errors=errors, newline="")


def _encoding_of(head: bytes, table: Location) -> str:
    """Return the encoding of a text by its first bytes; raise DataError for other files."""
    kind = next((kind for magic, kind in OTHER_KINDS if head.startswith(magic)), None)
    if kind:
        raise DataError(f"{table} is not a text table. It is {kind}, and give that.")
    marked = next((encoding for mark, encoding in MARKS if head.startswith(mark)), None)
    if marked is None and b"\0" in head:
        raise DataError(f"{table} is not text, or UTF-16 without a byte order mark. Save it as CSV UTF-8.")
    return marked or "utf-8"


def forms(path: str) -> Iterator[str]:
    r"""Yield a path as given, then in other forms in which the file may exist.

    Without spaces at its ends; with ``/`` for ``\``; composed (NFC), as most systems write accents, and decomposed (NFD),
    as macOS does; and without the ``'`` that marks a cell as text in spreadsheets.
    """
    yield path
    if "\\" in path or not path.isascii() or path != path.strip():
        plain = path.strip().replace("\\", "/")
        for form in dict.fromkeys(
            (path.strip(), plain, unicodedata.normalize("NFC", plain), unicodedata.normalize("NFD", plain))
        ):
            if form != path:
                yield form
    if (text := plain_cell(path)) != path:
        yield text


def _relative(path: str, root: Location) -> str | None:
    """Return a path relative to the root, normalised; None if it leads out of it. It may be absolute, or an address."""
    if isinstance(root, Address):
        if "://" in path:
            above = f"{root}/"
            return path.removeprefix(above) if path.startswith(above) else None
    elif os.path.isabs(path):  # noqa: PTH117
        path = os.path.relpath(path, root.absolute())
    inside = os.path.normpath(path).replace(os.sep, "/")
    return None if inside == ".." or inside.startswith(("../", "/")) else inside


def located(root: Location, path: str) -> tuple[str | None, tuple[int, int, int]]:
    """Return a path relative to the root in the form that exists, and its size in bytes, modification time (ns) and stamp.

    The path is None if it leads out of the root; the size is −1 if the file does not exist, and in a bucket.
    """
    inside = [form for form in (_relative(form, root) for form in forms(path)) if form is not None]
    for form in inside:
        found = _state(root, form)
        if found[0] >= 0:
            return form, found
    if not inside:
        return None, (-1, 0, 0)
    return (path if isinstance(root, Path) else inside[0]), (-1, 0, 0)  # as given, for messages


def file_named(folder: Path, path: str) -> Path | None:
    """Return the existing file of a path that is absolute or relative to a folder, or None."""
    return next((folder / form for form in forms(path) if _state(folder, form)[0] >= 0), None)


def _state(root: Location, path: str) -> tuple[int, int, int]:
    """Return size in bytes, modification time (ns) and stamp; size −1 if it is no regular file, and in a bucket."""
    if isinstance(root, Address):
        return -1, 0, 0
    try:
        info = os.stat(os.path.join(root, path))  # noqa: PTH116, PTH118 (a million rows)
    except (OSError, ValueError):
        return -1, 0, 0
    return state_of(info) if stat.S_ISREG(info.st_mode) else (-1, 0, 0)


def missing_files(table: Location, root: Location, missing: Sequence[str]) -> str:
    """Return an error message for paths without a file, with advice."""
    return (
        f"{table} names {counted(len(missing), 'file')} not found in {root}: {named(missing)}. "
        f"{_remedy(table, root, missing[0])}"
    )


def _remedy(table: Location, root: Location, path: str) -> str:
    if known := next((text for pattern, text in REMEDIES if pattern.search(path)), ""):
        return known
    if isinstance(root, Path):
        if similar := _similar(root, path):
            return f"There is {similar}. Write the paths exactly as the files are named."
        if _state(Path(), path)[0] >= 0:
            return f"It is there from the current folder: give that as the data, and `manifest={table}`."
    return "Correct the paths, which are relative to that folder."


def _similar(root: Path, path: str) -> str:
    """Return an existing path that differs only in case, accents or a missing suffix; else empty."""
    found = PurePosixPath()
    for part in PurePosixPath(path.strip().replace("\\", "/")).parts:
        try:
            with os.scandir(root / found) as scan:
                names = [entry.name for entry, _ in zip(scan, range(MAX_ENTRIES), strict=False)]
        except OSError:
            return ""
        similar = [name for name in names if name == part] or [name for name in names if _same_letters(name, part)]
        if not similar:
            return ""
        found /= min(similar)
    return str(found) if (root / found).is_file() else ""


def _same_letters(name: str, other: str) -> bool:
    first, second = (unicodedata.normalize("NFKC", text).casefold() for text in (name, other))
    return first == second or first.rpartition(".")[0] == second
