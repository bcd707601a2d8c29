"""The named ways in which an image becomes the square that the network takes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.images.draft import Box

#: Rows computed at a time, so that what lies between stays in the processor's cache: twice as fast as all at once.
BLOCK_ROWS = 32

#: Sizes whose positions are remembered: those of one camera, or most of a mixed folder's.
SIZES_KEPT = 256

#: Threads that resize at the same time would hand Python's lock to each other at each of a hundred short operations: two
#: of them do less than one alone. While one resizes, the others read and decode, which needs no such lock.
_one_at_a_time = threading.Lock()


def resize(
    pixels: NDArray[np.uint8], size_px: int, preset: str = "keras-bilinear", box: Box | None = None
) -> NDArray[np.uint8]:
    """Return the image as a square.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, 3), uint8
        RGB. The aspect ratio is not kept, as in the Keras tutorials.
    size_px : int
        Height and width of the result.
    preset : str
        One of :data:`RESIZE_PRESETS`.
    box : tuple of float, optional
        Where in the pixels the image lies, for the presets that let the decoder scale it (images/draft.py).

    Raises
    ------
    HeadstartError
        If there is no such preset.
    """
    if preset not in RESIZE_PRESETS:
        raise HeadstartError(f"Unknown resize preset {preset!r}. Expected one of: {', '.join(RESIZE_PRESETS)}.")
    if box is not None and preset in DRAFT_PRESETS:
        return pillow_antialias(pixels, size_px, box)
    return RESIZE_PRESETS[preset](pixels, size_px)


def keras_bilinear(pixels: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Return what ``keras.layers.Resizing(size_px, size_px)`` gives, rounded to whole values.

    Bilinear between the four nearest pixels, half-pixel centres, no antialiasing; in float32 and in the order of
    operations of TensorFlow's ResizeBilinear kernel (core/kernels/image/resize_bilinear_op.cc).
    """
    height, width = pixels.shape[:2]
    if (height, width) == (size_px, size_px):
        return pixels
    top, bottom, y = neighbours(height, size_px)
    left, right, weight = value_neighbours(width, size_px)
    blend = partial(blend_columns, left=left, right=right, weight=weight)
    resized = np.empty((size_px, size_px * 3), np.uint8)
    with _one_at_a_time:
        for start in range(0, size_px, BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            upper, lower = blend_rows(pixels, top[rows], bottom[rows], blend)
            lower -= upper
            lower *= y[rows, None]
            lower += upper
            resized[rows] = np.rint(lower, out=lower)
    return resized.reshape(size_px, size_px, 3)


def blend_rows(
    pixels: NDArray[np.uint8],
    top: NDArray[np.intp],
    bottom: NDArray[np.intp],
    blend: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the rows above and below some output rows, blended; where they lie close, each row is blended once."""
    first, end = int(top[0]), int(bottom[-1]) + 1
    if end - first > 2 * len(top):
        return blend(pixels[top]), blend(pixels[bottom])
    blended = blend(pixels[first:end])
    # "clip" spares a copy; nothing is out of range.
    return blended.take(top - first, axis=0, mode="clip"), blended.take(bottom - first, axis=0, mode="clip")


def blend_columns(
    rows: NDArray[np.uint8], left: NDArray[np.intp], right: NDArray[np.intp], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return ``left + (right − left) · weight`` for some rows, in float32.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, width, 3), uint8
        Rows of the image.
    left, right : ndarray of shape (size_px * 3,), intp
        The two values around each output value, as positions in a row of width · 3 values.
    weight : ndarray of shape (size_px * 3,), float32
        Weight of the right one.
    """
    values = rows.reshape(len(rows), -1)
    start = values.take(left, axis=1, mode="clip").astype(np.float32)
    end = values.take(right, axis=1, mode="clip").astype(np.float32)
    end -= start
    end *= weight
    end += start
    return end


@lru_cache(SIZES_KEPT)
def value_neighbours(width: int, size_px: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return what :func:`neighbours` does for every value of a row of RGB pixels; each shape (size_px * 3,)."""
    first, second, weight = neighbours(width, size_px)
    left, right = ((column[:, None] * 3 + np.arange(3)).ravel() for column in (first, second))
    return left, right, weight.repeat(3)


@lru_cache(SIZES_KEPT)
def neighbours(n_in: int, n_out: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return, for each output position, the two input positions around it and the weight of the second, float32.

    They are the same for all images of a size, and not to be written to.
    """
    scale = np.float32(n_in) / np.float32(n_out)
    positions = (np.arange(n_out, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    floor = np.floor(positions)
    first = np.maximum(floor, 0).astype(np.intp)
    second = np.minimum(np.ceil(positions), n_in - 1).astype(np.intp)
    return first, second, positions - floor


def pillow_antialias(pixels: NDArray[np.uint8], size_px: int, box: Box | None = None) -> NDArray[np.uint8]:
    """Return Pillow's bilinear resize of the image or a box of it, which averages over all that an output pixel covers."""
    return np.asarray(Image.fromarray(pixels).resize((size_px, size_px), Image.Resampling.BILINEAR, box))


#: Presets that let the JPEG decoder scale a large image down before the resize (images/draft.py).
DRAFT_PRESETS = frozenset({"jpeg-draft"})

#: Name → function; the name is part of the recipe.
RESIZE_PRESETS: dict[str, Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]] = {
    "keras-bilinear": keras_bilinear,
    "pillow-antialias": pillow_antialias,
    "jpeg-draft": pillow_antialias,
}
