from __future__ import annotations

import pytest

from headstart.images.formats import FORMATS, IMAGE_SUFFIXES, has_magic, suffix_of, wrong_suffix


@pytest.mark.parametrize(
    ("path", "suffix"),
    [("a/b.JPG", ".jpg"), ("a.d/b", ""), ("a/.png", ""), (".png", ""), ("b", ""), ("a/b.tar.Gz", ".gz"), ("a/b.", ".")],
)
def test_suffixes(path: str, suffix: str) -> None:
    assert suffix_of(path) == suffix


def test_no_reader_starts_a_program_or_takes_anything() -> None:
    assert not {"EPS", "WMF", "TGA"} & set(FORMATS)
    assert {".jpg", ".heic", ".svg", ".nef", ".dcm"} <= IMAGE_SUFFIXES
    assert not {".txt", ".pdf", ".csv", ""} & IMAGE_SUFFIXES


@pytest.mark.parametrize(
    ("name", "actual", "expected"),
    [
        ("a.jpg", "PNG", "jpg"),
        ("a.jpg", "MPO", ""),
        ("a.heic", "JPEG", "heic"),
        ("a.dat", "PNG", ""),
        ("a.bmp", "DIB", ""),
    ],
)
def test_wrong_suffixes(name: str, actual: str, expected: str) -> None:
    assert wrong_suffix(name, actual) == expected


def test_texts_are_no_images() -> None:
    for text in (
        b"BMI of bees, and other texts",
        b"RIFF-raff, said WEBP",
        b"P5 is what we call it",
        b"",
        b"GIF is a format",
    ):
        assert not has_magic(text)
    for image in (b"BM\x36\0\0\0\0\0\0\0", b"RIFF\0\0\0\0WEBPVP8 ", b"\0\0\0\x18ftypmif1", b"\xff\xd8\xff\xe0"):
        assert has_magic(image)
