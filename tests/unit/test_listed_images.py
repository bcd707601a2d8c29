"""Images that a table names are predicted; classes of a head are recognised in other spellings of one text."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from headstart.errors import DataError
from headstart.evaluation import class_numbers
from headstart.predict import collect_images

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def test_a_list_stands_for_the_images_in_it(tmp_path: Path) -> None:
    for name in ("img/a.png", "b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "list.csv").write_text("image,label\nimg\\a.png,cat\n")
    root, found = collect_images([tmp_path / "list.csv", tmp_path / "b.png"])
    assert root == tmp_path
    assert [(name, ref.path) for name, ref in found] == [
        (str(tmp_path / "img" / "a.png"), "img/a.png"),
        (str(tmp_path / "b.png"), "b.png"),
    ]


def test_a_list_of_files_that_are_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.png\n")
    with pytest.raises(DataError, match=r"list\.txt names 1 file not found in .*: a\.png"):
        collect_images([tmp_path / "list.txt"])


def test_classes_of_a_head_in_another_unicode_form() -> None:
    assert class_numbers(("ant", NFC), (NFD, "ant ")) == {NFD: 1, "ant ": 0}
    assert class_numbers(("ant", NFD), (NFC,)) == {NFC: 1}
    assert class_numbers((NFC, NFD), (NFC, NFD)) == {NFC: 0, NFD: 1}  # a head of older versions


def test_classes_that_differ_in_case_are_asked_about() -> None:
    with pytest.raises(DataError, match=r"this class: Cat\. It knows: cat, dog\. cat, Cat: the same class\?"):
        class_numbers(("cat", "dog"), ("Cat",))
