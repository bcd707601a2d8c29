"""Notes of what an image lost while it was decoded, in sentences for the person who extracts its features."""

from __future__ import annotations

from collections.abc import Mapping

#: Note → what it says of so many images, and what can be done.
TOLD_NOTES = {
    "first-page": "of {images} only the first page was taken (--page NUMBER, max or mean)",
    "first-frame": "of {images} only the first frame was taken (--page NUMBER, max or mean, for animations)",
    "low-range": (
        "of {images} few of the 256 levels are left: their values use little of the range of their type "
        "(--intensity range, percentiles or LOW:HIGH)"
    ),
    "clipped": "of {images} values below black or above white were clipped (--intensity range or LOW:HIGH)",
    "window": "of {images} the window of the file decided which values are black and white (--intensity LOW:HIGH for all)",
    "window-unusable": "of {images} the window of the file could not be used: all values are shown (--intensity LOW:HIGH)",
    "pages-are-colours": "of {images} three pages are the colours of one picture",
}  # fmt: skip


def sentences(counts: Mapping[str, int]) -> list[str]:
    """Return a sentence for each note that some images have, without its beginning and end."""
    return [
        text.format(images=f"{counts[note]:,} {'image' if counts[note] == 1 else 'images'}")
        for note, text in TOLD_NOTES.items()
        if counts.get(note)
    ]
