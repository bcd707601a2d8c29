"""Images that are no files: bytes, PIL images and arrays are decoded and predicted as the files of the same content."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bundles import fitted
from fakes import FakeBackbone
from headstart.errors import DataError
from headstart.images.decode import decode
from headstart.predict import Predictor
from pictures import encoded, encoded_pictures, in_mode, quadrants

FILES = encoded_pictures()


def predictor() -> Predictor:
    backbone = FakeBackbone()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 35, 35, 3), dtype=np.uint8)
    return Predictor(fitted("ridge", backbone.forward(pixels)), backbone=backbone)


@pytest.mark.parametrize("is_loaded", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_an_image_opened_by_pillow_is_decoded_as_its_file(name: str, is_loaded: bool) -> None:
    image = Image.open(io.BytesIO(FILES[name]))
    if is_loaded:
        image.load()
    given, of_file = decode(image), decode(FILES[name], name=name)
    np.testing.assert_array_equal(given.pixels, of_file.pixels)
    assert (given.notes, given.format) == (of_file.notes, of_file.format)


@pytest.mark.parametrize("is_loaded", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_an_image_opened_by_pillow_is_turned_as_its_file(kind: str, orientation: int, is_loaded: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(quadrants(), kind, exif=exif)
    image = Image.open(io.BytesIO(data))
    if is_loaded:
        image.load()
    given, of_file = decode(image), decode(data)
    np.testing.assert_array_equal(given.pixels, of_file.pixels)
    assert (given.width_px, given.height_px) == (of_file.width_px, of_file.height_px)
    assert is_loaded or given.notes == of_file.notes


def test_16_bit_colours_of_which_pillow_keeps_8_bits_are_noted() -> None:
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, np.arange(30 * 40 * 3, dtype=np.uint16).reshape(30, 40, 3), photometric="rgb")
    assert "upper-bits" in decode(Image.open(file)).notes


def test_files_bytes_images_and_arrays_have_equal_probabilities(tmp_path: Path) -> None:
    for mode in ("L", "RGB", "RGBA"):
        image = in_mode(quadrants(), mode)
        if mode == "RGBA":
            image.putalpha(Image.linear_gradient("L").resize(image.size))
        image.save(tmp_path / f"{mode}.png")
        path = tmp_path / f"{mode}.png"
        inputs: list[Any] = [path, str(path), path.read_bytes(), Image.open(path), image, np.asarray(image)]
        found = list(predictor().predict(inputs))
        # A path that is given twice is one image.
        assert [one.path for one in found] == [str(path), *(f"inputs[{number}]" for number in range(2, 6))]
        assert all(np.array_equal(one.probabilities, found[0].probabilities) for one in found)  # type: ignore[arg-type]
        assert all(one.notes == found[0].notes for one in found)
        assert ("alpha-on-white" in found[0].notes) == (mode == "RGBA")


def test_predictions_come_in_the_order_of_the_inputs(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    arrays: list[Any] = [rng.integers(0, 256, (20, 30, 3), dtype=np.uint8) for _ in range(9)]
    for number in range(9):
        Image.fromarray(arrays[number]).save(tmp_path / f"{number}.png")
    mixed: list[Any] = [*arrays[:3], b"no image", tmp_path / "3.png", (tmp_path / "4.png").read_bytes(), *arrays[5:]]
    expected = list(predictor().predict([tmp_path / f"{number}.png" for number in range(9)]))
    found = list(predictor().predict(mixed))
    assert found[3].probabilities is None
    assert "not an image" in found[3].failure
    for one, other in zip([*found[:3], *found[4:]], expected, strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_the_same_object_given_twice_is_predicted_twice() -> None:
    image = Image.open(io.BytesIO(FILES["JPEG_RGB.jpeg"]))
    first, second = predictor().predict([image, image])
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    assert (first.path, second.path) == ("inputs[0]", "inputs[1]")


def test_a_single_input_needs_no_list(tmp_path: Path) -> None:
    quadrants().save(tmp_path / "a.png")
    single: list[Any] = [tmp_path / "a.png", str(tmp_path / "a.png"), quadrants(), np.asarray(quadrants())]
    found = [list(predictor().predict(one)) for one in single]
    assert [len(one) for one in found] == [1, 1, 1, 1]
    assert len({one[0].probabilities.tobytes() for one in found}) == 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            np.zeros((5, 5, 3), np.float32),
            r"inputs\[0\] is an array of float32 with the shape \(5, 5, 3\)\. Expected: uint8",
        ),
        (np.zeros((5, 5), np.uint16), "array of uint16"),
        (np.zeros((2, 5, 5, 3), np.uint8), r"shape \(2, 5, 5, 3\).*a list of arrays"),
        (np.zeros((5, 5, 1), np.uint8), r"shape \(5, 5, 1\)"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\)"),
        (np.zeros(5, np.uint8), r"shape \(5,\)"),
        (3, "of the type int. Expected: a path, the bytes of an image file, a PIL image, or a NumPy array"),
        ([[0, 1], [1, 0]], "of the type list"),
    ],
)
def test_anything_else_is_refused_before_anything_is_predicted(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        next(predictor().predict([value, FILES["JPEG_RGB.jpeg"]]))
