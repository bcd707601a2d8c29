"""Folders of splits are not taken as classes, and what is doubtful about folders of classes is said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headstart.errors import DataError
from headstart.images.discovery.classes_and_splits import layout_of, split_of
from headstart.images.discovery.scan import discover


def placed(*paths: str) -> dict[str, tuple[str | None, str | None]]:
    layout = layout_of(Path("data"), list(paths))
    return {path: layout.place(path) for path in paths}


def notices(*paths: str) -> str:
    return " ".join(layout_of(Path("data"), list(paths)).notices)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *[(name, "train") for name in ("train", "Training", "training_set", "seg_train", "TrainSet", "train2017")],
        *[(name, "validation") for name in ("val", "VALID", "dev", "validation images", "val_split")],
        *[(name, "test") for name in ("test1", "Test Set", "hold-out", "seg_pred", "single_prediction", "test ")],
        *[(name, None) for name in ("train_station", "trains", "testicle", "oval", "dataset", "", "set", "x" * 300)],
    ],
)  # fmt: skip
def test_names_that_mean_a_split(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("train", "test"),
    [("training_set", "test_set"), ("seg_train", "seg_test"), ("Training", "Testing"), ("train_images", "holdout")],
)
def test_split_folders_of_many_names(train: str, test: str) -> None:
    paths = (f"{train}/ant/1.png", f"{test}/bee/2.png")
    assert list(placed(*paths).values()) == [("ant", "train"), ("bee", "test")]


def test_it_is_said_what_names_were_taken_for() -> None:
    assert "seg_pred/ is taken as test, seg_train/ is taken as train" in notices("seg_train/a/1.png", "seg_pred/1.png")
    assert not notices("train/a/1.png", "Val/a/1.png")


def test_an_unlabelled_split_of_another_name() -> None:
    assert placed("train/ant/1.png", "test1/2.png")["test1/2.png"] == (None, "test")


def test_a_split_folder_in_a_folder_of_its_name() -> None:
    paths = ("seg_train/seg_train/sea/1.png", "seg_test/seg_test/ice/1.png", "seg_pred/seg_pred/1.png")
    assert list(placed(*paths).values()) == [("sea", "train"), ("ice", "test"), (None, "test")]
    assert placed("train/train/1.png", "train/bus/1.png")["train/train/1.png"] == ("train", "train")


@pytest.mark.parametrize(
    "tops",
    [("cats_train", "cats_test"), ("TrainCats", "TestCats"), ("my_train", "my_val"), ("test1", "test2"), ("train_a", "test")],
)  # fmt: skip
def test_classes_that_all_look_like_splits_are_refused(tops: tuple[str, str]) -> None:
    with pytest.raises(
        DataError, match=r'Every "class" in data looks like a split: .*train, val and test.*CSV.*other names'
    ):
        layout_of(Path("data"), [f"{top}/1.png" for top in tops])


def test_splits_of_one_kind_with_classes_in_them() -> None:
    assert list(placed("train1/ant/1.png", "train2/bee/1.png").values()) == [("ant", "train"), ("bee", "train")]


def test_two_kinds_of_splits_beside_classes_are_refused() -> None:
    with pytest.raises(DataError, match="named as splits"):
        layout_of(Path("data"), ["training_set/a/1.png", "test_set/a/1.png", "bees/1.png"])


@pytest.mark.parametrize(
    "tops",
    [("car", "plane", "train"), ("train_station", "harbour"), ("test_tube", "oval", "latest"), ("valid", "invalid")],
)
def test_classes_that_sound_like_splits_stay_classes(tops: tuple[str, ...]) -> None:
    paths = [f"{top}/1.png" for top in tops]
    assert [label for label, _ in placed(*paths).values()] == list(tops)
    assert not notices(*paths)


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (("x/a/1.png", "x/b/1.png", "y/a/1.png", "y/b/1.png"), r"Every class \(x, y\) has the same folders in it: a, b"),
        (("x/train/1.png", "x/test/1.png", "y/train/1.png", "y/test/1.png"), "the folders test, train; .*column split"),
        (("x/train/1.png", "x/test/1.png"), "x contains the folders test, train. If those are the splits, give data/x"),
    ],
)  # fmt: skip
def test_what_is_doubtful_is_said(paths: tuple[str, ...], words: str) -> None:
    assert re.search(words, notices(*paths))


def test_classes_with_different_folders_are_not_asked_about() -> None:
    assert not notices("ant/2019/1.png", "ant/2020/1.png", "bee/2020/1.png", "bee/x/1.png")
    assert not notices("ant/x/1.png", "bee/x/1.png")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("photos.zip", "is a file, not a folder: unpack it"),
        ("photos.tar.gz", "is a file, not a folder: unpack it"),
        ("labels.xlsx", "is a file, not a folder: save the sheet as CSV UTF-8"),
        ("cache.h5", "is a file, not a folder: if it is a feature cache, fit-head"),
        ("1.png", "is a file, not a folder: give the folder that it is in"),
        ("labels.json", "is a file, not a folder: give the folder of the images"),
    ],
)
def test_a_file_is_no_folder(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(DataError, match=words):
        discover(tmp_path / name)


def test_a_table_beside_unlabelled_images_is_named(tmp_path: Path) -> None:
    for name in ("1.png", "metadata.csv"):
        (tmp_path / name).touch()
    (notice,) = discover(tmp_path).notices
    assert f"metadata.csv was not read: if it has the labels, give {tmp_path / 'metadata.csv'}" in notice


def test_unlabelled_images_are_pointed_to_clusters(tmp_path: Path) -> None:
    (tmp_path / "1.png").touch()
    (notice,) = discover(tmp_path).notices
    assert "unlabelled" in notice
    assert "headstart cluster" in notice
