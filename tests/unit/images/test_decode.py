from __future__ import annotations

import io
import logging
import struct
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFile

from headstart.errors import HeadstartError, ImageError
from headstart.images.decode import decode
from pictures import encoded, quadrants


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations_are_undone(orientation: int, kind: str) -> None:
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
    result = decode(encoded(stored, kind, exif=exif))
    np.testing.assert_array_equal(result.pixels, np.asarray(upright))
    assert (result.width_px, result.height_px) == (40, 20)
    assert len(result.notes) == (orientation != 1)
    assert result.pixels.flags.c_contiguous


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP", "TIFF", "AVIF", "PPM", "JPEG2000", "ICO"])
def test_formats(kind: str) -> None:
    options = {
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
        "ICO": {"sizes": [(40, 20)]},
    }.get(kind, {})
    result = decode(encoded(quadrants(), kind, **options))
    assert np.abs(result.pixels.astype(int) - np.asarray(quadrants())).max() <= (4 if kind == "AVIF" else 0)


def test_large_images_are_converted_in_strips_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images = [
        Image.fromarray(rng.integers(0, 256, (50, 20, 4), dtype=np.uint8), "RGBA"),
        Image.fromarray(rng.integers(0, 256, (50, 20, 3), dtype=np.uint8)).quantize(16),
        Image.fromarray(rng.integers(0, 65536, (50, 20), dtype=np.uint16)),
        Image.fromarray(rng.normal(size=(50, 20)).astype(np.float32)),
    ]
    files = [encoded(image, "TIFF") for image in images]
    whole = [decode(data) for data in files]
    monkeypatch.setattr("headstart.images.samples.STRIP_PIXELS", 70)
    monkeypatch.setattr("headstart.images.decode.LARGE_PIXELS", 1)
    for data, expected in zip(files, whole, strict=True):
        result = decode(data)
        np.testing.assert_array_equal(result.pixels, expected.pixels)
        assert result.notes == expected.notes


def test_shrink_is_applied_before_the_pixels_are_returned() -> None:
    result = decode(encoded(quadrants(), "PNG"), shrink=lambda pixels: pixels[:1, :1])
    assert result.pixels.shape == (1, 1, 3)
    assert (result.width_px, result.height_px) == (40, 20)


def test_a_damaged_second_frame_does_not_cost_the_first() -> None:
    frames = [Image.new("L", (8, 8), value) for value in (200, 100)]
    data = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert decode(data[:-20]).pixels[0, 0, 0] == 200


def test_layers_of_a_photoshop_file_are_no_frames() -> None:
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 1, 2, 8, 3)
    channels = b"".join(struct.pack(">hI", number, 4) for number in range(3))
    layer = struct.pack(">iiiiH", 0, 0, 1, 2, 3) + channels + b"8BIMnorm" + bytes(4) + struct.pack(">I", 0)
    records = struct.pack(">h", 2) + 2 * layer + 2 * 3 * (b"\0\0" + bytes(2))  # pixels of each channel, uncompressed
    layers = struct.pack(">II", len(records) + 4, len(records)) + records
    data = header + struct.pack(">II", 0, 0) + layers + struct.pack(">H", 0) + bytes([1, 2, 3, 4, 5, 6])
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 2
    result = decode(data)
    assert (result.format, result.notes) == ("PSD", ())
    assert result.pixels.tolist() == [[[1, 3, 5], [2, 4, 6]]]


def test_tga_is_read_by_its_name_or_footer_and_nothing_else_is() -> None:
    data = encoded(quadrants(), "TGA")
    assert decode(data, name="a.tga").format == "TGA"
    assert decode(data).format == "TGA"
    with pytest.raises(ImageError):
        decode(data[:-30])


def test_nothing_but_the_file_decides() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(quadrants(), "JPEG", exif=exif).replace(b"Exif\0\0MM\0*\0\0\0\x08", b"Exif\0\0MM\0*\0\0\xff\x08")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        strict = decode(data)
    np.testing.assert_array_equal(strict.pixels, decode(data).pixels)


def test_pillow_is_left_as_it_is() -> None:
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == (1024 * 1024 * 1024 // 4 // 3, False)


def test_images_above_pillows_limit_are_read_without_changing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for kind in ("PNG", "JPEG", "BMP"):
        assert decode(encoded(quadrants(), kind)).width_px == 40


def test_grey_halves_of_truncated_files_are_never_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(HeadstartError, match="Set it to False"):
        decode(encoded(quadrants(), "PNG"))


def test_pillows_log_is_not_printed() -> None:
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("PIL").handlers)


def test_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "PNG", "TIFF", "WEBP"):
        result = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
        assert result.pixels[0, 0, 0] > 200
        assert ("first-page" if kind == "TIFF" else "first-frame") in result.notes


def test_a_wrong_suffix_is_noted_and_the_content_decides() -> None:
    data = encoded(quadrants(), "PNG")
    assert decode(data, name="a/photo.jpg").notes == ("named-jpg-is-PNG",)
    assert decode(data, name="a/photo.png").notes == ()
    assert decode(data, name="a/photo").notes == ()
