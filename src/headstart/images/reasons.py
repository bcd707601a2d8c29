"""What Pillow raises → a reason that a person understands."""

from __future__ import annotations

import re

from PIL import Image

from headstart.images.formats import unsupported_format

#: What Pillow's message contains, in lower case → the reason. The first that fits is taken.
REASONS = (
    (
        r"max_text|decompressed data too large",
        "refused: its text or colour profile unpacks to more than a picture needs",
    ),
    (r"security limit|memory allocation", "too large: decoding it needs more memory than is allowed"),
    (r"truncated|not enough|ran out|too short|end of file", "truncated: the file ends before the picture does"),
    (
        r"unsupported|not supported|unknown|cannot handle|unimplemented|not implemented",
        "of a kind that is not supported",
    ),
    (r"decoder error|data stream", "damaged, or compressed in a way that is not supported"),
)


#: What readers say of sound files of kinds that they do not read → what these are called.
UNREAD_KINDS = (
    (re.compile(r"JPEG: cannot handle (\d+)-bit layers"), "JPEG of {} bits"),
    (re.compile(r"PSD: \(\d+, (\d+)\)"), "PSD of this colour mode and {} bits"),
)


def explain(error: Exception) -> str:
    """Return why an image that was recognised cannot be decoded."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        n_pixels, limit = ([*map(int, re.findall(r"\d+", text)), 0, 0])[:2]
        return f"too large: {n_pixels:,} pixels, at most {limit:,} are decoded in this format"
    if isinstance(error, MemoryError):
        return "too large: decoding it needs more memory than there is"
    if isinstance(error, EOFError):
        return "truncated: the file ends before the picture does"
    for pattern, reason in REASONS:
        if re.search(pattern, text.lower()):
            return f"{reason} ({text})"
    return f"damaged: its content is not what its format demands ({text})"


def unidentified(data: bytes, name: str, refusals: list[str]) -> str:
    """Return why no reader took the file.

    Parameters
    ----------
    data : bytes
        The whole file.
    name : str
        Its name.
    refusals : list of str
        What the readers said that knew its first bytes.
    """
    if format_name := unsupported_format(data, name):
        return f"{format_name} is not supported: convert it to JPEG, PNG or TIFF"
    for pattern, kind in UNREAD_KINDS:
        if found := pattern.search("; ".join(refusals)):
            return f"{kind.format(found[1])} is not supported: convert it to PNG or TIFF"
    if refusals:
        return f"damaged: it begins as an image but cannot be read ({'; '.join(refusals)})"
    if not any(data[:4096]):
        return "not an image: the file is filled with zeros"
    return "not an image that can be read: its content is damaged, or of no known format"
