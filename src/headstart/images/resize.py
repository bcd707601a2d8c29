"""The named ways in which an image becomes the square that the network takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def resize(pixels: NDArray[np.uint8], size_px: int, preset: str = "keras-bilinear") -> NDArray[np.uint8]:
    """Return the image as a square.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, 3), uint8
        RGB. The aspect ratio is not kept, as in the Keras tutorials.
    size_px : int
        Height and width of the result.
    preset : str
        One of :data:`RESIZE_PRESETS`.

    Raises
    ------
    HeadstartError
        If there is no such preset.
    """
    if preset not in RESIZE_PRESETS:
        raise HeadstartError(f"Unknown resize preset {preset!r}. Expected one of: {', '.join(RESIZE_PRESETS)}.")
    return RESIZE_PRESETS[preset](pixels, size_px)


def keras_bilinear(pixels: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Return what ``keras.layers.Resizing(size_px, size_px)`` gives, rounded to whole values.

    Bilinear between the four nearest pixels, half-pixel centres, no antialiasing; in float32 and in the order of
    operations of TensorFlow's ResizeBilinear kernel (core/kernels/image/resize_bilinear_op.cc).
    """
    if pixels.shape[:2] == (size_px, size_px):
        return pixels
    top, bottom, y = neighbours(pixels.shape[0], size_px)
    left, right, x = neighbours(pixels.shape[1], size_px)
    x, y = x[None, :, None], y[:, None, None]
    upper_rows, lower_rows = pixels[top], pixels[bottom]
    upper = blend(upper_rows[:, left], upper_rows[:, right], x)
    lower = blend(lower_rows[:, left], lower_rows[:, right], x)
    rounded: NDArray[np.uint8] = np.rint(upper + (lower - upper) * y).astype(np.uint8)
    return rounded


def neighbours(n_in: int, n_out: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return, for each output position, the two input positions around it and the weight of the second, float32."""
    scale = np.float32(n_in) / np.float32(n_out)
    positions = (np.arange(n_out, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    floor = np.floor(positions)
    first = np.maximum(floor, 0).astype(np.intp)
    second = np.minimum(np.ceil(positions), n_in - 1).astype(np.intp)
    return first, second, positions - floor


def blend(a: NDArray[np.uint8], b: NDArray[np.uint8], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``a + (b − a) · weight`` in float32."""
    start = a.astype(np.float32)
    blended: NDArray[np.float32] = start + (b.astype(np.float32) - start) * weight
    return blended


def pillow_antialias(pixels: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Return Pillow's bilinear resize, which averages over all pixels that an output pixel covers."""
    return np.asarray(Image.fromarray(pixels).resize((size_px, size_px), Image.Resampling.BILINEAR))


#: Name → function; the name is part of the recipe.
RESIZE_PRESETS: dict[str, Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]] = {
    "keras-bilinear": keras_bilinear,
    "pillow-antialias": pillow_antialias,
}
