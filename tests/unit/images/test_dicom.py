from __future__ import annotations

import io
import warnings

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from dicoms import by_pillow, dataset_of, dicom, item, written
from headstart.errors import ImageError
from headstart.images.decode import decode
from headstart.images.samples import DecodeRules
from mutations import mutated

RNG = np.random.default_rng(0)
CT = RNG.integers(0, 4096, (13, 17)).astype(np.uint16)
SIGNED = RNG.integers(-2048, 2048, (13, 17)).astype(np.int16)
BYTES = RNG.integers(0, 256, (13, 17), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (13, 17, 3), dtype=np.uint8)
WHITE_IS_ZERO = {"PhotometricInterpretation": "MONOCHROME1"}
HOUNSFIELD = {"BitsStored": 12, "RescaleSlope": 1, "RescaleIntercept": -1024}
TABLE = item(LUTDescriptor=[4096, 0, 16], LUTData=(np.sqrt(np.arange(4096) / 4095) * 65535).astype(np.uint16).tolist())
NEGATIVE = item(LUTDescriptor=[300, -150, 12], LUTData=(np.arange(300) ** 2 * 4095 // 89401).tolist())


def by_pydicom(data: bytes) -> np.ndarray:
    """The levels of a grey file by pydicom's own functions, which give values of the range that can be stored."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    values = apply_modality_lut(dataset.pixel_array, dataset)
    shown = apply_voi_lut(values, dataset).astype(np.float64)
    bits, is_signed = dataset.BitsStored, dataset.PixelRepresentation
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if is_signed else [0, 2**bits - 1], float)
    if "VOILUTSequence" in dataset or "ModalityLUTSequence" in dataset:
        sequence = dataset.get("VOILUTSequence") or dataset.ModalityLUTSequence
        ends = np.array([0, 2 ** sequence[0].LUTDescriptor[2] - 1])
    else:
        ends = ends * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
    shares = (shown - ends.min()) / np.ptp(ends)
    return 255 * (1 - shares if dataset.PhotometricInterpretation == "MONOCHROME1" else shares)


GREY = {
    "8 bits": dicom(BYTES),
    "8 bits, 6 stored": dicom(BYTES >> 2, BitsStored=6),
    "8 bits with a window": dicom(BYTES, WindowCenter=100, WindowWidth=90),
    "8 bits, rescaled": dicom(BYTES, RescaleSlope=2, RescaleIntercept=-100),
    "8 bits, signed": dicom(BYTES.view(np.int8)),
    "16 bits": dicom(CT * 16),
    "12 of 16 bits": dicom(CT, BitsStored=12),
    "12 of 16 bits, signed": dicom(SIGNED, BitsStored=12),
    "32 bits": dicom(CT.astype(np.uint32) << 20),
    "white is zero": dicom(CT, BitsStored=12, PhotometricInterpretation="MONOCHROME1"),
    "Hounsfield units, no window": dicom(CT, **HOUNSFIELD),
    "linear window": dicom(CT, **HOUNSFIELD, WindowCenter=40, WindowWidth=400),
    "first of two windows": dicom(CT, **HOUNSFIELD, WindowCenter=[-600, 40], WindowWidth=[1500, 400]),
    "linear exact": dicom(CT, **HOUNSFIELD, WindowCenter=40, WindowWidth=400, VOILUTFunction="LINEAR_EXACT"),
    "sigmoid": dicom(CT, **HOUNSFIELD, WindowCenter=40, WindowWidth=400, VOILUTFunction="SIGMOID"),
    "sharp sigmoid": dicom(CT, **HOUNSFIELD, WindowCenter=40, WindowWidth=0.001, VOILUTFunction="SIGMOID"),
    "threshold": dicom(CT, **HOUNSFIELD, WindowCenter=40, WindowWidth=1),
    "window and white is zero": dicom(
        CT, BitsStored=12, WindowCenter=2000, WindowWidth=3000, PhotometricInterpretation="MONOCHROME1"
    ),
    "slopes that are no integers": dicom(SIGNED, BitsStored=12, RescaleSlope="0.25", RescaleIntercept="-7.5"),
    "table of the modality": dicom(CT, BitsStored=12, ModalityLUTSequence=[TABLE]),
    "table of values": dicom(CT, BitsStored=12, VOILUTSequence=[TABLE]),
    "table before window": dicom(CT, BitsStored=12, VOILUTSequence=[TABLE], WindowCenter=9, WindowWidth=90),
    "table that begins below zero": dicom(SIGNED // 10, BitsStored=12, VOILUTSequence=[NEGATIVE]),
    "implicit": dicom(CT, ImplicitVRLittleEndian, **HOUNSFIELD, WindowCenter=40, WindowWidth=400),
    "big endian": dicom(CT.astype(">u2"), ExplicitVRBigEndian, **HOUNSFIELD, WindowCenter=40, WindowWidth=400),
    "deflated": dicom(CT, DeflatedExplicitVRLittleEndian, **HOUNSFIELD, WindowCenter=40, WindowWidth=400),
    "JPEG": by_pillow(BYTES, JPEGBaseline8Bit),
    "JPEG 2000": by_pillow(BYTES, JPEG2000Lossless),
    "JPEG 2000, 16 bits": by_pillow(CT * 16, JPEG2000Lossless, WindowCenter=30000, WindowWidth=20000),
}


@pytest.mark.parametrize("kind", GREY)
def test_grey_files_are_shown_as_pydicom_shows_them(kind: str) -> None:
    result = decode(GREY[kind], name="a.dcm")
    assert (result.format, result.width_px, result.height_px) == ("DICOM", 17, 13)
    assert "dicom-1" in result.notes
    np.testing.assert_array_equal(result.pixels, result.pixels[:, :, :1].repeat(3, axis=2))
    assert np.abs(result.pixels[:, :, 0] - by_pydicom(GREY[kind])).max() <= 1
    assert np.unique(result.pixels).size > (1 if kind == "threshold" or kind == "sharp sigmoid" else 10)


def test_a_slope_below_zero_turns_the_values_round() -> None:  # where pydicom swaps black and white
    falling = dicom(CT, BitsStored=12, RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=800, WindowWidth=700)
    turned = dicom(4095 - CT, BitsStored=12, WindowCenter=800, WindowWidth=700)
    np.testing.assert_array_equal(decode(falling).pixels, decode(turned).pixels)


def test_rle() -> None:
    for values in (CT, COLOUR):
        dataset = dataset_of(values)
        dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
        np.testing.assert_array_equal(decode(written(dataset)).pixels, decode(dicom(values)).pixels)


def test_lossless_12_bits_and_signed_values_of_jpeg_2000() -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    for values in (CT, SIGNED):
        dataset = dataset_of(values, JPEG2000Lossless, BitsStored=12, WindowCenter=500, WindowWidth=2000)
        frame = imagecodecs.jpeg2k_encode(values, level=0, reversible=True, codecformat="j2k", bitspersample=12)
        dataset.PixelData = pydicom.encaps.encapsulate([frame])
        dataset["PixelData"].VR = "OB"
        expected = dicom(values, BitsStored=12, WindowCenter=500, WindowWidth=2000)
        np.testing.assert_array_equal(decode(written(dataset)).pixels, decode(expected).pixels)


@pytest.mark.parametrize("planar", [0, 1])
def test_colours(planar: int) -> None:
    stored = np.moveaxis(COLOUR, 2, 0).copy() if planar else COLOUR
    data = dicom(COLOUR, PlanarConfiguration=planar, PixelData=stored.tobytes() + b"\0")
    result = decode(data)
    np.testing.assert_array_equal(result.pixels, COLOUR)
    assert result.notes == ("dicom-1",)
    deep = dicom(COLOUR.astype(np.uint16) << 4, BitsStored=12)
    assert np.abs(decode(deep).pixels - COLOUR.astype(float)).max() <= 1


def test_colours_stored_as_luminance_and_chrominance() -> None:
    smooth = np.asarray(Image.fromarray(COLOUR[:4, :4]).resize((32, 32), Image.Resampling.BICUBIC))
    y, cb, cr = np.moveaxis(np.asarray(Image.fromarray(smooth).convert("YCbCr")), 2, 0)
    full = np.stack([y, cb, cr], axis=2)
    assert np.abs(decode(dicom(full, PhotometricInterpretation="YBR_FULL")).pixels - smooth.astype(int)).max() <= 3
    halves = np.stack([y[:, ::2], y[:, 1::2], cb[:, ::2], cr[:, ::2]], axis=2)
    subsampled = dicom(full, PhotometricInterpretation="YBR_FULL_422", PixelData=halves.tobytes())
    assert np.abs(decode(subsampled).pixels - smooth.astype(int)).mean() < 4
    assert np.abs(decode(by_pillow(smooth, JPEGBaseline8Bit)).pixels - smooth.astype(int)).mean() < 4
    np.testing.assert_array_equal(decode(by_pillow(smooth, JPEG2000Lossless)).pixels, smooth)
    with pytest.raises(ImageError, match="YBR_PARTIAL_420 of 3 samples is not supported"):
        decode(dicom(full, PhotometricInterpretation="YBR_PARTIAL_420"))


def palette(bits: int, first: int, tables: np.ndarray) -> dict[str, object]:
    elements: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [len(table), first, bits]
        elements[f"{name}PaletteColorLookupTableData"] = table.tobytes()
    return elements


def test_palettes() -> None:
    eight = RNG.integers(0, 256, (3, 256), dtype=np.uint8)
    np.testing.assert_array_equal(
        decode(dicom(BYTES, **palette(8, 0, eight))).pixels, np.moveaxis(eight[:, BYTES], 0, 2)
    )
    deep = RNG.integers(0, 65536, (3, 100)).astype(np.uint16)
    data = dicom(BYTES, **palette(16, 50, deep))
    dataset = pydicom.dcmread(io.BytesIO(data))
    expected = apply_color_lut(dataset.pixel_array, dataset) / 257
    assert np.abs(decode(data).pixels - expected).max() <= 1
    in_words = dicom(BYTES, **palette(8, 0, eight.astype(np.uint16)))
    np.testing.assert_array_equal(decode(in_words).pixels, np.moveaxis(eight[:, BYTES], 0, 2))
    many = dicom(CT, **palette(8, 0, RNG.integers(0, 256, (3, 4096), dtype=np.uint8)))  # pydicom wraps around here
    assert np.unique(decode(many).pixels).size > 200


def test_segmented_palettes() -> None:
    segments = np.array([0, 1, 0, 1, 255, 65535], "<u2").tobytes()  # one value, then a line of 255 more
    elements = palette(16, 0, np.zeros((3, 256), np.uint16))
    for name in ("Red", "Green", "Blue"):
        del elements[f"{name}PaletteColorLookupTableData"]
        elements[f"Segmented{name}PaletteColorLookupTableData"] = segments
    np.testing.assert_array_equal(decode(dicom(BYTES, **elements)).pixels[:, :, 0], BYTES)


def test_float_pixels_are_shown_from_0_to_1_or_by_their_window() -> None:
    values = np.linspace(0, 1, 221).reshape(13, 17)
    for kind in (np.float32, np.float64):
        plain, windowed = dicom(values.astype(kind)), dicom(values.astype(kind), WindowCenter=0.5, WindowWidth=0.5)
        assert np.abs(decode(plain).pixels[:, :, 0] - 255 * values).max() <= 1
        assert decode(windowed).notes[0] == "dicom-1"  # a linear window is at least 1 wide
        exact = dicom(values.astype(kind), WindowCenter=0.5, WindowWidth=0.5, VOILUTFunction="LINEAR_EXACT")
        expected = 255 * np.clip((values - 0.25) / 0.5, 0, 1)
        assert np.abs(decode(exact).pixels[:, :, 0] - expected).max() <= 1
    values[0, 0] = np.nan
    with pytest.raises(ImageError, match="NaN or infinite"):
        decode(dicom(values, WindowCenter=0.5, WindowWidth=0.5, VOILUTFunction="SIGMOID"))


@pytest.mark.parametrize(
    "window",
    [
        {"WindowWidth": 0},
        {"WindowWidth": 0.5},
        {"WindowWidth": -3},
        {"VOILUTFunction": "CUBIC"},
        {"WindowCenter": "1e300"},
    ],
)
def test_a_window_that_cannot_be_is_noted_and_not_used(window: dict[str, object]) -> None:
    result = decode(dicom(CT, BitsStored=12, **{"WindowCenter": 40, "WindowWidth": 400, **window}))
    assert "window-unusable" in result.notes
    np.testing.assert_array_equal(result.pixels, decode(dicom(CT, BitsStored=12)).pixels)


def test_padding_is_never_brighter_than_the_picture() -> None:
    values = np.tile(np.array([[100, 1000, 3000]], np.uint16), (4, 1))
    values[0] = 4095
    result = decode(dicom(values, BitsStored=12, PixelPaddingValue=4095))
    assert result.pixels[0].max() == result.pixels[1, 0, 0] == 6
    assert "padding" in result.notes
    inverted = decode(
        dicom(
            np.where(values == 4095, 0, values).astype(np.uint16), BitsStored=12, PixelPaddingValue=0, **WHITE_IS_ZERO
        )
    )
    assert inverted.pixels[0].max() == inverted.pixels[1, 2, 0] == 68
    dark = decode(dicom(np.where(values == 4095, 0, values).astype(np.uint16), BitsStored=12, PixelPaddingValue=0))
    assert dark.pixels[0].max() == 0
    ranged = decode(dicom(values, BitsStored=12, PixelPaddingValue=4095, PixelPaddingRangeLimit=3000))
    assert ranged.pixels[:, 2].max() == 6
    signed = dicom(np.where(values == 4095, -2000, values).astype(np.int16), WindowCenter=0, WindowWidth=8000)
    assert decode(signed).pixels[0].max() < decode(signed).pixels[1].min()


def test_frames() -> None:
    frames = np.stack([BYTES, 255 - BYTES, BYTES // 2])
    data = dicom(frames)
    first = decode(data)
    np.testing.assert_array_equal(first.pixels[:, :, 0], BYTES)
    assert first.notes == ("dicom-1", "first-frame")
    for page in (1, 2, 3):
        result = decode(data, rules=DecodeRules(page=page))
        np.testing.assert_array_equal(result.pixels[:, :, 0], frames[page - 1])
    np.testing.assert_array_equal(decode(data, rules=DecodeRules(page="max")).pixels[:, :, 0], frames.max(axis=0))
    with pytest.raises(ImageError, match="no page 4: the file has 3"):
        decode(data, rules=DecodeRules(page=4))
    compressed = by_pillow(BYTES, JPEG2000Lossless, frames=list(frames))
    second = decode(compressed, rules=DecodeRules(page=2))
    np.testing.assert_array_equal(second.pixels[:, :, 0], frames[1])


def test_what_a_multi_frame_file_says_of_each_frame() -> None:
    shared = item(PixelValueTransformationSequence=[item(RescaleSlope=2, RescaleIntercept=-100)])
    windows = [item(FrameVOILUTSequence=[item(WindowCenter=c, WindowWidth=w)]) for c, w in ((100, 50), (200, 300))]
    data = dicom(
        np.stack([BYTES, BYTES]), SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=windows
    )
    for page, (center, width) in ((1, (100, 50)), (2, (200, 300))):
        alone = dicom(BYTES, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=center, WindowWidth=width)
        expected = decode(alone).pixels
        np.testing.assert_array_equal(decode(data, rules=DecodeRules(page=page)).pixels, expected)
    with pytest.raises(ImageError, match="differ"):
        decode(data, rules=DecodeRules(page="mean"))


def test_an_intensity_range_of_the_recipe_takes_the_place_of_windows() -> None:
    rules = DecodeRules(intensity=(-1000.0, 400.0))
    expected = decode(
        dicom(CT, **HOUNSFIELD, WindowCenter=-300, WindowWidth=1400, VOILUTFunction="LINEAR_EXACT")
    ).pixels
    for elements in (
        {},
        {"WindowCenter": 40, "WindowWidth": 400},
        {"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "SIGMOID"},
        {"VOILUTSequence": [TABLE]},
    ):
        result = decode(dicom(CT, **HOUNSFIELD, **elements), rules=rules)
        np.testing.assert_array_equal(result.pixels, expected)
        assert "window" not in result.notes
    unusable = decode(dicom(CT, **HOUNSFIELD, WindowCenter=40, WindowWidth=0), rules=rules)
    assert "window-unusable" not in unusable.notes


def test_the_order_of_the_bytes_is_no_part_of_a_note() -> None:
    assert "from-uint16" in decode(dicom(CT.astype(">u2"), ExplicitVRBigEndian)).notes


def test_damaged_files_are_refused_or_read_and_say_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    corpus = {kind: GREY[kind] for kind in ("linear window", "JPEG", "table of values", "implicit")}
    corpus["palette"] = dicom(BYTES, **palette(8, 0, RNG.integers(0, 256, (3, 256), dtype=np.uint8)))
    reasons = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(300):
            name, data = mutated(corpus, 17, number)
            try:
                decode(data, name=f"{name}.dcm", max_pixels=10_000)
            except ImageError as error:
                reasons.append(str(error))
    assert len(reasons) > 100
    assert not [reason for reason in reasons if "SECRET" in reason]
    assert not caught
    assert capfd.readouterr() == ("", "")
