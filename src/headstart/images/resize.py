"""The resize presets: from an image of any size to the square input of the network."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from headstart.errors import HeadstartError

Box: TypeAlias = tuple[float, float, float, float]

#: Pillow's names of the formats whose decoder can scale an image down.
DRAFT_FORMATS = frozenset({"JPEG", "MPO"})

#: Rows computed at a time, so that intermediate values stay in the CPU cache: twice as fast as all rows at once.
BLOCK_ROWS = 32

#: Image sizes whose interpolation positions are cached.
SIZES_KEPT = 256

#: Two threads that resize at the same time are slower than one, since they pass the GIL to each other at every short NumPy
#: call. While one resizes, the others read and decode, which releases the GIL.
_one_at_a_time = threading.Lock()

#: Presets that let the JPEG decoder scale a large image down before the resize.
DRAFT_PRESETS = frozenset({"jpeg-draft"})


def resize(
    pixels: NDArray[np.uint8], size_px: int, preset: str = "keras-bilinear", box: Box | None = None
) -> NDArray[np.uint8]:
    """Return RGB pixels, uint8 of shape (height, width, 3), as a square; the aspect ratio is not kept, as in Keras.

    ``preset`` is a key of :data:`RESIZE_PRESETS`, else HeadstartError is raised. ``box`` holds the edges of the image
    within the pixels, for :data:`DRAFT_PRESETS`.
    """
    if preset not in RESIZE_PRESETS:
        raise HeadstartError(f"Unknown resize preset {preset!r}. Expected one of: {', '.join(RESIZE_PRESETS)}.")
    if box is not None and preset in DRAFT_PRESETS:
        return _pillow_antialias(pixels, size_px, box)
    return RESIZE_PRESETS[preset](pixels, size_px)


#: Share of the area of an image that a random crop has, and its aspect, width by height, relative to that of the image: the
#: resize does not keep the aspect, so that a crop is as much narrower or wider to the network than its image. Narrower than
#: those of Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 6 (area from 0.08), where a network learns.
CROP_AREA, CROP_ASPECT = (0.6, 1.0), (3 / 4, 4 / 3)

#: Crops that are tried until one fits into the image, which two of five do; else the whole image is taken.
CROP_ATTEMPTS = 10


def resize_crop(
    pixels: NDArray[np.uint8], size_px: int, preset: str, *, seed: bytes, number: int, box: Box | None = None
) -> NDArray[np.uint8]:
    """Return what :func:`resize` does for a :func:`random_crop` of an image, mirrored left to right where it says so."""
    height, width = pixels.shape[:2]
    left, upper, right, lower = box or (0.0, 0.0, width, height)
    (x, y, crop_width, crop_height), flipped = random_crop(seed, number, int(right - left), int(lower - upper))
    if box is None:
        resized = resize(pixels[y : y + crop_height, x : x + crop_width], size_px, preset)
    else:
        inner = (left + x, upper + y, left + x + crop_width, upper + y + crop_height)
        resized = resize(pixels, size_px, preset, inner)
    return np.ascontiguousarray(resized[:, ::-1] if flipped else resized)


def random_crop(seed: bytes, number: int, width: int, height: int) -> tuple[tuple[int, int, int, int], bool]:
    """Return a random crop of an image, left, upper, width and height in pixels, and whether it is mirrored.

    Area and logarithm of the aspect are uniform within :data:`CROP_AREA` and :data:`CROP_ASPECT`, and so is the place. All
    depends on ``seed``, the digest of the image's bytes, the number of the crop and the size of the image alone: the random
    numbers are digits of SHA-256.
    """
    flipped = False
    for attempt in range(CROP_ATTEMPTS):
        area, aspect, x, y, side = _uniforms(b"random-crop-1\0%s%d %d" % (seed, number, attempt))
        flipped = side < 0.5 if attempt == 0 else flipped
        share = CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * area
        ratio = CROP_ASPECT[0] * (CROP_ASPECT[1] / CROP_ASPECT[0]) ** aspect
        crop_width, crop_height = round(width * math.sqrt(share * ratio)), round(height * math.sqrt(share / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            place = int(x * (width - crop_width + 1)), int(y * (height - crop_height + 1))
            return (*place, crop_width, crop_height), flipped
    return (0, 0, width, height), flipped


def _uniforms(text: bytes) -> list[float]:
    """Return five numbers from 0 to below 1 that are the digits of a digest."""
    digest = hashlib.sha256(text).digest()
    return [int.from_bytes(digest[start : start + 6]) / 2**48 for start in range(0, 30, 6)]


def keras_bilinear(pixels: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Return the output of ``keras.layers.Resizing(size_px, size_px)``, rounded to integers.

    Bilinear between the four nearest pixels, half-pixel centres, no antialiasing; in float32 and in the order of
    operations of TensorFlow's ResizeBilinear kernel (core/kernels/image/resize_bilinear_op.cc).
    """
    height, width = pixels.shape[:2]
    if (height, width) == (size_px, size_px):
        return pixels
    top, bottom, y = neighbours(height, size_px)
    left, right, weight = _value_neighbours(width, size_px)
    blend = partial(_blend_columns, left=left, right=right, weight=weight)
    resized = np.empty((size_px, size_px * 3), np.uint8)
    with _one_at_a_time:
        for start in range(0, size_px, BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            upper, lower = _blend_rows(pixels, top[rows], bottom[rows], blend)
            lower -= upper
            lower *= y[rows, None]
            lower += upper
            resized[rows] = np.rint(lower, out=lower)
    return resized.reshape(size_px, size_px, 3)


def _pillow_antialias(pixels: NDArray[np.uint8], size_px: int, box: Box | None = None) -> NDArray[np.uint8]:
    """Return Pillow's bilinear resize of the image or of a box in it, which averages all covered pixels."""
    return np.asarray(Image.fromarray(pixels).resize((size_px, size_px), Image.Resampling.BILINEAR, box))


@dataclass(frozen=True, slots=True)
class Draft:
    """A JPEG decoded at a reduced scale."""

    full_size: tuple[int, int]  # width and height of the original
    size: tuple[int, int]  # width and height of the decoded image
    #: Left, upper, right and lower edge of the original within the decoded image, pixels: if the size is no multiple
    #: of the scale, the last column and row reach beyond the original.
    box: Box

    def upright(self, orientation: int) -> tuple[Box, tuple[int, int]]:
        """Return the box and the full size after the image was turned by this EXIF orientation."""
        left, upper, right, lower = self.box
        if orientation in {2, 3, 7, 8}:
            left, right = self.size[0] - right, self.size[0] - left
        if orientation in {3, 4, 6, 7}:
            upper, lower = self.size[1] - lower, self.size[1] - upper
        if orientation >= 5:
            return (upper, left, lower, right), self.full_size[::-1]
        return (left, upper, right, lower), self.full_size


def start_draft(image: ImageFile.ImageFile, size_px: int) -> Draft | None:
    """Set a JPEG to be decoded at 1/2, 1/4 or 1/8: the smallest scale at which both sides stay longer than ``size_px``.

    Images of up to twice ``size_px`` are therefore decoded in full. None for other formats.
    """
    full_size = image.size
    drafted = image.draft(None, (size_px + 1, size_px + 1)) if image.format in DRAFT_FORMATS else None
    return Draft(full_size, image.size, drafted[1]) if drafted is not None else None


def held_pixels(image: ImageFile.ImageFile, draft: Draft | None) -> int:
    """Return how many pixels decoding holds in memory: all of a progressive JPEG, which is stored in several passes."""
    width, height = draft.full_size if draft is not None and image.info.get("progressive") else image.size
    return width * height


def _blend_rows(
    pixels: NDArray[np.uint8],
    top: NDArray[np.intp],
    bottom: NDArray[np.intp],
    blend: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the blended rows above and below some output rows; neighbouring rows are blended only once."""
    first, end = int(top[0]), int(bottom[-1]) + 1
    if end - first > 2 * len(top):
        return blend(pixels[top]), blend(pixels[bottom])
    blended = blend(pixels[first:end])
    # mode="clip" avoids a copy; no index is out of range.
    return blended.take(top - first, axis=0, mode="clip"), blended.take(bottom - first, axis=0, mode="clip")


def _blend_columns(
    rows: NDArray[np.uint8], left: NDArray[np.intp], right: NDArray[np.intp], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return ``left + (right − left) · weight`` for some rows, float32.

    The positions and weights have shape (size_px * 3,): one for each output value of a row of RGB pixels.
    """
    values = rows.reshape(len(rows), -1)
    start = values.take(left, axis=1, mode="clip").astype(np.float32)
    end = values.take(right, axis=1, mode="clip").astype(np.float32)
    end -= start
    end *= weight
    end += start
    return end


@lru_cache(SIZES_KEPT)
def _value_neighbours(width: int, size_px: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return :func:`neighbours` for every value of a row of RGB pixels; each of shape (size_px * 3,)."""
    first, second, weight = neighbours(width, size_px)
    left, right = ((column[:, None] * 3 + np.arange(3)).ravel() for column in (first, second))
    return left, right, weight.repeat(3)


@lru_cache(SIZES_KEPT)
def neighbours(n_in: int, n_out: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return the input positions around each output position, and the float32 weight of the second; cached, read-only."""
    scale = np.float32(n_in) / np.float32(n_out)
    positions = (np.arange(n_out, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    lower = np.floor(positions)
    first = np.maximum(lower, 0).astype(np.intp)
    second = np.minimum(np.ceil(positions), n_in - 1).astype(np.intp)
    return first, second, positions - lower


#: Preset → function; the name is part of the recipe.
RESIZE_PRESETS: dict[str, Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]] = {
    "keras-bilinear": keras_bilinear,
    "pillow-antialias": _pillow_antialias,
    "jpeg-draft": _pillow_antialias,
}
