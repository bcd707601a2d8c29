"""Files of one picture or several → the picture that the rules name."""

from __future__ import annotations

from typing import Protocol

from headstart.errors import ImageError
from headstart.images.rules import DecodeRules
from headstart.images.samples import Samples, project

#: A projection looks at so many times the pixels that a single picture may have, at most.
MAX_PROJECTED = 4


class PictureFile(Protocol):
    """An opened file of at least one picture; every reader of images/ returns one."""

    #: Name of the format, as Pillow writes it.
    format: str

    #: Width and height of the first picture as it is stored, pixels; checked against the limit before it is opened further.
    size: tuple[int, int]

    def is_deep(self) -> bool:
        """Return whether the first picture may have samples of more than 8 bits; nothing is decoded for it."""
        ...

    def more(self) -> str:
        """Return the note of others behind the first picture: ``first-frame``, ``-page`` or ``-view``; else nothing."""
        ...

    def n_pictures(self) -> int:
        """Return how many pictures there are; three pages that are the colours of one picture count once."""
        ...

    def read(self, number: int, notes: list[str]) -> Samples:
        """Return the picture of this number, from 0 on, upright; what was done to it is added to the notes, once."""
        ...


def chosen_picture(file: PictureFile, rules: DecodeRules, max_pixels: int, notes: list[str]) -> Samples:
    """Return the samples of the picture that the rules name.

    Raises
    ------
    ImageError
        If there is no such page, or the pages have no common picture, or too many pixels in all.
    """
    if rules.page is None:
        samples = file.read(0, notes)
        if note := file.more():
            notes.append(note)
        return samples
    n_pictures = file.n_pictures()
    if isinstance(rules.page, int):
        if rules.page > n_pictures:
            raise ImageError(f"there is no page {rules.page}: it has {n_pictures:,}")
        return file.read(rules.page - 1, notes)
    n_pixels = n_pictures * file.size[0] * file.size[1]
    if n_pictures > 1 and n_pixels > MAX_PROJECTED * max_pixels:
        raise ImageError(
            f"too large: {n_pictures:,} pages of {n_pixels:,} pixels, at most {MAX_PROJECTED * max_pixels:,} are read"
        )
    return project((file.read(number, notes) for number in range(n_pictures)), rules.page)
