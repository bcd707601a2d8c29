"""Text from others: in a form that can be shown, in a cell of a CSV file, and many strings compact in memory."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

#: Rows of which Python objects are made at once.
BLOCK_ROWS = 4096


#: First characters of a cell that Excel, LibreOffice or Google Sheets may take for a formula, their full-width forms
#: included (OWASP, CSV Injection: https://owasp.org/www-community/attacks/CSV_Injection).
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

#: Least similarity of names of which one may be meant by the other, as :mod:`difflib` counts it.
NEAR = 0.6

#: Half of a character, or what stands for a byte that is not UTF-8.
SURROGATES = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text that any terminal and any page can show: undecodable bytes and control characters become escapes.

    Control characters include line ends and those that change the direction of writing; letters written from right to
    left stay.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in with_escapes(text)
    )


def with_escapes(text: str) -> str:
    r"""Return a text that is Unicode: bytes that are not UTF-8 become ``\xff``, other lone surrogates ``\ud800``."""
    return SURROGATES.sub(lambda found: _escape_of(ord(found[0])), text)


def _escape_of(code: int) -> str:
    """Return the escape of a lone surrogate, of which some stand for bytes (PEP 383)."""
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def class_name(text: str) -> str:
    """Return the name of a class in the form in which it is kept: NFC (Unicode Annex 15), without spaces at its ends."""
    if text.isascii():
        return text.strip() or text
    return unicodedata.normalize("NFC", text).strip() or text


def counted(n: int, what: str = "image") -> str:
    """Return a number of things, as ``1 image``, ``2 images`` and ``3 classes``."""
    return f"{n:,} {what}{'' if n == 1 else 'es' if what.endswith('s') else 's'}"


def reason_of(error: Exception) -> str:
    """Return why something could not be read or written, without number and path, for a message that names the path."""
    return getattr(error, "strerror", None) or str(error)


def did_you_mean(given: Iterable[str], known: Iterable[str]) -> str:
    """Return a question for the known names that are near to those that were given; nothing where none is near.

    Examples
    --------
    >>> did_you_mean(["Bee"], ["ants", "bees"]), did_you_mean(["x"], ["ants", "bees"])
    (' Did you mean bees?', '')
    """
    names = {plain(name): name for name in known}
    near = [names[match] for name in given for match in get_close_matches(plain(name), names, n=3, cutoff=NEAR)]
    return f" Did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""


def plain(name: str) -> str:
    """Return a name without case, accents, spaces, ``_`` and ``-``."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(char for char in letters if not unicodedata.combining(char) and char not in " _-")


def json_value(value: Any) -> Any:
    """Return plain JSON types that every reader takes: None for NaN and infinities, and text that is Unicode."""
    if isinstance(value, Mapping):
        return {json_value(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return with_escapes(value) if isinstance(value, str) else value


def csv_cell(value: Any, *, raw: bool = False) -> Any:
    """Return a value for a cell of a CSV file: text that a spreadsheet would take for a formula begins with ``'``.

    Parameters
    ----------
    value : object
        Text is changed where it begins, after spaces, with one of ``= + - @``, a tab or a line end; anything that is not
        a str stays as it is, so numbers stay numbers.
    raw : bool
        Return text as it is, for programs that read the file and are no spreadsheets.

    Examples
    --------
    >>> csv_cell("=1+1"), csv_cell("ant"), csv_cell(-0.5)
    ("'=1+1", 'ant', -0.5)
    """
    if raw or not isinstance(value, str) or not value.lstrip(" ").startswith(FORMULA_STARTS):
        return value
    return f"'{value}"


def plain_cell(cell: str) -> str:
    """Return the text of which :func:`csv_cell` made a cell."""
    return cell[1:] if cell.startswith("'") and csv_cell(cell[1:]) == cell else cell


class TextColumn(Sequence[str]):
    """Strings as one block of bytes; a Python string is made when it is asked for.

    Parameters
    ----------
    data : bytes
        All strings, end to end.
    ends : ndarray of shape (n_rows,), int64
        Where each one ends.
    """

    def __init__(self, data: bytes, ends: NDArray[np.int64]) -> None:
        self._data, self._ends = data, ends

    @classmethod
    def from_bytes(cls, values: Iterable[bytes]) -> TextColumn:
        """Return the column of some encoded strings."""
        parts = list(values)
        return cls(b"".join(parts), np.cumsum([len(part) for part in parts], dtype=np.int64))

    @classmethod
    def joined(cls, columns: Sequence[TextColumn]) -> TextColumn:
        """Return some columns end to end; a single one as it is."""
        if len(columns) == 1:
            return columns[0]
        starts = np.cumsum([0, *(len(column._data) for column in columns)])
        ends = [column._ends + start for column, start in zip(columns, starts[:-1], strict=True)]
        return cls(b"".join([column._data for column in columns]), np.concatenate([np.empty(0, np.int64), *ends]))

    def __len__(self) -> int:
        return len(self._ends)

    def taken(self, rows: NDArray[np.int64]) -> TextColumn:
        """Return the column of some rows, in the order asked for."""
        return TextColumn.from_bytes(map(self.raw, rows.tolist()))

    def take(self, rows: NDArray[np.int64]) -> Iterator[str]:
        """Yield the strings of some rows, in the order asked for."""
        for block in range(0, len(rows), BLOCK_ROWS):
            part = rows[block : block + BLOCK_ROWS]
            starts = np.where(part > 0, self._ends[part - 1], 0)
            for start, end in zip(starts.tolist(), self._ends[part].tolist(), strict=True):
                yield self._data[start:end].decode("utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TextColumn):
            return NotImplemented
        return self._data == other._data and np.array_equal(self._ends, other._ends)

    __hash__ = None  # type: ignore[assignment]

    def rows_with(self, pattern: re.Pattern[bytes]) -> NDArray[np.int64]:
        """Return the rows whose bytes a pattern is found in, ascending."""
        starts = [found.start() for found in pattern.finditer(self._data)]
        return np.unique(np.searchsorted(self._ends, np.array(starts, np.int64), side="right"))

    def raw(self, row: int) -> bytes:
        """Return the bytes of one string."""
        return self._data[int(self._ends[row - 1]) if row else 0 : int(self._ends[row])]

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        return self.raw(range(len(self))[index]).decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        start = 0
        for block in range(0, len(self), BLOCK_ROWS):
            for end in self._ends[block : block + BLOCK_ROWS].tolist():
                yield self._data[start:end].decode("utf-8", "surrogateescape")
                start = end
