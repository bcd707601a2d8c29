"""Samples of more or less than 8 bits, and alpha."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from headstart.errors import ImageError
from headstart.images.decode import decode
from headstart.images.pillow_files import ADAM7
from headstart.images.samples import DecodeRules
from pictures import encoded, png, quadrants


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        result = decode(encoded(Image.fromarray(values), kind))
        assert result.pixels[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected", "notes"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255], ()),
        (np.array([[0.0, 0.5, 100.0]], np.float32), [0, 128, 255], ("clipped",)),
        (np.array([[-1.0, 0.5, 1.0]], np.float32), [0, 128, 255], ("clipped",)),
        (np.array([[-(2**31), 0, 2**31 - 1]], np.int32), [0, 128, 255], ()),
    ],
)
def test_32_bit_values_are_scaled_by_their_type(values: np.ndarray, expected: list[int], notes: tuple[str]) -> None:
    result = decode(encoded(Image.fromarray(values), "TIFF"))
    assert result.pixels[0, :, 1].tolist() == expected
    assert result.notes == (f"from-{values.dtype}", *notes)


def test_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ImageError, match="NaN or infinite"):
        decode(encoded(Image.fromarray(np.array([[np.nan, 1.0]], np.float32)), "TIFF"))


def test_alpha_is_composited_over_white() -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 0), (255, 0, 0, 255), (0, 0, 0, 51)])
    result = decode(encoded(image, "PNG"))
    assert result.pixels[0].tolist() == [[255, 255, 255], [255, 0, 0], [204, 204, 204]]
    assert "alpha-on-white" in result.notes


def test_the_transparent_value_of_a_16_bit_png_is_white() -> None:
    header = struct.pack(">IIBBBBB", 2, 1, 16, 0, 0, 0, 0)
    result = decode(png(header, b"\0" + struct.pack(">HH", 40000, 1000), (b"tRNS", struct.pack(">H", 1000))))
    assert result.pixels[0, :, 0].tolist() == [156, 255]
    assert "alpha-on-white" in result.notes


@pytest.mark.parametrize(("bits", "row", "expected"), [(2, 0b00_01_10_11, [0, 255, 170, 255]), (4, 0x01, [0, 255])])
def test_the_transparent_value_of_a_png_of_few_bits_is_white(bits: int, row: int, expected: list[int]) -> None:
    header = struct.pack(">IIBBBBB", 8 // bits, 1, bits, 0, 0, 0, 0)
    result = decode(png(header, bytes([0, row]), (b"tRNS", struct.pack(">H", 1))))
    assert result.pixels[0, :, 0].tolist() == expected
    assert "alpha-on-white" in result.notes


@pytest.mark.parametrize("bits", [4, 10, 12, 16])
def test_grey_jpeg_2000_has_the_values_that_were_stored(bits: int) -> None:
    values = (np.arange(48 * 64).reshape(48, 64) % 2**bits).astype(np.uint8 if bits < 8 else np.uint16)
    data = imagecodecs.jpeg2k_encode(values, level=0, bitspersample=bits)
    np.testing.assert_allclose(decode(data).pixels[:, :, 0], values * (255 / (2**bits - 1)), atol=0.51)
    half = decode(data, rules=DecodeRules(intensity=(0, 2.0 ** (bits - 1)))).pixels[:, :, 0]
    np.testing.assert_allclose(half, np.minimum(255, values * (255 / 2 ** (bits - 1))), atol=0.51)


def test_files_of_which_only_the_upper_bits_are_read_are_noted() -> None:
    values = (np.arange(48 * 64 * 3).reshape(48, 64, 3) % 1024).astype(np.uint16)
    sgi = (
        struct.pack(">HBBHHHHII", 474, 0, 2, 3, 64, 48, 3, 0, 65535).ljust(512, b"\0") + values.astype(">u2").tobytes()
    )
    plain = b"P3 64 48 1023\n" + b" ".join(b"%d" % value for value in values.ravel())
    for data in (imagecodecs.avif_encode(values, level=100, bitspersample=10), sgi, plain):
        assert "upper-bits" in decode(data).notes
    for data in (encoded(quadrants(), "AVIF"), encoded(quadrants(), "SGI"), b"P3 1 1 255\n9 9 9\n"):
        assert "upper-bits" not in decode(data).notes


def test_16_bit_colour_is_not_clipped() -> None:
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    assert decode(png(header, b"\0" + struct.pack(">HHH", 0, 32896, 65535))).pixels[0, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("shape", [(24, 32), (24, 32, 3), (24, 32, 4)])
@pytest.mark.parametrize("kind", ["png", "jpeg2k"])
def test_16_bits_are_what_a_second_reader_finds(shape: tuple[int, ...], kind: str) -> None:
    values = np.random.default_rng(0).integers(0, 65536, shape, dtype=np.uint16)
    values[0, 0] = 65535
    encode, second = getattr(imagecodecs, f"{kind}_encode"), getattr(imagecodecs, f"{kind}_decode")
    data = encode(values, **({"reversible": True, "level": 0} if kind == "jpeg2k" else {}))
    read = second(data).astype(np.float64).reshape(24, 32, -1)
    share = read[:, :, 3:] / 65535 if shape[2:] == (4,) else 1
    result = decode(data)
    np.testing.assert_allclose(
        result.pixels, np.broadcast_to(255 - (255 - read[:, :, :3] / 257) * share, (24, 32, 3)), atol=1
    )
    assert "from-uint16" in result.notes


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_16_bit_pngs_of_every_colour_type(colour: int, interlaced: bool) -> None:
    n_channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    values = np.random.default_rng(colour).integers(0, 65536, (9, 13, n_channels))
    rows = b""
    for left, top, x_step, y_step in ADAM7 if interlaced else ((0, 0, 1, 1),):
        for row in values[top::y_step, left::x_step]:
            rows += b"\0" + row.astype(">u2").tobytes()
    result = decode(png(struct.pack(">IIBBBBB", 13, 9, 16, colour, 0, 0, interlaced), rows))
    colours, alpha = (values[:, :, :-1], values[:, :, -1:] / 65535) if n_channels in {2, 4} else (values, 1)
    expected = 255 - (255 - colours / 257) * alpha
    np.testing.assert_allclose(result.pixels, np.broadcast_to(expected, (9, 13, 3)), atol=1)


@pytest.mark.parametrize("largest", [255, 1023, 65535])
@pytest.mark.parametrize("kind", [b"P5", b"P6"])
def test_portable_pixmaps_by_their_largest_value(largest: int, kind: bytes) -> None:
    values = np.random.default_rng(0).integers(0, largest + 1, (9, 13, 3 if kind == b"P6" else 1))
    content = values.astype(">u2" if largest > 255 else np.uint8).tobytes()
    data = kind + b"\n13 9\n%d\n" % largest + content
    np.testing.assert_allclose(decode(data).pixels, np.broadcast_to(values * 255 / largest, (9, 13, 3)), atol=0.51)
    with pytest.raises(ImageError, match="truncated"):
        decode(data[:-3])


def test_the_transparent_colour_of_a_16_bit_png_is_white() -> None:
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    rows = b"\0" + struct.pack(">6H", 257, 514, 771, 257, 514, 770)
    result = decode(png(header, rows, (b"tRNS", struct.pack(">3H", 257, 514, 770))))
    assert result.pixels[0].tolist() == [[1, 2, 3], [255, 255, 255]]


def test_12_bit_tiff_and_data_that_use_little_of_their_range() -> None:
    pixels = struct.pack("<HHH", 0, 0, 0)[:3]  # two values of 12 bit in three bytes, both zero
    packed = bytes([0xFF, 0xF0, 0x00]) + pixels
    tags = ((256, 3, 2), (257, 3, 2), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 122), (277, 3, 1), (279, 4, 6))
    entries = b"".join(struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", value) for tag, kind, value in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    data = data.ljust(122, b"\0") + packed
    assert decode(data).pixels[..., 0].tolist() == [[255, 0], [0, 0]]
    dark = decode(encoded(Image.fromarray(np.array([[0, 4095]], np.uint16)), "PNG"))
    assert dark.notes == ("from-uint16", "low-range")


def test_an_alpha_channel_that_nobody_wrote_is_ignored() -> None:
    image = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert decode(encoded(image, "TGA"), name="a.tga").pixels[0, 0].tolist() == [10, 20, 30]
    assert decode(encoded(image, "PNG")).pixels[0, 0].tolist() == [255, 255, 255]


def test_an_opaque_alpha_channel_is_not_worth_a_note() -> None:
    assert decode(encoded(Image.new("RGBA", (4, 4), (10, 20, 30, 255)), "PNG")).notes == ("from-RGBA",)


def test_a_signalling_nan_is_refused_for_what_it_is() -> None:
    data = encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF")
    quiet = encoded(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF")
    start = next(
        i for i in range(len(data)) if data[i : i + 16] != quiet[i : i + 16] and quiet[i + 2 : i + 4] == b"\xc0\x7f"
    )
    with pytest.raises(ImageError, match="NaN or infinite"):
        decode(data[:start] + b"\x01\x00\xa0\x7f" * 4 + data[start + 16 :])
