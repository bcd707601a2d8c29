"""Files that are refused, with reasons that a person understands."""

from __future__ import annotations

import csv
import struct
import traceback
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from headstart.errors import ImageError
from headstart.images.decode import decode
from headstart.images.discovery.scan import discover
from headstart.images.load import load_image
from headstart.images.pillow_files import ADAM7
from headstart.types import ImageRef
from mutations import PNG_START, mutated, with_checksums
from pictures import encoded, encoded_pictures, in_mode, png, quadrants

#: Sound to Pillow's eye when it only looks at the head, but with pixels that cannot be read.
DAMAGED_ALL_THE_SAME = {"png_1bit/testpngs__crashers_badadler.png", "png_rgb/pil__broken_data_stream.png"}

#: Damaged, and read from Pillow 13 on; older ones refuse it.
READ_BY_PILLOW_13 = "corrupt_or_unsupported/pil__crash-0da013a13571cc8eb457a39fee8db18f8a3c7127.tif"

#: Kinds that Pillow does not read; the extra microscopy does.
READ_BY_TIFFFILE = {
    "corrupt_or_unsupported/pil__hopper_unknown_pixel_mode.tif",
    "corrupt_or_unsupported/pil__hopper_webp.tif",
}


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
        (b"\x00\x00\x00\x18ftypavif" + bytes(20), "damaged: it begins like an image"),
        (bytes(128) + b"DICM" + bytes(20), "contains no picture: it is DICOM without pixel data"),
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
    with pytest.raises(ImageError, match="claims 4 × 9 pixels, but contains only 16 of 36"):
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
    with pytest.raises(ImageError, match="decompresses to more"):
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
    refused = set() if int(PIL.__version__.split(".")[0]) >= 13 else {READ_BY_PILLOW_13}
    assert wrong == DAMAGED_ALL_THE_SAME | READ_BY_TIFFFILE | refused


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
    with pytest.raises(ImageError, match="claims 40 × 20 pixels, but contains only 420 of 800"):
        decode(data)


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
