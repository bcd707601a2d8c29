from __future__ import annotations

import csv
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.errors import ImageError
from headstart.images.decode import decode
from headstart.images.discover import discover
from headstart.images.load import load_image
from headstart.schema import ImageRef

#: Sound to Pillow's eye when it only looks at the head, but with pixels that cannot be read.
DAMAGED_ALL_THE_SAME = {"png_1bit/testpngs__crashers_badadler.png", "png_rgb/pil__broken_data_stream.png"}


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def quadrants() -> Image.Image:
    """Red, green, blue and grey quarters, wider than high."""
    image = Image.new("RGB", (40, 20))
    for box, colour in (((0, 0), "red"), ((20, 0), "lime"), ((0, 10), "blue"), ((20, 10), "grey")):
        image.paste(colour, (*box, box[0] + 20, box[1] + 10))
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations_are_undone(orientation: int) -> None:
    upright = quadrants()
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = decode(encoded(stored, "PNG", exif=exif))
    np.testing.assert_array_equal(result.pixels, np.asarray(upright))
    assert (result.width_px, result.height_px) == (40, 20)
    assert bool(result.notes) == (orientation != 1)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP", "TIFF", "AVIF", "PPM", "JPEG2000", "ICO"])
def test_formats(kind: str) -> None:
    options = {
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
        "ICO": {"sizes": [(40, 20)]},
    }.get(kind, {})
    result = decode(encoded(quadrants(), kind, **options))
    assert np.abs(result.pixels.astype(int) - np.asarray(quadrants())).max() <= (4 if kind == "AVIF" else 0)


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        result = decode(encoded(Image.fromarray(values), kind))
        assert result.pixels[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[0.0, 25700.0, 65535.0]], np.float32), [0, 100, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[-5, 0, 100_000]], np.int32), [0, 0, 255]),
    ],
)
def test_32_bit_values_by_their_range(values: np.ndarray, expected: list[int]) -> None:
    assert decode(encoded(Image.fromarray(values), "TIFF")).pixels[0, :, 1].tolist() == expected


def test_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ImageError, match="not numbers"):
        decode(encoded(Image.fromarray(np.array([[np.nan, 1.0]], np.float32)), "TIFF"))


def test_alpha_is_composited_over_white() -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 0), (255, 0, 0, 255), (0, 0, 0, 51)])
    result = decode(encoded(image, "PNG"))
    assert result.pixels[0].tolist() == [[255, 255, 255], [255, 0, 0], [204, 204, 204]]
    assert "alpha-on-white" in result.notes


def test_the_transparent_value_of_a_16_bit_png_is_white() -> None:
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 1000]], np.uint16)).save(file, "PNG", transparency=1000)
    result = decode(file.getvalue())
    assert result.pixels[0, :, 0].tolist() == ([0, 255] if "alpha-on-white" in result.notes else [0, 4])


def test_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "PNG", "TIFF", "WEBP"):
        result = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
        assert result.pixels[0, 0, 0] > 200
        assert "first-frame" in result.notes


def test_a_wrong_suffix_is_noted_and_the_content_decides() -> None:
    data = encoded(quadrants(), "PNG")
    assert decode(data, name="a/photo.jpg").notes == ("named-jpg-is-PNG",)
    assert decode(data, name="a/photo.png").notes == ()
    assert decode(data, name="a/photo").notes == ()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello", "not an image"),
        (bytes(5000), "filled with zeros"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS is not supported"),
        (b"<svg xmlns='x'/>", "SVG is not supported"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(20), "HEIC"),
    ],
)
def test_reasons_that_a_person_understands(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "GIF", "BMP"])
def test_a_truncated_file_is_a_failure_and_not_half_a_picture(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, kind)
    with pytest.raises(ImageError):
        decode(data[: len(data) * 2 // 3])


def test_bombs_are_refused_before_they_are_decoded() -> None:
    data = encoded(Image.new("1", (5000, 5000)), "PNG")
    with pytest.raises(ImageError, match="too large: 5,000 × 5,000"):
        decode(data, max_pixels=1_000_000)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=60)
@given(st.data())
def test_mutated_files_raise_nothing_but_image_errors(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "ICO"]))
    content = bytearray(encoded(quadrants(), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        result = decode(bytes(content))
    except ImageError:
        return
    assert result.pixels.dtype == np.uint8
    assert result.pixels.shape == (result.height_px, result.width_px, 3)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_awkward_files_are_rows_or_failures_with_a_reason(shared: Path) -> None:
    root = shared / "data" / "awkward"
    with (shared / "data" / "awkward_manifest.csv").open(newline="") as file:
        expected = {row["path"]: row["pillow13_status"] for row in csv.DictReader(file)}
    found = discover(root)
    assert {ref.path for ref in found.refs} == set(expected)

    def outcome(ref: ImageRef) -> str:
        try:
            load_image(root, ref, size_px=64, resize_preset="keras-bilinear")
        except ImageError as error:
            return str(error)
        return "ok"

    with ThreadPoolExecutor(4) as pool:
        outcomes = dict(zip((ref.path for ref in found.refs), pool.map(outcome, found.refs), strict=True))
    wrong = {path for path, result in outcomes.items() if (result == "ok") != (expected[path] == "ok")}
    assert all(result == "ok" or len(result.split()) > 1 for result in outcomes.values())
    assert wrong == DAMAGED_ALL_THE_SAME
