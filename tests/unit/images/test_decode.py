from __future__ import annotations

import csv
import io
import logging
import struct
import traceback
import warnings
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, TiffImagePlugin

from headstart.errors import HeadstartError, ImageError
from headstart.images.decode import decode
from headstart.images.discover import discover
from headstart.images.load import load_image
from headstart.images.png import ADAM7
from headstart.images.rules import DecodeRules
from headstart.schema import ImageRef
from mutations import PNG_START, mutated, with_checksums
from pictures import encoded_pictures, in_mode

#: Sound to Pillow's eye when it only looks at the head, but with pixels that cannot be read.
DAMAGED_ALL_THE_SAME = {"png_1bit/testpngs__crashers_badadler.png", "png_rgb/pil__broken_data_stream.png"}

#: Kinds that Pillow does not read; the extra microscopy does.
READ_BY_TIFFFILE = {
    "corrupt_or_unsupported/pil__hopper_unknown_pixel_mode.tif",
    "corrupt_or_unsupported/pil__hopper_webp.tif",
}


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
    with pytest.raises(ImageError, match="not numbers"):
        decode(encoded(Image.fromarray(np.array([[np.nan, 1.0]], np.float32)), "TIFF"))


def test_alpha_is_composited_over_white() -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 0), (255, 0, 0, 255), (0, 0, 0, 51)])
    result = decode(encoded(image, "PNG"))
    assert result.pixels[0].tolist() == [[255, 255, 255], [255, 0, 0], [204, 204, 204]]
    assert "alpha-on-white" in result.notes


def png(header: bytes, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG made by hand: what Pillow does not write."""
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    crc = [struct.pack(">I", zlib.crc32(kind + content)) for kind, content in parts]
    written = (struct.pack(">I", len(c)) + k + c + end for (k, c), end in zip(parts, crc, strict=True))
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


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


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello", "not an image"),
        (bytes(5000), "filled with zeros"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS is not supported"),
        (b"<svg xmlns='x'/>", "SVG is not supported"),
        (b"PF\n2 1\n-1.0\n" + bytes(24), "PFM in colour is not supported"),
        (imagecodecs.ljpeg_encode(np.zeros((8, 8), np.uint16), bitspersample=12), "JPEG of 12 bits is not supported"),
        (imagecodecs.jpegls_encode(np.zeros((8, 8), np.uint16)), "SPIFF is not supported"),
        (b"\xff\xd8\xff\xf7" + bytes(20), "JPEG-LS is not supported"),
        (
            b"8BPS\0\1" + struct.pack(">6xHIIHH", 3, 4, 4, 16, 3) + bytes(14),
            "PSD of this colour mode and 16 bits is not sup",
        ),
        (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", "SVG is not supported"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(20), "damaged"),
        (b"\x00\x00\x00\x18ftypisom" + bytes(20), "a video"),
        (b"\x00\x00\x00\x18ftypavif" + bytes(20), "damaged: it begins as an image"),
        (bytes(128) + b"DICM" + bytes(20), "holds no picture: it is DICOM without pixel data"),
    ],
)
def test_reasons_that_a_person_understands(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode(data)


def test_a_tiff_that_lacks_strips_is_not_filled_with_black() -> None:
    data = bytearray(encoded(Image.new("L", (4, 4), 200), "TIFF"))
    assert decode(bytes(data)).pixels.min() == 200
    height = data.index(struct.pack("<HHII", 257, 4, 1, 4))  # ImageLength, LONG, one value: 4
    data[height + 8 : height + 12] = struct.pack("<I", 9)  # the strip goes on holding four rows
    with pytest.raises(ImageError, match="claims 4 × 9 pixels, but holds only 16 of 36"):
        decode(bytes(data))


def test_the_preview_in_a_camera_raw_file_is_not_the_picture() -> None:
    data = encoded(quadrants(), "TIFF")
    with pytest.raises(ImageError, match="camera raw"):
        decode(data, name="DSC_0001.NEF")
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[50706] = b"\1\4\0\0"
    with pytest.raises(ImageError, match="camera raw"):
        decode(encoded(quadrants(), "TIFF", tiffinfo=tags))
    assert decode(encoded(quadrants(), "JPEG"), name="a.nef").notes == ("named-nef-is-JPEG",)


def test_text_that_unpacks_to_a_bomb_is_refused() -> None:
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    bomb = b"Comment\0\0" + zlib.compress(bytes(5_000_000))
    with pytest.raises(ImageError, match="unpacks to more"):
        decode(png(header, b"\0\0", (b"zTXt", bomb)))


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
    assert wrong == DAMAGED_ALL_THE_SAME | READ_BY_TIFFFILE


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_a_png_whose_data_end_properly_but_too_soon_is_refused(mode: str) -> None:
    whole = encoded(in_mode(quadrants(), mode), "PNG")
    start = whole.index(b"IDAT")
    (length,) = struct.unpack_from(">I", whole, start - 4)
    rows = zlib.decompress(whole[start + 4 : start + 4 + length])
    for missing, refused in ((1, True), (len(rows) // 20, True), (len(rows) // 2, True), (0, False)):
        packed = zlib.compress(rows[: len(rows) - missing])
        chunk = struct.pack(">I", len(packed)) + b"IDAT" + packed
        short = with_checksums(whole[: start - 4] + chunk + b"\0\0\0\0" + whole[start + 8 + length :])
        if refused:
            with pytest.raises(ImageError, match="truncated: "):
                decode(short)
        else:
            np.testing.assert_array_equal(decode(short).pixels, decode(whole).pixels)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (9, 17), (40, 20)])
def test_an_interlaced_png_with_a_pass_too_few_is_refused(size: tuple[int, int]) -> None:
    width, height = size
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)
    rows = bytearray()
    for left, top, x_step, y_step in ADAM7:
        columns = len(range(left, width, x_step))
        rows += (b"\0" + b"\x80" * columns) * len(range(top, height, y_step)) if columns else b""
    for missing in (0, 1, len(range(0, width, 1)) + 1):
        packed = zlib.compress(rows[: len(rows) - missing])
        parts = [header, b"IDAT" + packed, b"IEND"]
        data = with_checksums(PNG_START + b"".join(struct.pack(">I", len(p) - 4) + p + bytes(4) for p in parts))
        if missing:
            with pytest.raises(ImageError, match="truncated: "):
                decode(data)
        else:
            assert (decode(data).pixels == 0x80).all()


def test_a_black_picture_is_not_taken_for_a_short_one() -> None:
    assert not decode(encoded(Image.new("RGB", (300, 200)), "PNG")).pixels.any()


def test_damage_behind_the_last_row_of_a_png_does_no_harm() -> None:
    black = encoded(Image.new("L", (40, 20)), "PNG")
    start = black.index(b"IDAT")
    packed = zlib.compress(bytes(41 * 25))[:-1] + b"x"  # five rows too many, and a wrong checksum
    data = with_checksums(black[: start - 4] + struct.pack(">I", len(packed)) + b"IDAT" + packed + bytes(4))
    assert not decode(data).pixels.any()


def test_a_tiff_with_half_a_row_per_strip_is_refused() -> None:
    whole = encoded(Image.new("L", (40, 20)), "TIFF")
    entry = whole.index(struct.pack("<HHI", 278, 4, 1))  # RowsPerStrip, of type LONG
    ratio = struct.pack("<HHII", 278, 5, 1, len(whole))  # RATIONAL, which does not fit here: where it stands
    data = whole[:entry] + ratio + whole[entry + 12 :] + struct.pack("<II", 21, 2)
    with pytest.raises(ImageError, match="claims 40 × 20 pixels, but holds only 420 of 800"):
        decode(data)


def test_a_signalling_nan_is_refused_for_what_it_is() -> None:
    data = encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF")
    quiet = encoded(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF")
    start = next(
        i for i in range(len(data)) if data[i : i + 16] != quiet[i : i + 16] and quiet[i + 2 : i + 4] == b"\xc0\x7f"
    )
    with pytest.raises(ImageError, match="not numbers"):
        decode(data[:start] + b"\x01\x00\xa0\x7f" * 4 + data[start + 16 :])


def test_damaged_files_are_decoded_or_refused_and_hide_no_error_of_ours() -> None:
    corpus = encoded_pictures()
    kinds = Counter()
    for number in range(600):
        name, data = mutated(corpus, seed=0, number=number)
        try:
            image = decode(data, name=name)
        except ImageError as error:
            frames = traceback.extract_tb(error.__cause__.__traceback__) if error.__cause__ else []
            assert not frames or "headstart" not in Path(frames[-1].filename).parts, (number, name)
            kinds["refused"] += 1
        else:
            assert image.pixels.shape == (image.height_px, image.width_px, 3)
            kinds["decoded"] += 1
    assert min(kinds.values()) > 100
