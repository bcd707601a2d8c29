"""Images in a bucket, against a real S3 server."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from buckets import put_folder
from headstart.errors import DataError, ImageError
from headstart.images.discovery.scan import ImageSet, discover
from headstart.images.load import read_image_bytes
from headstart.storage import bucket
from headstart.storage.bucket import location
from pictures import class_folders, picture

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]


def seen(found: ImageSet) -> tuple[Any, ...]:
    rows = [(ref.path, ref.label, ref.split, ref.group, ref.size_bytes) for ref in found.refs]
    return rows, found.class_names, found.layout, found.ignored, found.hidden_count


def folders(root: Path) -> Path:
    """A folder of classes, with everything that is passed over or told by its first bytes."""
    class_folders(root, n_per_class=3)
    picture(root / "ant" / "umlaut ä+&%.png", 90)
    picture(root / "ant" / "told.png", 91).rename(root / "ant" / "told by its content")
    picture(root / "ant" / ".hidden.png", 92)
    picture(root / ".thumbs" / "1.png", 93)
    picture(root / ".thumbs" / "2.png", 93)
    picture(root / "bee" / "@eaDir" / "1.png", 94)
    (root / "notes.txt").write_text("no image")
    (root / "bee" / "empty").write_bytes(b"")
    (root / "bee" / "empty.png").write_bytes(b"")
    return root


def test_a_bucket_is_scanned_as_the_folder(tmp_path: Path, s3: Any) -> None:
    put_folder(s3, folders(tmp_path / "data"), "photos", "set/")
    s3.put_object(Bucket="photos", Key="set/ant/", Body=b"")
    s3.put_object(Bucket="photos", Key="setting/cat/1.png", Body=b"beside it")
    assert seen(discover(location("s3://photos/set"))) == seen(discover(tmp_path / "data"))


def test_split_folders_and_a_whole_bucket(tmp_path: Path, s3: Any) -> None:
    for number, path in enumerate(("train/ant/1.png", "Val/bee/2.png", "test/cat/3.png")):
        picture(tmp_path / path, number)
    put_folder(s3, tmp_path, "photos")
    assert seen(discover(location("s3://photos"))) == seen(discover(tmp_path))


def test_names_that_no_folder_could_hold_are_ignored(s3: Any) -> None:
    for key in ("set/ant/1.png", "set//2.png", "set/ant//3.png"):
        s3.put_object(Bucket="photos", Key=key, Body=b"x")
    found = discover(location("s3://photos/set"))
    assert [ref.path for ref in found.refs] == ["ant/1.png"]
    assert len(found.ignored) == 2


def test_a_manifest_on_the_disk_or_in_the_bucket(tmp_path: Path, s3: Any) -> None:
    data = class_folders(tmp_path / "data", n_per_class=2)
    table = data / "table.csv"
    table.write_text("path,label,split,group\nant/000.png,Ä,train,1\nbee/001.png,b,test,2\n", encoding="utf-8")
    put_folder(s3, data, "photos", "set/")
    expected = seen(discover(table))
    assert seen(discover(location("s3://photos/set"), manifest=table)) == expected
    assert seen(discover(location("s3://photos/set/table.csv"))) == expected


def test_a_manifest_takes_whole_addresses_below_the_root_and_no_others(tmp_path: Path, s3: Any) -> None:
    s3.put_object(Bucket="photos", Key="set/ant/1.png", Body=b"x")
    table = tmp_path / "table.csv"
    table.write_text("path,label\ns3://photos/set/ant/1.png,a\n")
    assert discover(location("s3://photos/set"), manifest=table).refs[0].path == "ant/1.png"
    table.write_text("path,label\ns3://photos/other/1.png,a\n")
    with pytest.raises(DataError, match="leads out of"):
        discover(location("s3://photos/set"), manifest=table)
    table.write_text("path,label\nant/2.png,a\n")
    with pytest.raises(DataError, match="not found in s3://photos/set"):
        discover(location("s3://photos/set"), manifest=table)


def test_a_listing_goes_on_page_by_page(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "PAGE", 3)
    for number in range(10):
        s3.put_object(Bucket="photos", Key=f"set/{number}.png", Body=b"x" * number)
    found = discover(location("s3://photos/set"))
    assert [ref.size_bytes for ref in found.refs] == list(range(10))


def test_another_content_has_another_time(s3: Any) -> None:
    s3.put_object(Bucket="photos", Key="1.png", Body=b"one")
    before = bucket.stat(location("s3://photos/1.png"))
    assert before == bucket.stat(location("s3://photos/1.png"))
    assert [entry.changed_ns for entry in bucket.entries(location("s3://photos"))] == [before.changed_ns]
    s3.put_object(Bucket="photos", Key="1.png", Body=b"two")
    assert bucket.stat(location("s3://photos/1.png")).changed_ns != before.changed_ns
    assert bucket.stat(location("s3://photos/2.png")) is None


def test_what_happens_between_listing_and_reading_is_a_reason(s3: Any) -> None:
    s3.put_object(Bucket="photos", Key="1.png", Body=b"one")
    root = location("s3://photos")
    ref = discover(root).refs[0]
    assert read_image_bytes(root, ref) == b"one"
    s3.put_object(Bucket="photos", Key="1.png", Body=b"other")
    with pytest.raises(ImageError, match="changed since"):
        read_image_bytes(root, ref)
    s3.delete_object(Bucket="photos", Key="1.png")
    with pytest.raises(ImageError, match="gone"):
        read_image_bytes(root, ref)


def test_an_empty_bucket_holds_no_images(s3: Any) -> None:
    with pytest.raises(DataError, match="Found instead: nothing"):
        discover(location("s3://photos"))


def test_of_a_listing_one_page_is_kept_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Metadata(dict[str, Any]):
        alive = 0

        def __init__(self, **values: Any) -> None:
            super().__init__(values)
            Metadata.alive += 1

        def __del__(self) -> None:
            Metadata.alive -= 1

    most = 0

    def s3_page(_bucket: str, prefix: str, token: str) -> tuple[list[Metadata], str | None]:
        nonlocal most
        number, changed = int(token or 0), datetime(2026, 1, 1, tzinfo=UTC)
        keys = [f"{prefix}ant/{number:02d}-{n}.png" for n in range(20)]
        page = [Metadata(Key=key, Size=1, LastModified=changed, ETag=key) for key in keys]
        most = max(most, Metadata.alive)
        return page, str(number + 1) if number < 49 else None

    monkeypatch.setattr(bucket, "_s3_page", s3_page)
    assert len(discover(location("s3://photos/set")).refs) == 1000
    assert most <= 40
