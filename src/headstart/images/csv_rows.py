"""The rows of a table of text as people have it: from Excel, pandas or by hand, in its encoding, with its separator."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from itertools import chain
from typing import IO, cast

from headstart.errors import DataError
from headstart.storage import bucket
from headstart.storage.address import Address, Location

#: Suffixes of files that are taken as tables.
TABLE_SUFFIXES = (".csv", ".tsv", ".txt")

#: Separators, and what stands for none: a character that no path has.
SEPARATORS, NO_SEPARATOR = ",;\t|", "\x1f"

#: The line by which Excel is told of the separator.
SEP_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE | re.DOTALL)

#: First bytes → encoding (The Unicode Standard 23.8, "Byte Order Mark").
MARKS = ((b"\xff\xfe\0\0", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))

#: First bytes of files that are no text → what they are.
OTHER_KINDS = (
    (b"PK\x03\x04", "an Excel workbook, or an archive: save the sheet as CSV UTF-8"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook: save the sheet as CSV UTF-8"),
    (b"\x1f\x8b", "compressed: unpack it"),
    (b"PAR1", "a Parquet table: save it as CSV"),
)

#: Bytes by which the encoding is told.
HEAD_BYTES = 4096


def read_rows(table: Location) -> Iterator[tuple[int, list[str]]]:
    """Yield number of the line and cells of each row, the names of the columns first; rows without a value are passed over.

    The text is UTF-8, or UTF-16 or UTF-32 with a byte order mark. Cells are separated by what a first line ``sep=;`` says,
    else by the comma, semicolon, tab or bar that occurs most often in the first row. Bytes that are not UTF-8 become lone
    surrogates.

    Raises
    ------
    DataError
        If the file cannot be read, or is no table of text.
    """
    try:
        with opened(table) as file:
            number, line = first_line(file)
            separator = SEP_LINE.fullmatch(line)
            if separator:
                skipped, line = first_line(file)
                number += skipped
            mark = separator[1] if separator else separator_of(line)
            reader = csv.reader(chain([line], file), delimiter=mark, skipinitialspace=f"{mark} " in line, strict=True)
            for cells in reader:
                if any(map(str.strip, cells)):
                    yield number + reader.line_num - 1, cells
    except csv.Error as error:
        raise DataError(f'{table} cannot be read as CSV: {error}. Is a quote " opened and not closed?') from error
    except (OSError, UnicodeError) as error:
        raise DataError(f"{table} cannot be read as CSV: {error}") from error


def first_line(file: IO[str]) -> tuple[int, str]:
    """Return the next line that is not blank, and how many lines were read for it; an empty one at the end."""
    number = 0
    for line in iter(file.readline, ""):
        number += 1
        if line.strip():
            return number, line
    return number, ""


def separator_of(line: str) -> str:
    """Return the separator that occurs most often in a line, outside of quotes."""
    bare = re.sub(r'"[^"]*"', "", line)
    best = max(SEPARATORS, key=bare.count)
    return best if best in bare else NO_SEPARATOR


def opened(table: Location) -> IO[str]:
    """Return a table, open for reading; one in a bucket is read whole."""
    data = io.BytesIO(bucket.read(table)) if isinstance(table, Address) else table.open("rb")
    try:
        encoding = encoding_of(data.read(HEAD_BYTES), table)
        data.seek(0)
    except BaseException:
        data.close()
        raise
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    return io.TextIOWrapper(cast("IO[bytes]", data), encoding=encoding, errors=errors, newline="")


def encoding_of(head: bytes, table: Location) -> str:
    """Return the encoding of a text by its first bytes; raise DataError where they are no text."""
    kind = next((kind for magic, kind in OTHER_KINDS if head.startswith(magic)), None)
    if kind:
        raise DataError(f"{table} is no table of text. It is {kind}, and give that.")
    marked = next((encoding for mark, encoding in MARKS if head.startswith(mark)), None)
    if marked is None and b"\0" in head:
        raise DataError(f"{table} is no text, or UTF-16 without a byte order mark. Save it as CSV UTF-8.")
    return marked or "utf-8"
