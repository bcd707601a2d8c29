"""Folders that may be splits, folds or no class are asked about, and folders without an image are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.images.discovery.scan import discover


def asked(root: Path, *paths: str) -> str:
    for path in paths:
        file = root / path
        if path.endswith("/"):
            file.mkdir(parents=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    return " ".join(discover(root).notices).replace(str(root), "data")


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (
            ("fold_1/ant/1.png", "fold_1/bee/1.png", "fold_1/wasp/1.png", "fold_2/ant/1.png", "fold_2/bee/1.png"),
            "Every class (fold_1, fold_2) has the same folders in it: ant, bee.",
        ),
        (
            ("fold1/1.png", "fold2/1.png", "fold3/1.png"),
            "fold1, fold2, fold3: are these the classes, or parts of the data",
        ),
        (("cv_0/1.png", "cv_1/1.png"), "cv_0, cv_1: are these the classes, or parts"),
        (
            ("train/ant/1.png", "train/bee/1.png", "extra/1.png"),
            "train: a class, as extra, or a split with the classes ant, bee?",
        ),
        (("train/ant/1.png", "train/bee/1.png", "test/images/1.png"), "images: only in test; train has ant, bee."),
        (("train/ants/1.png", "valid/ant/1.png"), "ant: only in validation; train has ants."),
        (("ant/1.png", "bee/1.png", "unlabelled/1.png"), 'unlabelled: is this "no label"?'),
        (("ant/1.png", "bee/1.png", "Masks/1.png"), "Masks: a class, or only the content of the folder?"),
        (("ant/1.png",), "ant is the only class"),
        (("train/images/1.png", "valid/images/1.png"), "images is the only class"),
        (("ant/1.png", "bee/1.png", "wasp/"), "No images in wasp: it becomes no class or split."),
        (("ant/1.png", "bee/1.png", "notes/a.xml"), "No images in notes"),
        (("train/ant/1.png", "train/bee/1.png", "val/ant/", "test/bee/2.png"), "No images in val:"),
        (("train/ant/1.png", "train/bee/1.png", "train/wasp/", "test/bee/2.png"), "No images in train/wasp:"),
        (
            ("Train/a/1.png", "train1/a/1.png", "test/a/1.png"),
            "Splits: Train/ is taken as train, train1/ is taken as train.",
        ),
    ],
)
def test_what_may_be_no_class_is_asked_about(tmp_path: Path, paths: tuple[str, ...], words: str) -> None:
    assert words in asked(tmp_path, *paths)


@pytest.mark.parametrize(
    "paths",
    [
        ("ant/raw/1.png", "bee/raw/1.png", "ant/empty/"),
        ("class_1/1.png", "class_2/1.png"),
        ("fold_1/1.png", "flat/1.png"),
        ("train/ant/1.png", "train/bee/1.png", "test/ant/1.png"),
        ("with_mask/1.png", "mask/1.png"),
        ("ant/1.png", "bee/1.png", ".hidden/", "__MACOSX/"),
    ],
)
def test_what_is_clear_is_not_asked_about(tmp_path: Path, paths: tuple[str, ...]) -> None:
    assert not asked(tmp_path, *paths)


def test_classes_of_one_split_that_differ_in_case_are_asked_about_once(tmp_path: Path) -> None:
    notices = asked(tmp_path, "train/Ant/1.png", "train/bee/1.png", "test/ant/1.png")
    assert "Ant, ant: the same class?" in notices
    assert "alone" not in notices
