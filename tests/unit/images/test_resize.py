from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from headstart.errors import HeadstartError
from headstart.images.resize import resize


def test_bilinear_by_hand() -> None:
    pixels = np.array([[0, 100]], np.uint8)[:, :, None].repeat(3, axis=2)
    assert resize(pixels, 4)[0, :, 0].tolist() == [0, 25, 75, 100]


def test_the_same_size_is_the_same_image() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize(pixels, 16), pixels)


def test_antialiased_is_pillows() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 30, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize(pixels, 16, "pillow-antialias"), expected)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(HeadstartError, match="keras-bilinear, pillow-antialias"):
        resize(np.zeros((2, 2, 3), np.uint8), 2, "lanczos")


def test_turned_views_are_resized_as_their_copies_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 30, 3), dtype=np.uint8)
    turned = pixels[::-1].swapaxes(0, 1)
    np.testing.assert_array_equal(resize(turned, 16), resize(np.ascontiguousarray(turned), 16))


@pytest.mark.slow  # TensorFlow takes seconds to import
def test_bit_for_bit_what_keras_gives() -> None:
    from headstart.runtime import import_keras

    layers = import_keras().layers
    rng = np.random.default_rng(0)
    shapes = [
        (1, 1),
        (1, 7),
        (2, 3),
        (224, 225),
        (223, 224),
        (500, 375),
        (333, 500),
        (1000, 13),
        (13, 2500),
        (3000, 3),
        (768, 1024),
    ]
    for height, width in [*shapes, *rng.integers(1, 700, (20, 2)).tolist()]:
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        for size in (224, 35):
            expected = np.asarray(layers.Resizing(size, size)(pixels[None].astype(np.float32)))[0]
            np.testing.assert_array_equal(resize(pixels, size), np.rint(expected).astype(np.uint8))
