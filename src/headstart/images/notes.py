"""Notes of what an image lost while it was decoded, in sentences for the person who has it decoded."""

from __future__ import annotations

from collections.abc import Mapping

from headstart.texts import counted

#: Note → what it says of so many images, and what changes it, as an option of extract-features.
TOLD_NOTES = {
    "first-page": ("only the first page was taken", "--page NUMBER, max or mean"),
    "first-frame": ("only the first frame was taken", "--page NUMBER, max or mean, for animations"),
    "low-range": (
        "few of the 256 levels are left: their values use little of the range of their type",
        "--intensity range, percentiles or LOW:HIGH",
    ),
    "clipped": ("values below black or above white were clipped", "--intensity range or LOW:HIGH"),
    "upper-bits": (
        "the upper 8 bits of a sample were read, of 10 or more, and no range of intensities applies",
        "convert them to PNG or TIFF",
    ),
    "window": ("the window of the file decided which values are black and white", "--intensity LOW:HIGH for all"),
    "window-unusable": ("the window of the file could not be used: all values are shown", "--intensity LOW:HIGH"),
    "pages-are-colours": ("three pages are the colours of one picture", ""),
}


def sentences(counts: Mapping[str, int], *, with_options: bool = True) -> list[str]:
    """Return a sentence for each note that some images have, without its end.

    Parameters
    ----------
    counts : mapping of str to int
        Note → how many images have it.
    with_options : bool
        Name the options that choose otherwise; a head's recipe has chosen already.
    """
    return [
        f"Decoded: of {counted(counts[note])} {text}{f' ({options})' if options and with_options else ''}"
        for note, (text, options) in TOLD_NOTES.items()
        if counts.get(note)
    ]
