"""Files of several pages, frames or channels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from headstart.errors import ImageError, ParameterError
from headstart.images.decode import decode
from headstart.images.samples import DecodeRules, parse_intensity, parse_page
from headstart.images.tiff_tags import pictures_of


def written(values: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **{"photometric": "minisblack", **options})
    return file.getvalue()


def planes(n: int, dtype: str = "uint8", size: int = 16) -> np.ndarray:
    """Return pages that differ, shape (n, size, size); the first is dark."""
    top = 200 if dtype == "uint8" else 50_000
    steps = np.arange(size * size).reshape(size, size) % 50
    return np.stack([steps + number * top // n for number in range(n)]).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float64"])
@pytest.mark.parametrize("ome", [True, False])
def test_three_pages_of_channels_are_one_colour_picture(dtype: str, ome: bool) -> None:
    values = planes(3, dtype) if dtype != "float64" else planes(3) / 255
    result = decode(written(values, ome=ome, metadata={"axes": "CYX"}))
    high = {"uint8": 255, "uint16": 65535, "float64": 1}[dtype]
    np.testing.assert_allclose(result.pixels, np.moveaxis(values, 0, 2) * (255 / high), atol=1)
    assert "pages-are-colours" in result.notes
    assert "first-page" not in result.notes


def test_imagej_channels_are_one_colour_picture() -> None:
    values = planes(3, "uint16")
    result = decode(written(values, imagej=True, metadata={"axes": "CYX"}))
    np.testing.assert_allclose(result.pixels, np.moveaxis(values, 0, 2) / 257, atol=1)


def test_colours_at_several_depths_are_several_pictures() -> None:
    values = planes(6).reshape(2, 3, 16, 16)  # axes ZCYX
    data = written(values, ome=True, metadata={"axes": "ZCYX"})
    first = decode(data)
    np.testing.assert_array_equal(first.pixels, np.moveaxis(values[0], 0, 2))
    assert "first-page" in first.notes
    second = decode(data, rules=DecodeRules(page=2))
    np.testing.assert_array_equal(second.pixels, np.moveaxis(values[1], 0, 2))
    np.testing.assert_array_equal(decode(data, rules=DecodeRules("max")).pixels, np.moveaxis(values.max(0), 0, 2))


@pytest.mark.parametrize(
    ("description", "n_pages", "expected"),
    [
        ('<OME><Pixels DimensionOrder="XYZCT" SizeC="3" SizeT="1" SizeZ="2"/></OME>', 6, [(0, 2, 4), (1, 3, 5)]),
        ('<ome:Pixels SizeC="3" DimensionOrder="XYCZT" SizeT="2" SizeZ="1">', 6, [(0, 1, 2), (3, 4, 5)]),
        ('<Pixels DimensionOrder="XYCZT" SizeC="3" SizeT="1" SizeZ="1"/>', 1, [(0,)]),  # three samples of one page
        ('<Pixels DimensionOrder="XYCZT" SizeC="2" SizeT="1" SizeZ="1"/>', 2, [(0,), (1,)]),
        ('<Pixels DimensionOrder="XYCZT" SizeC="3" SizeT="1" SizeZ="1"/>' * 2, 3, [(0,), (1,), (2,)]),
        ('<Pixels DimensionOrder="XYCZT" SizeC="999999999" SizeT="999999999" SizeZ="999999999"/>', 1, [(0,)]),
        ("ImageJ=1.11a\nimages=3\nchannels=3\n", 3, [(0, 1, 2)]),
        ("ImageJ=1.11a\nimages=3\nslices=3\n", 3, [(0,), (1,), (2,)]),
        ('{"shape": [3, 9, 9], "axes": "CYX"}', 3, [(0, 1, 2)]),
        ('{"shape": [3, 9, 9]}', 3, [(0,), (1,), (2,)]),
        ("{" * 100_000, 1, [(0,)]),
        ("a photograph", 2, [(0,), (1,)]),
    ],
)
def test_descriptions_of_axes(description: str, n_pages: int, expected: list[tuple[int, ...]]) -> None:
    assert pictures_of(description, range(n_pages)) == expected


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float64"])
def test_a_page_and_projections_of_a_stack(dtype: str) -> None:
    values = planes(4, dtype) if dtype != "float64" else planes(4) / 255
    data = written(values, metadata=None)
    scale = {"uint8": 1, "uint16": 1 / 257, "float64": 255}[dtype]
    expected = {None: values[0], 3: values[2], "max": values.max(axis=0), "mean": values.mean(axis=0)}
    for page, wanted in expected.items():
        result = decode(data, rules=DecodeRules(page))
        np.testing.assert_allclose(result.pixels[:, :, 1], wanted * scale, atol=1)
        assert ("first-page" in result.notes) == (page is None)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_frames_are_chosen_as_pages_are(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in (0, 250, 50)]
    file = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], **options)
    for page, level in ((None, 0), (2, 250), (3, 50), ("max", 250), ("mean", 100)):
        assert decode(file.getvalue(), rules=DecodeRules(page)).pixels[0, 0].tolist() == [level, 0, 0]


def test_a_picture_of_one_page_is_its_own_projection() -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "JPEG")
    plain = decode(file.getvalue())
    for page in ("max", "mean"):
        np.testing.assert_array_equal(decode(file.getvalue(), rules=DecodeRules(page)).pixels, plain.pixels)
    with pytest.raises(ImageError, match="there is no page 2: the file has 1"):
        decode(file.getvalue(), rules=DecodeRules(2))


def test_smaller_versions_of_a_page_are_no_pages() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        tiff.write(planes(1)[0], metadata=None, photometric="minisblack")
        tiff.write(planes(1)[0][::2, ::2], metadata=None, photometric="minisblack", subfiletype=1)
    assert decode(file.getvalue()).notes == ("from-L",)
    assert decode(file.getvalue(), rules=DecodeRules("max")).pixels.shape == (16, 16, 3)


@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_a_smaller_version_before_its_picture_is_not_taken(dtype: str) -> None:
    values, file = planes(1, "uint8")[0].astype(dtype) / (1 if dtype == "uint8" else 255), io.BytesIO()
    values = values.astype(dtype)
    with tifffile.TiffWriter(file) as tiff:
        tiff.write(values[::2, ::2], metadata=None, photometric="minisblack", subfiletype=1)
        tiff.write(values, metadata=None, photometric="minisblack")
    for page in (None, "max"):
        result = decode(file.getvalue(), rules=DecodeRules(page))
        assert result.pixels.shape == (16, 16, 3)
        assert "first-page" not in result.notes
    only = written(values[::2, ::2], metadata=None, subfiletype=1)
    assert decode(only).pixels.shape == (8, 8, 3)


@pytest.mark.parametrize("options", [{"imagej": True}, {"metadata": {"axes": "CYX"}}, {}], ids=str)
@pytest.mark.parametrize("dtype", ["uint16", "float64"])
def test_pictures_behind_a_page_are_not_passed_over(options: dict[str, Any], dtype: str) -> None:
    if options.get("imagej") and dtype == "float64":
        return
    data = written(planes(3, "uint8").astype(dtype), truncate=True, **options)
    for page in (None, 2, "max"):
        with pytest.raises(ImageError, match="several pictures stored in one page"):
            decode(data, rules=DecodeRules(page))


def test_one_page_of_a_stack_that_kept_its_description_is_a_picture() -> None:
    data = written(planes(1)[0], metadata=None, description="ImageJ=1.53\nimages=7\nslices=7\n")
    assert decode(data).notes == ("from-L",)


def test_a_volume_in_one_page_is_refused() -> None:
    data = written(np.stack([planes(1)[0]] * 16), volumetric=True, tile=(16, 16, 16))
    with pytest.raises(ImageError, match="a volume in one page"):
        decode(data)


def test_pages_that_have_no_common_picture() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        for size in (16, 20):
            tiff.write(planes(1, size=size)[0], metadata=None, photometric="minisblack")
    with pytest.raises(ImageError, match="differ in size or type"):
        decode(file.getvalue(), rules=DecodeRules("mean"))
    with pytest.raises(ImageError, match="too large: 5 pages of 1,280 pixels in all, at most 1,024 are read"):
        decode(written(planes(5), metadata=None), rules=DecodeRules("max"), max_pixels=256)


def test_pages_and_intensities_as_they_are_written() -> None:
    assert [parse_page(text) for text in ("1", "2", "max", "mean")] == [None, 2, "max", "mean"]
    assert [parse_intensity(text) for text in ("type", "range", "0:4095", "-1e3:2.5")] == [
        "type", "range", (0.0, 4095.0), (-1000.0, 2.5),
    ]  # fmt: skip
    for text in ("0", "-1", "1.5", "median", ""):
        with pytest.raises(ParameterError, match="A page is a number"):
            parse_page(text)
    for text in ("5:5", "9:1", "nan:1", "0:inf", "1", "1:2:3", "auto", ""):
        with pytest.raises(ParameterError, match="Intensities are"):
            parse_intensity(text)
