from __future__ import annotations

import io
import sys
import warnings

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from headstart.errors import ImageError
from headstart.images.decode import decode, open_file
from headstart.images.discovery.scan import discover
from headstart.images.samples import DecodeRules
from mutations import mutated

RNG = np.random.default_rng(0)
BLOCKS = Image.fromarray(RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((66, 40), Image.Resampling.NEAREST)


def heic(*images: Image.Image, **options: object) -> bytes:
    """Return a file of some pictures, without loss but for the step to YCbCr."""
    file = pillow_heif.HeifFile()
    for image in images:
        file.add_from_pillow(image)
    content = io.BytesIO()
    file.save(content, **{"quality": -1, "chroma": 444, **options})
    return content.getvalue()


def deep(mode: str, values: np.ndarray) -> bytes:
    """Return a file of samples of 10 or 12 bits."""
    content = io.BytesIO()
    file = pillow_heif.from_bytes(mode, values.shape[1::-1], values.tobytes())
    pillow_heif.options.SAVE_HDR_TO_12_BIT = mode.endswith("12")
    try:
        file.save(content, quality=-1, chroma=444)
    finally:
        pillow_heif.options.SAVE_HDR_TO_12_BIT = False
    return content.getvalue()


def by_pillow_heif(data: bytes) -> np.ndarray:
    """The pixels by pillow-heif's own way to 8 bits."""
    return np.asarray(pillow_heif.open_heif(data).to_pillow().convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_pixels_are_those_of_pillow_heif(mode: str) -> None:
    data = heic(BLOCKS.convert(mode))
    result = decode(data, name="IMG_0001.HEIC")
    assert (result.format, result.width_px, result.height_px, result.notes) == ("HEIC", 66, 40, ("heic-1",))
    np.testing.assert_array_equal(result.pixels, by_pillow_heif(data))
    assert np.abs(result.pixels - np.asarray(BLOCKS.convert(mode).convert("RGB")).astype(int)).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_once(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file, data, png = pillow_heif.from_pillow(BLOCKS), io.BytesIO(), io.BytesIO()
    file[0].info["exif"] = exif.tobytes()  # which is written as irot and imir besides
    file.save(data, quality=-1, chroma=444)
    BLOCKS.save(png, "PNG", exif=exif)
    upright, result = decode(png.getvalue()).pixels, decode(data.getvalue())
    assert (result.width_px, result.height_px) == upright.shape[1::-1]
    assert np.abs(result.pixels - upright.astype(int)).max() <= 3


def test_alpha_is_composited_over_white() -> None:
    image = BLOCKS.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(BLOCKS.size))
    png = io.BytesIO()
    image.save(png, "PNG")
    result = decode(heic(image))
    assert "alpha-on-white" in result.notes
    assert np.abs(result.pixels - decode(png.getvalue()).pixels.astype(int)).max() <= 3


@pytest.mark.parametrize("mode", ["RGB;10", "RGB;12", "RGBA;10", "RGBA;12"])
def test_10_and_12_bits_are_scaled_from_their_range(mode: str) -> None:
    bits, n_channels = int(mode[-2:]), mode.index(";")
    values = RNG.integers(0, 2**bits, (40, 66, n_channels)).astype(np.uint16)
    values[:, :, 3:] = 2**bits - 1
    data = deep(mode, values)
    result = decode(data)
    assert result.notes == ("heic-1", "from-uint16")
    expected = values[:, :, :3] * 255.0 / (2**bits - 1)
    assert np.abs(result.pixels - expected).max() <= 1
    assert np.abs(result.pixels - by_pillow_heif(data).astype(int)).max() <= 1
    assert open_file(data, "", 10**6).is_deep()
    assert decode(data, rules=DecodeRules(intensity=(0.0, 1.0))).pixels.max() == 255


def test_transparent_pixels_of_10_bits_are_white() -> None:
    values = np.full((8, 64, 4), 200, np.uint16)
    values[:, 32:, 3] = 0
    values[:, :32, 3] = 1023
    pixels = decode(deep("RGBA;10", values)).pixels
    assert np.abs(pixels[:, 40:].astype(int) - 255).max() <= 1
    assert np.abs(pixels[:, :24].astype(int) - 50).max() <= 1


def test_the_primary_picture_comes_first_and_the_others_in_their_order() -> None:
    pictures = [Image.new("RGB", (64, 64), (value, value, value)) for value in (20, 120, 220)]
    data = heic(*pictures, primary_index=1)
    first = decode(data)
    assert first.notes == ("heic-1", "first-frame")
    found = [decode(data, rules=DecodeRules(page=page)).pixels[0, 0, 0] for page in (None, 1, 2, 3)]
    assert np.abs(np.array(found).astype(int) - (120, 120, 20, 220)).max() <= 1
    with pytest.raises(ImageError, match="no page 4: the file has 3"):
        decode(data, rules=DecodeRules(page=4))


def test_suffixes_and_brands(tmp_path: object) -> None:
    folder = tmp_path / "photos"  # type: ignore[operator]
    folder.mkdir()
    for name in ("IMG_0001.HEIC", "b.heif", "c.hif", "without"):
        (folder / name).write_bytes(heic(BLOCKS))
    assert len(list(discover(tmp_path).refs)) == 4
    assert "named-jpg-is-HEIC" in decode(heic(BLOCKS), name="a.jpg").notes
    generic = heic(BLOCKS)
    generic = generic[:8] + b"mif1" + generic[12:]
    np.testing.assert_array_equal(decode(generic).pixels, decode(heic(BLOCKS)).pixels)
    file = io.BytesIO()
    BLOCKS.save(file, "AVIF")
    as_avif = file.getvalue()
    for brand in (b"avif", b"mif1"):
        assert decode(as_avif[:8] + brand + as_avif[12:]).format == "AVIF"


def test_damaged_and_large_files() -> None:
    data = heic(BLOCKS)
    for end in (24, 300, len(data) // 2, len(data) - 8):
        with pytest.raises(ImageError, match=r"truncated|damaged"):
            decode(data[:end], name="a.heic")
    with pytest.raises(ImageError, match="too large: 66 × 40 pixels, at most 2,000 are decoded"):
        decode(data, max_pixels=2000)
    size = data.index(b"ispe") + 8
    claims = data[:size] + (60000).to_bytes(4, "big") + (60000).to_bytes(4, "big") + data[size + 8 :]
    with pytest.raises(ImageError, match="too large"):
        decode(claims)


def test_mutated_files_are_refused_or_read_without_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    corpus = {"rgb": heic(BLOCKS), "alpha": heic(BLOCKS.convert("RGBA")), "grey": heic(BLOCKS.convert("L"))}
    n_refused = 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(150):
            try:
                decode(mutated(corpus, 3, number)[1], max_pixels=100_000)
            except ImageError:
                n_refused += 1
    assert n_refused > 50
    assert not caught
    assert capfd.readouterr() == ("", "")


def test_without_the_extra_the_message_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        ImageError, match=r'HEIC is not supported without the extra heic: pip install "headstart\[heic\]"'
    ):
        decode(heic(BLOCKS))
