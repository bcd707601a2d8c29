"""One class has one name; what may be one class, or none, is asked about."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from headstart.images.discovery.classes_and_splits import questions
from headstart.images.discovery.scan import discover
from headstart.texts import class_name

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def asked(*names: str, images: int = 5) -> str:
    return " ".join(questions(dict.fromkeys(names, images)))


@pytest.mark.parametrize("text", [NFC, NFD, f" {NFD}", f"{NFC}\u00a0", f"\t{NFC} "])
def test_unicode_forms_and_outer_spaces_are_one_name(text: str) -> None:
    assert class_name(text) == NFC


def test_a_name_of_spaces_stays() -> None:
    assert class_name(" ") == " "


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("Cat", "cat", "dog"), "Cat, cat: the same class?"),
        (("tabby cat", "tabby  cat"), '"tabby  cat", "tabby cat": the same class?'),
        (("golden_retriever", "golden-retriever"), "golden-retriever, golden_retriever: the same class?"),
        (("Straße", "STRASSE"), "STRASSE, Straße: the same class?"),
        (("cat", "cat\u200b"), "the same class?"),
        (("0", "1", "1.0"), "1, 1.0: the same class?"),
        (("1", "01"), "01, 1: the same class?"),
        (("nan", "cat"), 'nan: is this "no label"?'),
        (("NA", "N/A", "cat"), 'N/A, NA: is this "no label"?'),
        (("NULL", "<NA>", "#N/A", "?"), "#N/A, <NA>, ?, NULL"),
        (("None", "cat"), 'None: is this "no label"?'),
        (("0.137", "0,274", "0"), "0,274, 0.137: are these numbers a class, or a measured quantity?"),
        (("cat", "dog", "cat|dog"), "cat|dog: several labels"),
        (("cat", "dog;cat"), "dog;cat: several labels"),
    ],
)
def test_questions_name_what_was_seen(names: tuple[str, ...], words: str) -> None:
    assert words in asked(*names)


def test_numbers_with_few_images_each_and_classes_of_one_image() -> None:
    assert "measured quantity" in questions({str(age): 1 + (age == 30) for age in range(20, 60)})[0]
    assert "12 classes of one image each (0.000, 0.137" in asked(*(f"{0.137 * i:.3f}" for i in range(12)), images=1)
    assert "is this the column of the classes?" in asked(*(f"IMG_{i}" for i in range(12)), images=1)


@pytest.mark.parametrize(
    "names",
    [("cat", "dog"), ("0", "1"), tuple("0123456789"), ("1.0", "2.0"), ("none", "one"), ("a-b", "a+b"), ("a|b", "c")],
)
def test_names_that_are_clear_are_not_asked_about(names: tuple[str, ...]) -> None:
    assert not asked(*names)


def test_folders_of_one_class_keep_their_paths(tmp_path: Path) -> None:
    for folder in (f"train/{NFC}", f"test/{NFD}", "train/tea "):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.png").touch()
    found = discover(tmp_path)
    assert found.class_names == (NFC, "tea")
    assert {ref.path for ref in found.refs} == {f"train/{NFC}/1.png", f"test/{NFD}/1.png", "train/tea /1.png"}
    assert all(os.path.exists(tmp_path / ref.path) for ref in found.refs)  # noqa: PTH110
    assert not found.notices


def test_class_folders_that_differ_in_case_are_asked_about(tmp_path: Path) -> None:
    for folder in ("Cat", "cat", "dog "):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").touch()
    found = discover(tmp_path)
    assert found.class_names == ("Cat", "cat", "dog")
    assert found.notices[0].startswith("Cat, cat: the same class?")
