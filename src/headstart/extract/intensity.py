"""The intensities of a data set: the sample values that become black and white in all its images."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np

from headstart.errors import HeadstartError, ImageError
from headstart.extract.shard_jobs import ShardJob
from headstart.images.decode import LARGE_PIXELS, MAX_PIXELS, one_large_image, open_file, readable_errors
from headstart.images.discovery.scan import ImageSet
from headstart.images.load import read_image_bytes
from headstart.images.read_ahead import in_order, threads_of
from headstart.images.samples import DecodeRules, Samples, check_finite, check_kind, chosen_picture
from headstart.types import ImageRef, Progress

#: Percentiles of each image that are its limits; ``percentiles`` excludes a few hot or dead pixels, and at most half a
#: percent of any image at either end.
PERCENTILES = {"range": (0.0, 100.0), "percentiles": (0.5, 99.5)}


def find_intensity(
    images: ImageSet, job: ShardJob, how: str, page: int | str | None, progress: Progress
) -> tuple[float, float] | None:
    """Return the sample values that become 0 and 255 in all images; None if no image has more than 8 bits.

    These are the lowest and the highest of the limits of all images, each of which is read, without unreadable ones;
    ``how`` is a key of :data:`PERCENTILES`. Raises HeadstartError if it is unknown.
    """
    if how not in PERCENTILES:
        raise HeadstartError(f"Unknown intensity {how!r}. Expected type, {', '.join(PERCENTILES)} or two numbers.")
    progress.message(f"Looking for the {how} of the intensities of {len(images.refs):,} images")

    def look(ref: ImageRef) -> tuple[float, float] | None:
        try:
            data = read_image_bytes(images.root, ref)
            return _sample_limits(data, ref.path, DecodeRules(page), PERCENTILES[how])
        except ImageError:
            return None

    low, high = math.inf, -math.inf
    for limits in in_order(look, images.refs, threads_of(images.root, job.decode_threads)):
        if limits is not None:
            low, high = min(low, limits[0]), max(high, limits[1])
    if low > high:
        progress.message("No image has more than 8 bits: intensities stay as they are")
        return None
    high = high if high > low else low + 1
    progress.message(f"Intensities {low:g} to {high:g} become black to white")
    return low, high


def _sample_limits(
    data: bytes, name: str, rules: DecodeRules, percentiles: tuple[float, float]
) -> tuple[float, float] | None:
    """Return two percentiles (0–100) of an image's samples; None for an 8-bit image, which is not decoded."""
    with readable_errors():
        file = open_file(data, name, MAX_PIXELS)
        if not file.is_deep():
            return None
        with one_large_image() if math.prod(file.size) >= LARGE_PIXELS else nullcontext():
            return _limits_of(chosen_picture(file, rules, MAX_PIXELS, []), percentiles)


def _limits_of(samples: Samples, percentiles: tuple[float, float]) -> tuple[float, float] | None:
    check_kind(samples.values)
    values = samples.colours
    if values.dtype == np.uint8:
        return None
    check_finite(values)
    if percentiles == (0, 100):
        return float(values.min()), float(values.max())
    low, high = np.percentile(values.astype(np.float64), percentiles)
    return float(low), float(high)
