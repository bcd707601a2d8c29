"""Tables of images as people have them are read, or it is said what to change."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from headstart.errors import DataError
from headstart.images.discovery.manifest import read_paths
from headstart.images.discovery.scan import ImageSet, discover

NFC, NFD = (unicodedata.normalize(form, "Zürich.png") for form in ("NFC", "NFD"))


def table(folder: Path, content: str | bytes, name: str = "labels.csv") -> Path:
    for image in ("img/a.png", "img/b.png", "1.png"):
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        (folder / image).touch()
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def labels(found: ImageSet) -> dict[str, str | None]:
    return {ref.path: ref.label for ref in found.refs}


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("path,label\nimg\\a.png,cat\nimg\\b.png,dog\n", "labels.csv"),
        ("label, path\ncat, img/a.png\ndog, img/b.png\n", "labels.csv"),
        ('label, path\ncat, "img/a.png"\n"dog", "img/b.png"\n', "labels.csv"),
        ("path,label\nimg/a.png ,cat\n img/b.png,dog \n", "labels.csv"),
        ("path,label\r\nimg/a.png,cat\r\n,\r\n\r\nimg/b.png,dog\r\n;;\r\n".replace(";;", ","), "labels.csv"),
        ("\n\npath,label\nimg/a.png,cat\nimg/b.png,dog\n", "labels.csv"),
        ("path,label,,\nimg/a.png,cat,,\nimg/b.png,dog,,\n", "labels.csv"),
        ("path,label\nimg/a.png,cat,\nimg/b.png,dog,\n", "labels.csv"),
        ("sep=;\r\npath;label\r\nimg/a.png;cat\r\nimg/b.png;dog\r\n", "labels.csv"),
        ('"sep=|"\npath|label\nimg/a.png|cat\nimg/b.png|dog\n', "labels.csv"),
        ("path\tlabel\nimg/a.png\tcat\nimg/b.png\tdog\n", "labels.tsv"),
        ("path|label\nimg/a.png|cat\nimg/b.png|dog\n", "labels.txt"),
        ('"path","label"\n"img/a.png","cat"\n"img/b.png","dog"\n', "LABELS.CSV"),
        ("path,label\nimg/a.png,cat\nimg/b.png,dog\n".encode("utf-16"), "labels.csv"),
        ("\ufeffpath,label\nimg/a.png,cat\nimg/b.png,dog\n".encode("utf-16-be"), "labels.csv"),
        ("\ufeffpath,label\nimg/a.png,cat\nimg/b.png,dog\n".encode("utf-8"), "labels.csv"),
        ("file_name,label\nimg/a.png,cat\nimg/b.png,dog\n", "metadata.csv"),
        ("Image Path,Class\nimg/a.png,cat\nimg/b.png,dog\n", "labels.csv"),
        (",filename,category,width\n0,img/a.png,cat,30\n1,img/b.png,dog,30\n", "labels.csv"),
        ("class,target,path,label\n0,0,img/a.png,cat\n1,1,img/b.png,dog\n", "labels.csv"),
        ("path,label\n./img/../img/a.png,cat\nimg//b.png,dog\n", "labels.csv"),
    ],
)
def test_tables_that_are_read(tmp_path: Path, content: str | bytes, name: str) -> None:
    assert labels(discover(table(tmp_path, content, name))) == {"img/a.png": "cat", "img/b.png": "dog"}


@pytest.mark.parametrize(("on_disk", "written"), [(NFC, NFD), (NFD, NFC)])
def test_accents_in_either_form(tmp_path: Path, on_disk: str, written: str) -> None:
    path = table(tmp_path, f"path,label\nimg\\{written},{NFD}\n")
    (tmp_path / "img" / on_disk).touch()
    assert labels(discover(path)) == {f"img/{on_disk}": NFC}


def test_a_file_may_have_spaces_or_a_backslash_in_its_name(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label\n 1.png,cat\na\\b.png,dog\n")
    for name in (" 1.png", "a\\b.png"):
        (tmp_path / name).touch()
    assert labels(discover(path)) == {" 1.png": "cat", "a\\b.png": "dog"}


def test_what_columns_were_taken_for_is_said(tmp_path: Path) -> None:
    found = discover(table(tmp_path, "id,file_name,label,width\n7,1.png,cat,30\n"))
    assert found.notices[0] == f"Columns of {tmp_path / 'labels.csv'}: read file_name as path; not used: id, width."


def test_rows_that_name_an_image_again_with_the_same_label_are_taken_once(tmp_path: Path) -> None:
    found = discover(table(tmp_path, "path,label\nimg/a.png,cat\nimg/b.png,dog\nimg/a.png,cat\n./img/a.png, cat\n"))
    assert [(ref.path, ref.label) for ref in found.refs] == [("img/a.png", "cat"), ("img/b.png", "dog")]
    assert "names images again in 2 rows, with the same label: each is taken once" in found.notices[0]


def test_cells_that_were_written_for_spreadsheets_are_the_text_that_they_stand_for(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir(exist_ok=True)
    (tmp_path / "-1.png").touch()
    found = discover(table(tmp_path, "path,label\n'-1.png,'+1\nimg/a.png,-1\n"))
    assert [(ref.path, ref.label) for ref in found.refs] == [("-1.png", "+1"), ("img/a.png", "-1")]


@pytest.mark.parametrize("name", ["ImageId", "image-id", "File Path", "'filepaths'"])
def test_names_of_columns_are_known_in_any_writing(tmp_path: Path, name: str) -> None:
    assert [ref.path for ref in discover(table(tmp_path, f"{name},Class Name\nimg/a.png,cat\n")).refs] == ["img/a.png"]


def test_labels_are_asked_about(tmp_path: Path) -> None:
    found = discover(table(tmp_path, "path,label\nimg/a.png,nan\nimg/b.png,Cat\n1.png,cat\n"))
    assert ["Cat, cat: the same class?" in text or 'nan: is this "no label"?' in text for text in found.notices] == [
        True
    ] * 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("img/a.png,cat\nimg/b.png,dog\n", "seems to be a row already: put the names above it"),
        (
            "file,image,label\nimg/a.png,x,cat\n",
            "several columns that may be the path: file, image. Call one of them path",
        ),
        ("path,class,category\nimg/a.png,x,cat\n", "several columns that may be the label: class, category"),
        ("path,path,label\nimg/a.png,x,cat\n", "several columns that may be the path"),
        ("path,label\nimg/a.png,cat, tabby\n", "line 2: 3 cells, but 2 columns. .* needs quotes"),
        ("path,label\nimg/a.png\n", "line 2: 1 cell, but 2 columns. .*An empty cell needs its separator"),
        ("path,breed\nimg/a.png,cat\n", r'Received: path, breed\. Call the column of the classes "label"\.'),
        (
            "path,cat,dog\nimg/a.png,1,0\n",
            'Call the column of the classes "label"; where each class has a column of its own',
        ),
        ("photo,label\nimg/a.png,cat\n", 'Call the column of the paths "path"'),
        ("path label\nimg/a.png cat\n", "separated by commas, semicolons, tabs or bars"),
        ("path,label\n'img/a.png','cat'\n", "Remove the quotes '"),
        (
            "path,label\n/elsewhere/1.png,cat\n",
            "Give a folder that contains all images as the data, and `manifest=",
        ),
        (
            "path,label\nimg/a.png,cat\nimg/b.png,cat\nimg/a.png,dog\n./img/b.png,dog\n",
            r"line 4: img/a\.png is named twice, as cat and as dog\. 1 more row like it\. Keep one row for each image",
        ),
        ("path,label,split\nimg/a.png,cat,train\nimg/a.png,cat,test\n", "as cat, train and as cat, test"),
        ("path,label\n,cat\n", "line 2: the path is empty"),
        ("path,label\nIMG/A.PNG,cat\n", r"not found in .*: IMG/A\.PNG\. There is img/a\.png\."),
        ("path,label\nimg/a,cat\n", r"There is img/a\.png\."),
        ("path,label\nC:\\data\\img\\a.png,cat\n", "a drive of Windows"),
        ("path,label\nhttps://x.org/a.png,cat\n", r"https://x\.org/a\.png\. Addresses are not fetched"),
        ("label, path\ncat, img/c.png \n", r': "img/c\.png "\. Correct the paths'),
        ("path,label\nimg/Zürich.png,cat\n".encode("latin-1"), "The names are not UTF-8. Save the file as “CSV UTF-8”"),
        ("path,label\nimg/a.png,Käfer\n".encode("latin-1"), "line 2: the label is not UTF-8"),
        ("path,label\n".encode("utf-16-le"), "UTF-16 without a byte order mark. Save it as CSV UTF-8"),
        (b"\xff\xfep\0a\0t", "cannot be read as CSV"),
        (b"PK\x03\x04rest", "Excel workbook, or an archive: save the sheet as CSV UTF-8"),
        (b"\x1f\x8brest", "compressed: unpack it"),
        ('path,label\n"img/a.png,cat\n', 'cannot be read as CSV.*Is a quote " opened and not closed'),
    ],
)
def test_tables_that_cannot_be_read(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        discover(table(tmp_path, content))


def test_paths_from_the_current_folder_are_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path, "path,label\nimg/a.png,cat\n").rename(tmp_path / "img" / "labels.csv")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="there from the current folder: give that as the data, and `manifest="):
        discover(path)


@pytest.mark.parametrize(
    "content",
    [
        "path\nimg/a.png\n1.png\n",
        "img/a.png\n1.png\n",
        "\ufeffimg\\a.png\r\n\r\n1.png\r\n",
        "id;image;label\n0;img/a.png;cat\n1;1.png;dog\n",
        '"img/a.png"\n"1.png"\n',
    ],
)
def test_a_list_of_paths(tmp_path: Path, content: str) -> None:
    assert read_paths(table(tmp_path, content)) == [tmp_path / "img" / "a.png", tmp_path / "1.png"]


def test_a_list_may_have_absolute_paths_anywhere(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    assert read_paths(table(tmp_path, f"{tmp_path}/1.png\n", "lists/a.txt")) == [tmp_path / "1.png"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("img/c.png\n", r"names 1 file not found in .*: img/c\.png"),
        ("a,b\nimg/a.png,cat\n", "needs a first line with the column path. Received: a, b"),
        ("img/a.png,cat\n", "seems to be a row already"),
        ("", "names no images"),
        ("path\n", "names no images"),
    ],
)
def test_lists_that_cannot_be_read(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_paths(table(tmp_path, content))
