"""What a recipe says of decoding: which page is taken, and which sample values are black and white."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart.errors import ParameterError
from headstart.schema import PROJECTIONS, checked_intensity, checked_page

if TYPE_CHECKING:
    from headstart.schema import Recipe

#: Ways to choose the intensities that become black and white, other than by two numbers: the limits of the type, or what the
#: data set has (extract/intensity.py).
INTENSITIES = ("type", "range", "percentiles")


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


def parse_page(text: str) -> int | str | None:
    """Return a page as it is written on the command line; None for the first, which is the default.

    Raises
    ------
    ParameterError
        If it is neither a number from 1 on nor a projection.
    """
    try:
        return None if text == "1" else checked_page(text if text in PROJECTIONS else int(text))
    except ValueError:
        raise ParameterError(
            f"A page is a number, 1 or more, or {' or '.join(PROJECTIONS)}. Received: {text!r}."
        ) from None


def parse_intensity(text: str) -> str | tuple[float, float]:
    """Return intensities as they are written on the command line: a name, or ``LOW:HIGH``.

    Raises
    ------
    ParameterError
        If they are neither.
    """
    if text in INTENSITIES:
        return text
    try:
        return checked_intensity([float(value) for value in text.split(":")])
    except ValueError:
        raise ParameterError(
            f"Intensities are {', '.join(INTENSITIES)}, or two numbers, the lower first, as 0:4095. Received: {text!r}."
        ) from None
