"""The lowest and the highest sample value of an image of more than 8 bits."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np

from headstart.images.decode import LARGE_PIXELS, MAX_PIXELS, one_large_image, open_file, reasons_in_words
from headstart.images.pages import chosen_picture
from headstart.images.rules import DecodeRules
from headstart.images.samples import Samples, check_finite, check_kind


def sample_limits(
    data: bytes, name: str, rules: DecodeRules, percentiles: tuple[float, float]
) -> tuple[float, float] | None:
    """Return two percentiles of the samples of an image; None where it has 8 bits, and is then not decoded.

    Parameters
    ----------
    data, name : bytes, str
        The whole file, and its name.
    rules : DecodeRules
        Which page is looked at.
    percentiles : tuple of float
        0 to 100; 0 and 100 are the lowest and the highest value.

    Raises
    ------
    ImageError
        If it cannot be read, or has values that are not numbers.
    """
    with reasons_in_words():
        file = open_file(data, name, MAX_PIXELS)
        if not file.is_deep():
            return None
        with one_large_image() if math.prod(file.size) >= LARGE_PIXELS else nullcontext():
            return limits_of(chosen_picture(file, rules, MAX_PIXELS, []), percentiles)


def limits_of(samples: Samples, percentiles: tuple[float, float]) -> tuple[float, float] | None:
    """Return two percentiles of samples; None where they are of 8 bits. Raises as :func:`sample_limits`."""
    check_kind(samples.values)
    values = samples.colours
    if values.dtype == np.uint8:
        return None
    check_finite(values)
    if percentiles == (0, 100):
        return float(values.min()), float(values.max())
    low, high = np.percentile(values.astype(np.float64), percentiles)
    return float(low), float(high)
