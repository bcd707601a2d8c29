"""From clusters through labels to class folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.errors import DataError
from headstart.labelling.clustering import Clustering, make_class_folders, read_labels, write_clusters
from pictures import picture

PATHS = ("a.png", "sub/b.png", "=c.png", "d,e.png")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number, path in enumerate(PATHS):
        picture(tmp_path / "loose" / path, number)
    return tmp_path / "loose"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    labels = np.array([0, 0, 0, 1])
    found = Clustering(PATHS, ["0" * 64] * 4, labels, np.array([0.3, 0.1, 0.2, 0.0], np.float32))
    write_clusters(tmp_path / "clusters", found, title="loose")
    return tmp_path / "clusters"


def test_a_path_that_a_spreadsheet_would_compute_is_text_and_comes_back(folder: Path) -> None:
    assert "'=c.png,0," in (folder / "images.csv").read_text()
    fill(folder / "names.csv", "0,3,", "0,3,rose")
    assert "=c.png" in read_labels(folder)


def fill(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_the_label_of_a_cluster_is_that_of_its_images(folder: Path) -> None:
    fill(folder / "names.csv", "0,3,", "0,3, rose ")
    assert read_labels(folder) == {"sub/b.png": "rose", "=c.png": "rose", "a.png": "rose"}


def test_the_label_of_an_image_counts_for_more(folder: Path) -> None:
    fill(folder / "names.csv", "0,3,", "0,3,rose")
    fill(folder / "images.csv", "a.png,0,0.3000,", "a.png,0,0.3000,tulip")
    assert read_labels(folder)["a.png"] == "tulip"


def test_a_spreadsheet_may_save_semicolons_and_a_byte_order_mark(folder: Path) -> None:
    names = folder / "names.csv"
    names.write_text("\ufeffCluster;n_images;label\r\n0;3;rose\r\n1;1;\r\n")
    assert set(read_labels(folder).values()) == {"rose"}


def test_unicode_forms_of_a_label_are_one_class(folder: Path) -> None:
    (folder / "names.csv").write_text("cluster,n_images,label\n0,3,cafe\u0301\n1,1,caf\u00e9\n")
    assert set(read_labels(folder).values()) == {"caf\u00e9"}


def test_a_folder_of_other_images_gives_no_page(folder: Path, tmp_path: Path) -> None:
    picture(tmp_path / "other" / "x.png", 1)
    found = Clustering(PATHS, ["0" * 64] * 4, np.zeros(4, np.int64), np.zeros(4, np.float32))
    with pytest.raises(DataError, match=r"other contains none of the images unchanged"):
        write_clusters(tmp_path / "new", found, title="loose", data=tmp_path / "other")


def test_labels_are_never_overwritten(folder: Path) -> None:
    found = Clustering(PATHS, ["0" * 64] * 4, np.zeros(4, np.int64), np.zeros(4, np.float32))
    with pytest.raises(DataError, match="may contain your labels"):
        write_clusters(folder, found, title="loose")


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("names.csv", "label", "class", "should have the columns"),
        ("names.csv", "1,1,", "7,1,", "no cluster '1'"),
        ("names.csv", "0,3,", "0,3,", "Nothing is labelled"),
        ("names.csv", "0,3,", '0,3,"rose', "cannot be read"),
        ("names.csv", "0,3,", "0,3,big, red", "line 2: more cells than columns"),
        ("names.csv", "0,3,", "0,3,rose\n0,3,tulip", "names 0 twice, as 'rose' and as 'tulip'. Keep one row"),
        ("images.csv", "a.png,0,0.3000,", "a.png,0,0.3000,rose\na.png,0,0.3000,tulip", "names a.png twice"),
    ],
)
def test_what_is_wrong_with_the_labels_is_said(folder: Path, name: str, old: str, new: str, words: str) -> None:
    fill(folder / name, old, new)
    with pytest.raises(DataError, match=words):
        read_labels(folder)


def test_images_are_copied_below_their_class(data: Path, tmp_path: Path) -> None:
    labels = dict(zip(PATHS, ("rose", "rose", "tulip", "tulip"), strict=True))
    assert make_class_folders(labels, data, tmp_path / "photos") == {"rose": 2, "tulip": 2}
    for path, label in labels.items():
        assert (tmp_path / "photos" / label / path).read_bytes() == (data / path).read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"loose", "photos"}  # nothing is left over


@pytest.mark.parametrize("label", ["a/b", "..", ".hidden", "a:b", "a\\b", "a\nb", "end."])
def test_a_class_that_is_no_folder_name_is_refused(data: Path, tmp_path: Path, label: str) -> None:
    with pytest.raises(DataError, match="cannot be the name of a folder"):
        make_class_folders({"a.png": label}, data, tmp_path / "photos")


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "gone.png", "a\0.png"])
def test_a_path_that_leads_out_or_nowhere_is_refused(data: Path, tmp_path: Path, path: str) -> None:
    picture(tmp_path / "secret.png", 9)
    with pytest.raises(DataError, match="1 of 2 images are not in"):
        make_class_folders({"a.png": "rose", path: "rose"}, data, tmp_path / "photos")
    assert not (tmp_path / "photos").exists()


def test_a_target_that_holds_something_or_lies_among_the_images_is_refused(data: Path, tmp_path: Path) -> None:
    picture(tmp_path / "photos" / "mine.png", 1)
    with pytest.raises(DataError, match="is not empty"):
        make_class_folders({"a.png": "rose"}, data, tmp_path / "photos")
    with pytest.raises(DataError, match="lies in"):
        make_class_folders({"a.png": "rose"}, data, data / "sorted")


def test_a_copy_that_fails_leaves_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copy2", full)
    with pytest.raises(DataError, match="No space left"):
        make_class_folders({"a.png": "rose"}, data, tmp_path / "photos")
    assert {path.name for path in tmp_path.iterdir()} == {"loose"}
