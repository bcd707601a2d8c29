"""What a recipe says of decoding: which page is taken, and which sample values are black and white."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headstart.schema import Recipe


@dataclass(frozen=True, slots=True)
class DecodeRules:
    """How images are decoded; the same for all images of a cache.

    Attributes
    ----------
    page : int, str or None
        Page of a file of several, counted from 1; ``max`` or ``mean`` of all of them; None: the first.
    intensity : tuple of float or None
        The sample values that become 0 and 255, in images of more than 8 bits; values outside are clipped. None: those of
        the image's type (:func:`headstart.images.samples.type_limits`).
    """

    page: int | str | None = None
    intensity: tuple[float, float] | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> DecodeRules:
        """Return the rules of a recipe."""
        return cls(recipe.page, recipe.intensity)


#: What holds where nothing else is asked for.
DEFAULT_RULES = DecodeRules()
