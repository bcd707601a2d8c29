"""Safe display of untrusted text, CSV cells, and compact string columns."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

#: Rows converted to Python objects at a time.
BLOCK_ROWS = 4096

#: First characters of a cell that Excel, LibreOffice or Google Sheets may take for a formula, their full-width forms
#: included (OWASP, CSV Injection: https://owasp.org/www-community/attacks/CSV_Injection).
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

#: Minimum :mod:`difflib` similarity of a suggested name.
NEAR = 0.6

#: Lone surrogates, some of which stand for bytes that are not UTF-8.
SURROGATES = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    """Return text that is safe to display: control characters and undecodable bytes become escapes.

    Control characters include line ends and those that change the direction of writing; right-to-left letters stay.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in with_escapes(text)
    )


def with_escapes(text: str) -> str:
    r"""Return valid Unicode: bytes that are not UTF-8 become ``\xff``, other lone surrogates ``\ud800``."""

    def escape(found: re.Match[str]) -> str:
        code = ord(found[0])  # some surrogates stand for bytes (PEP 383)
        return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"

    return SURROGATES.sub(escape, text)


def class_name(text: str) -> str:
    """Return the normalised name of a class: NFC (Unicode Annex 15), without surrounding spaces."""
    if text.isascii():
        return text.strip() or text
    return unicodedata.normalize("NFC", text).strip() or text


def counted(n: int, what: str = "image") -> str:
    """Return a count with its noun: ``1 image``, ``2 images``, ``3 classes``."""
    return f"{n:,} {what}{'' if n == 1 else 'es' if what.endswith('s') else 's'}"


def listed(items: Iterable[str], most: int, separator: str = ", ") -> str:
    """Return the first of several texts, and how many more there are."""
    found = list(items)
    more = f"{separator.rstrip(' ,')} and {len(found) - most:,} more" if len(found) > most else ""
    return separator.join(found[:most]) + more


def reason_of(error: Exception) -> str:
    """Return the reason of an I/O error, without error number and path."""
    return getattr(error, "strerror", None) or str(error)


def did_you_mean(given: Iterable[str], known: Iterable[str]) -> str:
    """Return a question that suggests known names similar to the given ones; empty if none is similar.

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
    """Return plain JSON types: NaN and infinities become None, undecodable text becomes escapes."""
    if isinstance(value, Mapping):
        return {json_value(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return with_escapes(value) if isinstance(value, str) else value


def csv_cell(value: Any, *, raw: bool = False) -> Any:
    """Return a value for a CSV cell; text that a spreadsheet would take for a formula gets a leading ``'``, unless ``raw``.

    A formula begins, after spaces, with one of ``= + - @``, a tab or a line end.

    Examples
    --------
    >>> csv_cell("=1+1"), csv_cell("ant"), csv_cell(-0.5)
    ("'=1+1", 'ant', -0.5)
    """
    if raw or not isinstance(value, str) or not value.lstrip(" ").startswith(FORMULA_STARTS):
        return value
    return f"'{value}"


def plain_cell(cell: str) -> str:
    """Return the text that :func:`csv_cell` turned into a cell."""
    return cell[1:] if cell.startswith("'") and csv_cell(cell[1:]) == cell else cell


class TextColumn(Sequence[str]):
    """A sequence of strings stored as one block of bytes; Python strings are created on access.

    ``data`` are the encoded strings, concatenated, and ``ends`` the end offset of each, shape (n_rows,).
    """

    def __init__(self, data: bytes, ends: NDArray[np.int64]) -> None:
        self._data, self._ends = data, ends

    @classmethod
    def from_bytes(cls, values: Iterable[bytes]) -> TextColumn:
        """Return a column of encoded strings."""
        parts = list(values)
        return cls(b"".join(parts), np.cumsum([len(part) for part in parts], dtype=np.int64))

    @classmethod
    def joined(cls, columns: Sequence[TextColumn]) -> TextColumn:
        """Return the concatenation of several columns."""
        if len(columns) == 1:
            return columns[0]
        starts = np.cumsum([0, *(len(column._data) for column in columns)])
        ends = [column._ends + start for column, start in zip(columns, starts[:-1], strict=True)]
        return cls(b"".join([column._data for column in columns]), np.concatenate([np.empty(0, np.int64), *ends]))

    def __len__(self) -> int:
        return len(self._ends)

    def taken(self, rows: NDArray[np.int64]) -> TextColumn:
        """Return a column of the given rows."""
        return TextColumn.from_bytes(map(self.raw, rows.tolist()))

    def take(self, rows: NDArray[np.int64]) -> Iterator[str]:
        """Yield the strings of the given rows."""
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
        """Return the rows that contain a pattern, ascending."""
        starts = [found.start() for found in pattern.finditer(self._data)]
        return np.unique(np.searchsorted(self._ends, np.array(starts, np.int64), side="right"))

    def raw(self, row: int) -> bytes:
        """Return the encoded string of a row."""
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
