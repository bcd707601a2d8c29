"""Text of others, as of file names, in a form that can be shown."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return a text that any terminal and any page can show: undecodable bytes and control characters become escapes.

    Control characters are those that turn the direction of writing too; letters that are written from right to left stay.
    """
    decoded = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in decoded)
