"""Stored samples to 8-bit RGB by one rule for the whole data set; several pages to one image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headstart.errors import ImageError, ParameterError
from headstart.types import PROJECTIONS, Recipe, checked_intensity, checked_page

Pixels: TypeAlias = NDArray[np.uint8]
Curve: TypeAlias = Callable[[NDArray[Any]], NDArray[np.float64]]

#: Named ways to choose the sample values that become black and white: the limits of the type, or a range measured on the
#: data set (extract/network.py).
INTENSITIES = ("type", "range", "percentiles")

#: Images are converted in strips of this many pixels, to avoid float64 copies of whole images.
STRIP_PIXELS = 4_000_000

#: An image is noted as ``low-range`` if it uses fewer than this many of the 256 levels, and these either span at most half as
#: many levels or come from at least twice as many different values. 14 bits in a 16-bit type use 64 levels, 12 bits 16.
LOW_LEVELS = 128

#: Largest sample of an image in which different values are counted.
COUNTED_VALUES = 1_000_000

#: Notes on the file's own window, dropped where the recipe's range replaces it.
WINDOW_NOTES = frozenset({"window", "window-unusable"})

#: Largest size of all pages of a projection together, as a multiple of the largest size of one picture.
MAX_PROJECTED = 4


@dataclass(frozen=True, slots=True)
class DecodeRules:
    """How images are decoded; the same for all images of a cache."""

    #: Page of a multi-page file, counted from 1; ``max`` or ``mean`` over all pages; None for the first.
    page: int | str | None = None
    #: Sample values that become 0 and 255 in images of more than 8 bits; values outside are clipped. None for the
    #: limits of the image's type (:func:`type_limits`).
    intensity: tuple[float, float] | None = None
    random_crop: int = 0  # number of the random crop that is taken (images/resize.py); 0 for the whole image

    @classmethod
    def of(cls, recipe: Recipe) -> DecodeRules:
        """Return the rules of a recipe."""
        return cls(recipe.page, recipe.intensity, recipe.random_crop)


DEFAULT_RULES = DecodeRules()


def parse_page(text: str) -> int | str | None:
    """Return the page given on the command line, None for the first; raise ParameterError if it is invalid."""
    try:
        return None if text == "1" else checked_page(text if text in PROJECTIONS else int(text))
    except ValueError:
        raise ParameterError(
            f"A page is a number, 1 or more, or {' or '.join(PROJECTIONS)}. Received: {text!r}."
        ) from None


def parse_intensity(text: str) -> str | tuple[float, float]:
    """Return the intensities given on the command line, a name or ``LOW:HIGH``; raise ParameterError for others."""
    if text in INTENSITIES:
        return text
    try:
        return checked_intensity([float(value) for value in text.split(":")])
    except ValueError:
        raise ParameterError(
            f"Intensities are {', '.join(INTENSITIES)}, or LOW:HIGH, e.g. 0:4095. Received: {text!r}."
        ) from None


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples as a file stores them."""

    #: Shape (height, width): booleans, integers or floats; the channels are grey, grey and alpha, RGB, or RGB and
    #: alpha. uint8 values are final pixels, which no rule changes.
    values: NDArray[Any]
    #: Values that are black and white according to the file, e.g. 0 and 4,095 for 12 bits in 16; None for those of the
    #: type.
    limits: tuple[float, float] | None = None
    #: Whether the lower value is white (TIFF: PhotometricInterpretation 0; DICOM: MONOCHROME1).
    white_is_zero: bool = False
    #: Maps values to fractions of white, 0 to 1, where the file defines a curve; replaces the limits. Equal curves map
    #: equally.
    curve: Curve | None = None

    @property
    def n_colours(self) -> int:
        """Number of channels besides alpha: 1 or 3."""
        return 1 if self.values.ndim == 2 or self.values.shape[2] < 3 else 3

    @property
    def colours(self) -> NDArray[Any]:
        """The channels besides alpha, shape (height, width, 1 or 3)."""
        return self.values.reshape(*self.values.shape[:2], -1)[:, :, : self.n_colours]

    @property
    def alpha(self) -> NDArray[Any] | None:
        """The alpha channel, shape (height, width); None if there is none."""
        has_alpha = self.values.ndim == 3 and self.values.shape[2] in {2, 4}
        return self.values[:, :, -1] if has_alpha else None


def type_limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return the values that are black and white in a type: its whole range for integers, 0 and 1 for floats."""
    if dtype.kind in "iu":
        return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    return 0.0, 1.0


def to_rgb8(samples: Samples, rules: DecodeRules, notes: list[str]) -> Pixels:
    """Return samples as RGB, shape (height, width, 3), uint8, and note what was lost.

    Values from black to white are scaled linearly to 0–255 and rounded; values outside are clipped. Black and white are
    ``rules.intensity``, else the file's curve or limits, else the limits of the type. Alpha is composited over white. NaN and
    infinite values raise ImageError.
    """
    colours, alpha = samples.colours, samples.alpha
    check_kind(samples.values)
    if rules.intensity is not None:
        notes[:] = [note for note in notes if note not in WINDOW_NOTES]
    if samples.values.dtype == np.uint8:
        levels = 255 - colours if samples.white_is_zero else colours
    else:
        notes.append(f"from-{samples.values.dtype.name}")
        if samples.curve is not None and rules.intensity is None:
            levels = _curved_levels(colours, samples.curve, notes)
        else:
            levels = to_levels(colours, rules.intensity or samples.limits or type_limits(colours.dtype), notes)
        if _uses_few_levels(levels, colours):
            notes.append("low-range")
        if samples.white_is_zero:
            np.subtract(255, levels, out=levels)
    if alpha is not None:
        levels = _on_white(levels, alpha, (samples.limits or type_limits(alpha.dtype))[1], notes)
    return np.repeat(levels, 3, axis=2) if samples.n_colours == 1 else np.ascontiguousarray(levels)


def check_kind(values: NDArray[Any]) -> None:
    """Raise ImageError for complex numbers and for more than four channels."""
    if values.dtype.kind not in "biuf":
        raise ImageError(f"{values.dtype} values are not supported: convert it to 8-bit JPEG, PNG or TIFF")
    if values.ndim not in {2, 3} or (values.ndim == 3 and not 1 <= values.shape[2] <= 4):
        shape = " × ".join(map(str, values.shape))
        raise ImageError(f"a picture of shape {shape} is not supported: convert it to grey or RGB")


def to_levels(values: NDArray[Any], limits: tuple[float, float], notes: list[str]) -> Pixels:
    """Return values of shape (height, width, n_channels) as levels 0–255; note if some were clipped."""
    low, high = limits
    levels = np.empty(values.shape, np.uint8)
    clipped = False
    for rows in strips(values):
        strip = values[rows]
        check_finite(strip)  # before the cast, which warns about signalling NaNs
        strip = strip.astype(np.float64)
        clipped |= bool(strip.size) and bool(strip.min() < low or strip.max() > high)
        strip = (np.clip(strip, low, high) - low) * 255 / (high - low)
        levels[rows] = np.rint(strip)
    if clipped:
        notes.append("clipped")
    return levels


def check_finite(values: NDArray[Any]) -> None:
    """Raise ImageError for NaN and infinite values."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError("contains NaN or infinite values: replace them, or leave the image out")


def _curved_levels(values: NDArray[Any], curve: Curve, notes: list[str]) -> Pixels:
    levels = np.empty(values.shape, np.uint8)
    for rows in strips(values):
        levels[rows] = to_levels(curve(values[rows]), (0.0, 1.0), notes)
    return levels


def strips(values: NDArray[Any]) -> Iterator[slice]:
    """Yield slices of an image's rows, :data:`STRIP_PIXELS` pixels each."""
    step = max(1, STRIP_PIXELS // max(1, values.shape[1]))
    yield from (slice(top, top + step) for top in range(0, len(values), step))


def _uses_few_levels(levels: Pixels, values: NDArray[Any]) -> bool:
    used = np.zeros(256, np.bool_)
    for rows in strips(levels):
        used |= np.bincount(levels[rows].ravel(), minlength=256) > 0
        if np.count_nonzero(used) >= LOW_LEVELS:
            return False
    n_levels = int(np.count_nonzero(used))
    if int(levels.max()) - int(levels.min()) < LOW_LEVELS // 2 + 1:
        return bool(values.max() > values.min())
    flat = values.ravel()
    return len(np.unique(flat[:: -(-flat.size // COUNTED_VALUES)])) >= 2 * n_levels


def _on_white(levels: Pixels, alpha: NDArray[Any], opaque: float, notes: list[str]) -> Pixels:
    """Return levels composited over white; note if some pixel is not opaque."""
    check_finite(alpha)
    if (alpha >= opaque).all():
        return levels
    notes.append("alpha-on-white")
    result = np.empty_like(levels)
    for rows in strips(levels):
        opacity = np.clip(alpha[rows].astype(np.float64) / opaque, 0, 1)[:, :, None]
        result[rows] = np.rint(255 - (255 - levels[rows].astype(np.float64)) * opacity)
    return result


def _project(pages: Iterable[Samples], how: str) -> Samples:
    """Return the ``max`` or ``mean`` of each sample over pages that are read one by one."""
    first, total, count = None, np.empty(0), 0
    for page in pages:
        count += 1
        if first is None:
            first, total = page, page.values.astype(np.float64 if how == "mean" else page.values.dtype)
        elif (page.values.shape, page.values.dtype) != (first.values.shape, first.values.dtype) or (
            (page.limits, page.white_is_zero, page.curve) != (first.limits, first.white_is_zero, first.curve)
        ):
            raise ImageError("its pages differ in size or type and cannot be combined: use `page=NUMBER`")
        else:
            np.add(total, page.values, out=total) if how == "mean" else np.maximum(total, page.values, out=total)
    if first is None:
        raise ImageError("contains no pages")
    if how == "mean":
        mean = total / count
        total = (np.rint(mean) if first.values.dtype.kind in "iub" else mean).astype(first.values.dtype)
    return replace(first, values=total)


class PictureFile:
    """An opened file of one or more pictures; the base class of all readers."""

    #: Pillow's name of the format.
    format: str

    #: Width and height of the first picture as stored, pixels; checked against the limit when the file is opened.
    size: tuple[int, int]

    def is_deep(self) -> bool:
        """Return whether the first picture may have samples of more than 8 bits; nothing is decoded."""
        raise NotImplementedError

    def more(self) -> str:
        """Return ``first-frame``, ``first-page`` or ``first-view`` if more pictures follow the first; else nothing."""
        return "first-frame" if self.n_pictures() > 1 else ""

    def n_pictures(self) -> int:
        """Return the number of pictures; three pages that are the colours of one picture count once."""
        return 1

    def read(self, number: int, notes: list[str]) -> Samples:
        """Return a picture, counted from 0, upright; new notes are added."""
        raise NotImplementedError


def refuse_large(width: int, height: int, max_pixels: int, kind: str = "") -> None:
    """Raise ImageError for more than ``max_pixels``, or none; ``kind`` names the images that the limit applies to."""
    n_pixels = width * height
    if n_pixels > max_pixels:
        raise ImageError(f"too large: {width:,} × {height:,} pixels, at most {max_pixels:,}{kind} are decoded")
    if n_pixels < 1:
        raise ImageError(f"holds no pixels: {width} × {height}")


def add_notes(notes: list[str], found: Iterable[str]) -> None:
    """Append the notes that are not in the list yet."""
    notes += [note for note in dict.fromkeys(found) if note not in notes]


def chosen_picture(file: PictureFile, rules: DecodeRules, max_pixels: int, notes: list[str]) -> Samples:
    """Return the samples of the page, or of the projection of all pages, that the rules name.

    Raises ImageError if there is no such page, or the pages differ, or have too many pixels in total.
    """
    if rules.page is None:
        samples = file.read(0, notes)
        if note := file.more():
            notes.append(note)
        return samples
    n_pictures = file.n_pictures()
    if isinstance(rules.page, int):
        if rules.page > n_pictures:
            raise ImageError(f"there is no page {rules.page}: the file has {n_pictures:,}")
        return file.read(rules.page - 1, notes)
    n_pixels = n_pictures * file.size[0] * file.size[1]
    if n_pictures > 1 and n_pixels > MAX_PROJECTED * max_pixels:
        raise ImageError(
            f"too large: {n_pictures:,} pages of {n_pixels:,} pixels in all, at most {MAX_PROJECTED * max_pixels:,} are read"
        )
    return _project((file.read(number, notes) for number in range(n_pictures)), rules.page)
