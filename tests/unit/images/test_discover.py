from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from headstart.errors import DataError
from headstart.images.discovery.scan import discover
from pictures import picture


def labels(root: Path, **options: Path) -> dict[str, tuple[str | None, str | None]]:
    return {ref.path: (ref.label, ref.split) for ref in discover(root, **options).refs}


def test_class_folders(tmp_path: Path) -> None:
    picture(tmp_path / "bee" / "deep" / "er" / "1.png", 1)
    picture(tmp_path / "ant" / "2.jpg", 2)
    found = discover(tmp_path)
    assert (found.layout, found.class_names) == ("class-folders", ("ant", "bee"))
    assert labels(tmp_path) == {"ant/2.jpg": ("ant", None), "bee/deep/er/1.png": ("bee", None)}


def test_split_folders(tmp_path: Path) -> None:
    for number, path in enumerate(("train/ant/1.png", "Val/bee/2.png", "test/cat/3.png")):
        picture(tmp_path / path, number)
    found = discover(tmp_path)
    assert (found.layout, found.class_names) == ("split-folders", ("ant", "bee", "cat"))
    assert [ref.split for ref in found.refs] == ["validation", "test", "train"]  # V before t, by bytes


def test_an_unlabelled_split_stays_unlabelled(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "ant" / "1.png", 1)
    picture(tmp_path / "test" / "2.png", 2)
    assert labels(tmp_path) == {"test/2.png": (None, "test"), "train/ant/1.png": ("ant", "train")}


def test_flat_folder(tmp_path: Path) -> None:
    picture(tmp_path / "1.png", 1)
    found = discover(tmp_path)
    assert (found.layout, found.class_names, found.refs[0].label) == ("flat", (), None)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("1.png", "ant/2.png"), "outside the class folders"),
        (("train/1.png", "train/ant/2.png"), "is not known"),
        (("train/ant/1.png", "val/ant/2.png", "ant/3.png"), "named as splits"),
    ],
)
def test_layouts_that_are_not_clear_are_refused(tmp_path: Path, paths: tuple[str, ...], message: str) -> None:
    for number, path in enumerate(paths):
        picture(tmp_path / path, number)
    with pytest.raises(DataError, match=message):
        discover(tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for number, name in enumerate(("car", "plane", "train")):
        picture(tmp_path / name / "1.png", number)
    assert discover(tmp_path).class_names == ("car", "plane", "train")


def test_what_is_hidden_and_what_is_no_image(tmp_path: Path) -> None:
    picture(tmp_path / "ant" / "1.png", 1)
    picture(tmp_path / "ant" / ".2.png", 2)
    picture(tmp_path / ".ipynb_checkpoints" / "3.png", 3)
    picture(tmp_path / "__MACOSX" / "4.png", 4)
    (tmp_path / "README.txt").write_text("BMI of bees, and other texts")
    (tmp_path / "labels.csv").touch()
    found = discover(tmp_path)
    assert [ref.path for ref in found.refs] == ["ant/1.png"]
    assert found.ignored == ("README.txt", "labels.csv")
    assert found.hidden_count == 3


def test_content_tells_where_the_suffix_does_not(tmp_path: Path) -> None:
    for number, suffix in enumerate((".jpg", ".png", ".gif", ".bmp", ".webp", ".tiff", ".avif")):
        picture(tmp_path / "a" / f"x{suffix}", number).rename(tmp_path / "a" / f"image{number}.dat")
    (tmp_path / "a" / "broken.png").write_bytes(b"no")
    assert len(discover(tmp_path).refs) == 8


def test_link_loops_are_survived_and_links_followed(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "2.png", 2)
    picture(tmp_path / "data" / "ant" / "1.png", 1)
    (tmp_path / "data" / "ant" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "ant" / "nothing.png").symlink_to(tmp_path / "absent")
    (tmp_path / "data" / "bee").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "ant" / "nothing").symlink_to(tmp_path / "absent")
    (tmp_path / "data" / "ant" / "itself").symlink_to("itself")
    found = discover(tmp_path / "data")
    # The link to nothing is called an image: it becomes a failure with a reason.
    assert [ref.path for ref in found.refs] == ["ant/1.png", "ant/nothing.png", "bee/2.png"]
    assert found.ignored == (
        "ant/itself (a broken link)",
        "ant/loop (a link back to a folder above it)",
        "ant/nothing (a broken link)",
    )


def test_folders_that_all_link_to_each_other_are_walked_in_time(tmp_path: Path) -> None:
    names = [f"c{number:02d}" for number in range(14)]  # 14! paths without end
    for number, name in enumerate(names):
        picture(tmp_path / name / "1.png", number)
        for other in names:
            if other != name:
                (tmp_path / name / f"to-{other}").symlink_to(tmp_path / other)
    assert {f"{name}/1.png" for name in names} <= {ref.path for ref in discover(tmp_path).refs}


def test_two_links_to_one_folder_are_two_folders(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "1.png", 1)
    (tmp_path / "data").mkdir()
    for name in ("a", "b"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "elsewhere")
    assert [ref.path for ref in discover(tmp_path / "data").refs] == ["a/1.png", "b/1.png"]


def test_a_link_out_of_the_root_and_back_into_it(tmp_path: Path) -> None:
    picture(tmp_path / "data" / "ant" / "1.png", 1)
    (tmp_path / "data" / "up").symlink_to(tmp_path)
    found = discover(tmp_path / "data")
    assert [ref.path for ref in found.refs] == ["ant/1.png"]
    assert found.ignored == ("up/data (a link back to a folder above it)",)


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "ant" / "1.png", 1)
    picture(tmp_path / "bee" / "2.png", 2)
    scan = os.scandir

    def refuse_bees(path: str) -> object:
        if path.endswith("bee/"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr("headstart.images.discovery.scan.os.scandir", refuse_bees)
    with pytest.raises(DataError, match=r"1 folder that may not be read: bee/ \(Permission denied\)"):
        discover(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes, and pipes")
def test_any_name_and_no_pipes(tmp_path: Path) -> None:
    names = [b"new\nline.png", b"\xff\xfe.png", "אב\u0301.png".encode(), b'"quoted" \'.png', b"n" * 251 + b".png"]
    picture(tmp_path / "source.png", 1)
    data = (tmp_path / "source.png").read_bytes()
    folder = os.fsencode(tmp_path / "data" / "ant")
    Path(os.fsdecode(folder)).mkdir(parents=True)
    for name in names:
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(data)
    os.mkfifo(folder + b"/pipe.png")
    found = discover(tmp_path / "data")
    assert [os.fsencode(ref.path) for ref in found.refs] == sorted(b"ant/" + name for name in names)
    assert found.ignored == ("ant/pipe.png",)


def test_nothing_found_says_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"contains no images. Found instead: 1 × \.txt"):
        discover(tmp_path)
    with pytest.raises(DataError, match="There is no folder at"):
        discover(tmp_path / "absent")


def manifest(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    for number, name in enumerate(("1.png", "sub/2.png")):
        picture(tmp_path / name, number)
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_manifest(tmp_path: Path, separator: str, encoding: str) -> None:
    rows = [("path", "label", "split", "group"), ("sub/2.png", "bee", "val", "p1"), ("./1.png", "", "", "")]
    path = manifest(tmp_path, "\n".join(separator.join(row) for row in rows) + "\n", encoding)
    for found in (discover(path), discover(tmp_path, manifest=path)):
        assert found.layout == "manifest"
        assert [(r.path, r.label, r.split, r.group) for r in found.refs] == [
            ("1.png", None, None, None),
            ("sub/2.png", "bee", "validation", "p1"),
        ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("photo,label\n1.png,a\n", "Received: photo, label"),
        ("path\n1.png\n", "columns path and label"),
        ("path,label\n1.png,a\n./1.png,b\n", "line 3: 1.png is named twice"),
        ("path,label\n../x.png,a\n", "leads out of"),
        ("path,label\n/etc/passwd,a\n", "leads out of"),
        ("path,label\nabsent.png,a\n", "1 file not found in"),
        ("path,label,split\n1.png,a,later\n", "unknown split 'later'"),
        ("path,label\n1.png,a,b\n", "line 2: 3 cells, but 2 columns"),
        ("path,label\nsub,a\n", r"1 file not found in .*: sub"),
        ("path,label\n", "names no images"),
        ("", "Received: nothing"),
    ],
)
def test_wrong_manifests(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        discover(manifest(tmp_path, text))


def test_a_manifest_in_another_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 2: the label is not UTF-8"):
        discover(manifest(tmp_path, "path,label\n1.png,Käfer\n", "latin-1"))


def test_absolute_paths_below_the_root_are_taken(tmp_path: Path) -> None:
    path = manifest(tmp_path, f"path,label\n{tmp_path}/sub/2.png,a\n")
    assert [ref.path for ref in discover(path).refs] == ["sub/2.png"]


def test_images_of_a_class_share_its_name(tmp_path: Path) -> None:
    """Of a million images the labels would take 60 MB, each a string of its own."""
    for path in ("train/ant/1.png", "train/ant/2.png", "train/bee/3.png"):
        picture(tmp_path / "data" / path, 1)
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,label\n1.png,tiny ant\n2.png,tiny ant\n")
    for found in (
        discover(tmp_path / "data"),
        discover(tmp_path / "data" / "train"),
        discover(tmp_path / "data" / "train" / "ant", manifest=manifest),
    ):
        assert len({id(ref.label) for ref in found.refs}) == len(found.class_names)


def test_many_classes(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"{number:04d}").mkdir()
        (tmp_path / f"{number:04d}" / "1.jpg").touch()
    found = discover(tmp_path)
    assert found.class_names == tuple(f"{number:04d}" for number in range(1000))


def test_the_reference_sets(shared: Path) -> None:
    found = discover(shared / "data" / "hymenoptera")
    assert (found.layout, found.class_names) == ("split-folders", ("ants", "bees"))
    assert [sum(ref.split == split for ref in found.refs) for split in ("train", "validation")] == [245, 153]
