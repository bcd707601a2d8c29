"""TIFFs of many kinds, compared with tifffile's reading of them."""

from __future__ import annotations

import io
import struct
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from headstart.errors import ImageError
from headstart.images.decode import decode
from headstart.images.samples import DecodeRules
from headstart.images.tiff_tags import embedded_pixels
from mutations import mutated
from pictures import deep_tiffs

DTYPES = ("int8", "uint16", "int16", "uint32", "int32", "uint64", "float16", "float32", "float64")

ALPHA_IN_PLANES = {"extrasamples": ["unassalpha"], "planarconfig": "separate", "compression": "lzw"}

Y, X = np.mgrid[0:24, 0:32]
RAMP = (X * 2000 + Y * 75) % 65536 / 65535


def ramp(dtype: str, n_channels: int = 1) -> np.ndarray:
    """Return a picture of shape (24, 32) or (24, 32, n_channels) that uses the range of its type; floats from 0 to 1."""
    channels = [np.roll(RAMP, 5 * number, axis=1) for number in range(n_channels)]
    shares = channels[0] if n_channels == 1 else np.stack(channels, axis=2)
    if np.dtype(dtype).kind == "f":
        return shares.astype(dtype)
    limits = np.iinfo(dtype)
    span = float(limits.max) - float(limits.min)
    return np.clip(limits.min + np.floor(shares * span * (1 - 1e-9)), limits.min, limits.max).astype(dtype)


def written(values: np.ndarray | Iterator[bytes], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **{"metadata": None, "photometric": "minisblack", **options})
    return file.getvalue()


def written_in_bits(values: np.ndarray, bits: int, **options: Any) -> bytes:
    """Return a TIFF of samples that fill no bytes; older versions of imagecodecs do not pack them for tifffile."""
    digits = values[:, :, None] >> np.arange(bits, dtype=values.dtype)[::-1] & 1
    strip = np.packbits(digits.astype(bool).reshape(len(values), -1), axis=1).tobytes()
    form = {"shape": values.shape, "dtype": values.dtype, "rowsperstrip": len(values), "bitspersample": bits}
    return written(iter([strip]), **form, **options)


def second_reading(data: bytes, page: int = 0) -> np.ndarray:
    """Return the levels, 0 to 255, that tifffile's samples stand for by the rule of the type."""
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages[page]
        values = page.asarray()
        values = np.moveaxis(values, 0, -1) if page.axes.startswith("S") else values
    low, high = (0, 1) if values.dtype.kind == "f" else (np.iinfo(values.dtype).min, np.iinfo(values.dtype).max)
    high = 2**page.bitspersample - 1 if values.dtype.kind == "u" else high
    shares = (values.astype(np.float64) - low) / (float(high) - float(low))
    shares = 1 - shares if page.photometric == 0 else shares
    return 255 * (shares if values.ndim == 3 else shares[:, :, None])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options",
    [
        {"byteorder": "<"},
        {"byteorder": ">"},
        {"photometric": "miniswhite"},
        {"photometric": "miniswhite", "byteorder": ">"},
        {"compression": "zlib"},
        {"compression": "lzw", "byteorder": ">"},
        {"compression": "packbits", "byteorder": ">", "tile": (16, 16)},
        {"bigtiff": True, "tile": (16, 16)},
        {"bigtiff": True, "byteorder": ">"},
    ],
    ids=str,
)
def test_grey_of_any_type_is_what_a_second_reader_finds(dtype: str, options: dict[str, Any]) -> None:
    data = written(ramp(dtype), **options)
    result = decode(data)
    np.testing.assert_allclose(result.pixels, np.repeat(second_reading(data), 3, axis=2), atol=1)
    assert result.notes == (f"from-{dtype}",)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"compression": "zlib"},
        {"planarconfig": "separate"},
        {"planarconfig": "separate", "compression": "zlib", "byteorder": ">"},
        {"planarconfig": "separate", "tile": (16, 16)},
    ],
    ids=str,
)
def test_colour_of_any_type_is_what_a_second_reader_finds(dtype: str, options: dict[str, Any]) -> None:
    values = ramp(dtype, 3)
    if options.get("planarconfig") == "separate":
        values = np.moveaxis(values, 2, 0)
    data = written(values, photometric="rgb", **options)
    np.testing.assert_allclose(decode(data).pixels, second_reading(data), atol=1)


@pytest.mark.parametrize("n_channels", [3, 4])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_planes_of_16_bits_keep_their_lower_bytes(n_channels: int, compression: str | None, byteorder: str) -> None:
    values = ramp("uint16", n_channels) >> 4
    values[:, :, 3:] = 65535
    options: dict[str, Any] = {"extrasamples": ["unassalpha"]} if n_channels == 4 else {}
    data = written(
        np.moveaxis(values, 2, 0),
        photometric="rgb",
        planarconfig="separate",
        compression=compression,
        byteorder=byteorder,
        **options,
    )
    pixels = decode(data, rules=DecodeRules(intensity=(0, 4095))).pixels
    np.testing.assert_allclose(pixels, values[:, :, :3] / (4095 / 255), atol=1)


@pytest.mark.parametrize("compression", [None, "lzw"])
@pytest.mark.parametrize("alpha", ["unspecified", "assocalpha", "unassalpha"])
@pytest.mark.parametrize("n_colours", [1, 3])
def test_planes_with_a_further_one_are_the_same_as_without_planes(
    n_colours: int, alpha: str, compression: str | None
) -> None:
    values = np.minimum(ramp("uint8", n_colours + 1), ramp("uint8")[:, :, None])
    options: dict[str, Any] = {"extrasamples": [alpha], "photometric": "rgb" if n_colours == 3 else "minisblack"}
    together = written(values, planarconfig="contig", **options)
    apart = written(np.moveaxis(values, 2, 0), planarconfig="separate", compression=compression, **options)
    if (n_colours, alpha) == (1, "unspecified"):
        with pytest.raises(ImageError, match="2 channels are not supported"):
            decode(apart)
    else:
        np.testing.assert_allclose(decode(apart).pixels.astype(int), decode(together).pixels, atol=1)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_bits_that_fill_no_bytes(bits: int, photometric: str) -> None:
    data = written_in_bits((RAMP * (2**bits - 1)).astype(np.uint16), bits, photometric=photometric)
    np.testing.assert_allclose(decode(data).pixels, np.repeat(second_reading(data), 3, axis=2), atol=1)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_with_white_as_zero(bits: int) -> None:
    levels = (RAMP * (2**bits - 1)).round().astype(np.uint8)
    white_is_zero = {"photometric": "miniswhite"}
    data = (
        written(levels.astype(bool), **white_is_zero) if bits == 1 else written_in_bits(levels, bits, **white_is_zero)
    )
    np.testing.assert_allclose(decode(data).pixels[:, :, 0], 255 - levels * (255 / (2**bits - 1)), atol=1)


@pytest.mark.parametrize("compression", ["lerc", "jpeg2000", "jpegxl", "png"])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_compressions_that_pillow_does_not_know(compression: str, n_channels: int) -> None:
    photometric = "rgb" if n_channels == 3 else "minisblack"
    data = written(ramp("uint16", n_channels), photometric=photometric, compression=compression)
    np.testing.assert_allclose(decode(data).pixels, np.broadcast_to(second_reading(data), (24, 32, 3)), atol=1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "rgb"])
@pytest.mark.parametrize("alpha", ["unassalpha", "assocalpha"])
def test_alpha_of_any_type_is_composited_over_white(dtype: str, photometric: str, alpha: str) -> None:
    opaque = 1 if dtype == "float32" else np.iinfo(dtype).max
    values = ramp(dtype, 4 if photometric == "rgb" else 2)
    if alpha == "assocalpha":
        values[:, :, :-1] = values[:, :, :-1] * (values[:, :, -1:] / opaque)
    data = written(values, photometric=photometric, extrasamples=[alpha], planarconfig="contig")
    share = values[:, :, -1:] / opaque
    level = values[:, :, :-1] / opaque
    if alpha == "assocalpha":
        level = np.divide(level, share, out=np.zeros_like(level, dtype=np.float64), where=share > 0)
    level = 1 - level if photometric == "miniswhite" else level
    expected = 255 * (1 - share * (1 - np.clip(level, 0, 1)))
    result = decode(data)
    np.testing.assert_allclose(result.pixels, np.broadcast_to(expected, (24, 32, 3)), atol=3)
    assert "alpha-on-white" in result.notes


def test_an_alpha_that_is_no_number_is_refused() -> None:
    values = ramp("float32", 2)
    values[3, 4, 1] = np.nan
    with pytest.raises(ImageError, match="NaN or infinite"):
        decode(written(values, extrasamples=["unassalpha"], planarconfig="contig"))


def test_a_palette_of_16_bits_and_cmyk_of_16_bits() -> None:
    colours = np.stack([np.arange(65536), np.arange(65536)[::-1], np.zeros(65536)]).astype(np.uint16)
    indices = ramp("uint16")
    palette = decode(written(indices, photometric="palette", colormap=colours)).pixels
    np.testing.assert_allclose(palette, np.stack([c[indices] / 257 for c in colours], axis=2), atol=1)
    inks = ramp("uint16", 4)
    for options in ({}, {"compression": "png"}):
        pixels = decode(written(inks, photometric="separated", **options)).pixels
        eight = Image.fromarray((inks >> 8).astype(np.uint8), "CMYK").convert("RGB")
        np.testing.assert_allclose(pixels, np.asarray(eight).astype(int), atol=2)


@pytest.mark.parametrize(
    ("values", "options", "kind"),
    [
        (ramp("uint8", 5), {"planarconfig": "contig"}, "5 channels are"),
        (ramp("uint16", 2), {"planarconfig": "contig", "extrasamples": ["unspecified"]}, "2 channels are"),
        (ramp("uint8", 2), {"planarconfig": "contig", "extrasamples": ["unspecified"]}, "2 channels are"),
        (ramp("uint16", 7), {"planarconfig": "contig"}, "7 channels are"),
        (ramp("float32") * 1j, {}, "complex values are"),
        (ramp("uint16", 3), {"photometric": "cielab"}, "16-bit integer LAB is"),
        (ramp("uint16"), {"photometric": "cfa"}, "camera raw is"),
        (ramp("uint8", 3).T, {"photometric": "cielab", "planarconfig": "separate"}, "8-bit integer LAB in planes is"),
        (ramp("uint16", 3), {"photometric": "ycbcr"}, "16-bit integer YCbCr is"),
        (ramp("uint8", 3).T, {"photometric": "ycbcr", "planarconfig": "separate"}, "8-bit integer YCbCr in planes is"),
    ],
)
@pytest.mark.parametrize("extra", [True, False])
def test_kinds_that_are_no_picture_are_named_and_no_extra_is_said_to_help(
    values: np.ndarray, options: dict[str, Any], kind: str, extra: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = written(values, **options)
    if not extra and "YCbCr" not in kind:
        monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(ImageError, match=f"{kind} not supported: convert it to"):
        decode(data)


@pytest.mark.parametrize(
    ("values", "options", "kind"),
    [
        (ramp("float64"), {}, "64-bit float grey"),
        (ramp("float32", 3), {"photometric": "rgb"}, "32-bit float RGB"),
        (ramp("uint16"), {"compression": "lerc"}, r"compression LERC \(34887\)"),
        (ramp("uint32"), {"photometric": "miniswhite"}, "32-bit integer grey with white as zero"),
        (ramp("uint16", 3).T, {"photometric": "rgb", "planarconfig": "separate"}, "16-bit integer RGB in planes"),
        (ramp("uint8", 2).T, ALPHA_IN_PLANES, "8-bit integer grey with alpha in planes"),
        (ramp("uint8"), {"bigtiff": True, "byteorder": ">"}, "big-endian BigTIFF"),
        (ramp("uint16"), {"photometric": "palette", "colormap": np.zeros((3, 65536), np.uint16)}, "a palette of 16 bits"),
    ],
)  # fmt: skip
def test_without_the_extra_the_kind_and_the_extra_are_named(
    values: np.ndarray, options: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = written(values, **options)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(
        ImageError, match=rf'{kind} is not supported without the extra microscopy: pip install "headsta'
    ):
        decode(data)


def test_damaged_tiffs_are_still_called_damaged() -> None:
    data = written(ramp("float64"))
    with pytest.raises(ImageError, match="truncated"):
        decode(data[:-20])
    with pytest.raises(ImageError, match="damaged"):
        decode(b"II*\0" + bytes(60))


def test_large_pages_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(ramp("float64"), tile=(16, 64))
    with pytest.raises(ImageError, match="too large: 32 × 24 pixels, at most 700 are decoded"):
        decode(data, max_pixels=700)
    with pytest.raises(ImageError, match="too large"):  # its tiles reach beyond it
        decode(data, max_pixels=1000)


@pytest.mark.parametrize("compression", ["jpeg2000", "jpegxl", "lerc", "png", "jpeg"])
@pytest.mark.parametrize("size", [(24, 32), (17, 200), (300, 37), (64, 64), (9, 16), (1000, 1500)])
def test_the_size_that_a_compressed_part_claims_is_known_before_it_is_decoded(
    compression: str, size: tuple[int, int]
) -> None:
    values = np.arange(size[0] * size[1], dtype=np.uint32).reshape(size).astype(np.uint8)
    data = written(values, compression=compression, rowsperstrip=size[0])
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages[0]
        part = data[page.dataoffsets[0] :][: page.databytecounts[0]]
    assert embedded_pixels(int(page.compression), part) == size[0] * size[1]
    with pytest.raises(ImageError, match="the size of a compressed part cannot be read"):
        embedded_pixels(int(page.compression), b"\0" * 20)


@pytest.mark.parametrize("options", [{"lossless": True}, {"lossless": False}, {"exif": b"Exif\0\0"}])
def test_the_size_of_a_webp(options: dict[str, Any]) -> None:
    file = io.BytesIO()
    Image.new("RGB", (37, 301), "red").save(file, "WEBP", **options)
    assert embedded_pixels(50001, file.getvalue()) == 37 * 301


def test_a_part_that_is_larger_than_its_picture_is_refused_before_it_is_decoded() -> None:
    data = written(ramp("uint16"), compression="png")
    start = data.index(b"IHDR") + 4
    with pytest.raises(ImageError, match="a compressed part is larger than the picture"):
        decode(data[:start] + struct.pack(">II", 60_000, 60_000) + data[start + 8 :])


def test_missing_strips_are_no_black_ones() -> None:
    data = written(ramp("float64"), rowsperstrip=24)
    entry = data.index(struct.pack("<HHI", 257, 4, 1))  # ImageLength
    with pytest.raises(ImageError, match="parts of it are missing"):
        decode(data[:entry] + struct.pack("<HHII", 257, 4, 1, 9600) + data[entry + 12 :])


def test_a_hot_pixel_changes_nothing_but_itself() -> None:
    picture = ramp("float32") * 0.9
    hot = picture.copy()
    hot[3, 5] = 250.0
    difference = decode(written(picture)).pixels != decode(written(hot)).pixels
    assert np.argwhere(difference.any(axis=2)).tolist() == [[3, 5]]
    assert "clipped" in decode(written(hot)).notes


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float64"])
def test_one_intensity_for_all(dtype: str) -> None:
    values = np.array([[0, 100, 150, 200, 300]], dtype)
    result = decode(written(np.repeat(values, 4, axis=0)), rules=DecodeRules(intensity=(100, 200)))
    assert result.pixels[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    assert result.notes == (f"from-{dtype}", "clipped")


def test_damaged_deep_tiffs_are_decoded_or_refused_and_hide_no_error_of_ours() -> None:
    corpus, kinds = deep_tiffs(), Counter[str]()
    for number in range(600):
        name, data = mutated(corpus, seed=0, number=number)
        try:
            image = decode(data, name=name)
        except ImageError as error:
            cause = error.__cause__
            frames = traceback.extract_tb(cause.__traceback__) if cause and not isinstance(cause, ImageError) else []
            assert not frames or "headstart" not in Path(frames[-1].filename).parts, (number, name)
            kinds["refused"] += 1
        else:
            assert image.pixels.shape == (image.height_px, image.width_px, 3)
            kinds["decoded"] += 1
    assert min(kinds.values()) > 50
