"""The preset jpeg-draft: the JPEG decoder scales large images down first; nothing else changes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.doctor.machine import photograph
from headstart.errors import ImageError
from headstart.images import decode as module
from headstart.images.decode import DecodedImage, decode
from headstart.images.load import decode_resized
from pictures import encoded_pictures

pytestmark = pytest.mark.slow

SIZE = 32


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def smooth(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def turned(image: Image.Image, orientation: int, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, exif=exif, **options)


def draft(data: bytes, name: str = "a.jpg") -> DecodedImage:
    return decode_resized(data, name, SIZE, "jpeg-draft")


def exact(data: bytes, name: str = "a.jpg") -> DecodedImage:
    return decode_resized(data, name, SIZE, "pillow-antialias")


@settings(max_examples=60)
@given(
    st.integers(1, 2 * SIZE),
    st.integers(1, 6 * SIZE),
    st.booleans(),
    st.sampled_from(["RGB", "L", "CMYK"]),
    st.integers(1, 8),
    st.booleans(),
)
def test_up_to_twice_the_size_nothing_changes(
    short: int, long: int, upright: bool, mode: str, orientation: int, progressive: bool
) -> None:
    size = (short, long) if upright else (long, short)
    data = turned(smooth(*size, mode), orientation, progressive=progressive)
    np.testing.assert_array_equal(draft(data).pixels, exact(data).pixels)
    assert draft(data).notes == exact(data).notes


@settings(max_examples=60)
@given(
    st.integers(2 * SIZE + 1, 20 * SIZE),
    st.integers(2 * SIZE + 1, 20 * SIZE),
    st.sampled_from(["RGB", "L", "CMYK"]),
    st.integers(1, 8),
    st.booleans(),
)
def test_larger_images_are_the_same_picture(
    width: int, height: int, mode: str, orientation: int, progressive: bool
) -> None:
    data = turned(smooth(width, height, mode), orientation, progressive=progressive, quality=95)
    found, wanted = draft(data), exact(data)
    assert (found.width_px, found.height_px, found.notes) == (wanted.width_px, wanted.height_px, wanted.notes)
    # Smooth pictures: two ways to average differ by little, a wrong turn or an inverted channel by much.
    assert np.abs(found.pixels.astype(int) - wanted.pixels).mean() < 1


@pytest.mark.parametrize(
    ("side", "scaled"), [(2 * SIZE, 64), (2 * SIZE + 2, 33), (4 * SIZE + 4, 33), (8 * SIZE + 8, 33), (4000, 500)]
)
def test_the_decoder_takes_the_smallest_scale_above_the_target(side: int, scaled: int) -> None:
    seen: list[tuple[int, ...]] = []

    def look(pixels: np.ndarray, box: object) -> np.ndarray:
        seen.append(pixels.shape)
        return pixels

    decode(encoded(smooth(side, side)), shrink=look, draft_px=SIZE)
    assert seen == [(scaled, scaled, 3)]


def test_the_row_has_the_size_of_the_photograph_even_where_the_draft_is_square() -> None:
    data = turned(smooth(801, 800), 6)
    assert (draft(data).width_px, draft(data).height_px) == (800, 801)
    assert draft(data).notes == ("exif-rotated-90",)


@pytest.mark.parametrize("name", [n for n in sorted(encoded_pictures()) if not n.startswith("JPEG_")])
def test_other_formats_are_as_with_pillow_antialias(name: str) -> None:
    data = encoded_pictures()[name]
    found, wanted = (decode_resized(data, name, 8, preset) for preset in ("jpeg-draft", "pillow-antialias"))
    np.testing.assert_array_equal(found.pixels, wanted.pixels)
    assert (found.width_px, found.height_px, found.notes) == (wanted.width_px, wanted.height_px, wanted.notes)


def test_the_limit_is_of_the_whole_photograph() -> None:
    data = encoded(smooth(400, 300))
    with pytest.raises(ImageError, match="400 × 300"):
        decode(data, max_pixels=400 * 300 - 1, draft_px=SIZE)


def test_a_truncated_photograph_is_refused_all_the_same() -> None:
    data = photograph(0.2)
    for preset in ("jpeg-draft", "pillow-antialias"):
        with pytest.raises(ImageError, match="truncated"):
            decode_resized(data[: len(data) // 2], "a.jpg", SIZE, preset)


@pytest.mark.parametrize(("progressive", "alone"), [(False, 0), (True, 1)])
def test_only_what_is_held_in_full_waits_for_other_large_images(
    progressive: bool, alone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered = []
    one_large_image = module.one_large_image
    monkeypatch.setattr(module, "LARGE_PIXELS", 400 * 300)
    monkeypatch.setattr(module, "one_large_image", lambda: entered.append(1) or one_large_image())
    data = encoded(smooth(400, 300), progressive=progressive)
    draft(data)
    assert len(entered) == alone
    exact(data)
    assert len(entered) == alone + 1
