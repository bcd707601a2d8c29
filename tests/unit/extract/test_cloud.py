"""Images in a bucket → a cache, against a real S3 server: as the same folder on a disk."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from buckets import KEY, SECRET, put_folder
from fakes import FakeNetwork
from headstart.cache.reader import open_cache
from headstart.errors import DataError, ImageError, StorageError
from headstart.extract.plan import make_plan
from headstart.extract.run import extract_features
from headstart.extract.summary import ExtractionSummary
from headstart.images.discovery.scan import discover
from headstart.storage import bucket
from headstart.storage.bucket import DeniedError, NotReachedError, location
from pictures import class_folders, picture

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]

ADDRESS = "s3://photos/set"


@pytest.fixture
def data(tmp_path: Path, s3: Any) -> Path:
    """A folder whose content is in the bucket as well."""
    folder = class_folders(tmp_path / "data", n_per_class=10)
    (folder / "bee" / "broken.png").write_bytes(b"no picture")
    put_folder(s3, folder, "photos", "set/")
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each object was read."""
    counts: Counter[str] = Counter()
    read = bucket.read

    def counted(address: Any) -> bytes:
        counts[address.key] += 1
        return read(address)

    monkeypatch.setattr(bucket, "read", counted)
    return counts


def run(data: Path | str, output: Path, **options: Any) -> ExtractionSummary:
    return extract_features(data, output, network=FakeNetwork(), **{"shard_images": 8, **options})


def contents(path: Path) -> tuple[Any, ...]:
    with open_cache(path) as cache:
        batch = next(cache.batches(batch_rows=10_000))
        rows = [
            (name, sha, label, size, f.tobytes(), p.tobytes())
            for name, sha, label, size, f, p in zip(
                cache.rows.path, cache.rows.sha256, cache.rows.label, cache.rows.size_bytes, batch.features, batch.pooled,
                strict=True,
            )
        ]  # fmt: skip
        return rows, cache.class_names, cache.layout, [(f.ref.path, f.reason) for f in cache.failures]


def test_rows_are_those_of_the_folder(tmp_path: Path, data: Path) -> None:
    run(data, tmp_path / "disk.h5")
    summary = run(ADDRESS, tmp_path / "cloud.h5")
    assert summary.n_computed == 20
    assert contents(tmp_path / "cloud.h5") == contents(tmp_path / "disk.h5")


def test_the_default_name_is_that_of_the_address(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert extract_features(ADDRESS, network=FakeNetwork()).output == Path("features/set.h5")


def test_an_unchanged_bucket_is_not_read_again(tmp_path: Path, data: Path, reads: Counter[str], s3: Any) -> None:
    s3.delete_object(Bucket="photos", Key="set/bee/broken.png")
    run(ADDRESS, tmp_path / "c.h5")
    reads.clear()
    summary = run(ADDRESS, tmp_path / "c.h5")
    assert summary.reused == {"unchanged": 20}
    assert not reads


def test_what_changed_moved_or_came_is_read_and_nothing_else(
    tmp_path: Path, data: Path, reads: Counter[str], s3: Any
) -> None:
    s3.delete_object(Bucket="photos", Key="set/bee/broken.png")
    run(ADDRESS, tmp_path / "c.h5")
    reads.clear()
    content = (data / "ant" / "000.png").read_bytes()
    s3.put_object(Bucket="photos", Key="set/ant/000.png", Body=picture(tmp_path / "1.png", 77).read_bytes())
    s3.put_object(Bucket="photos", Key="set/cat/moved.png", Body=content)
    s3.put_object(Bucket="photos", Key="set/cat/new.png", Body=picture(tmp_path / "2.png", 78, (50, 20)).read_bytes())
    s3.delete_object(Bucket="photos", Key="set/bee/000.png")
    summary = run(ADDRESS, tmp_path / "c.h5")
    assert summary.reused == {"unchanged": 18, "moved": 1}
    assert summary.computed == {"changed": 1, "new": 1}
    assert set(reads) <= {"set/ant/000.png", "set/cat/moved.png", "set/cat/new.png"}


def test_a_plan_reads_only_what_its_etag_says_is_another_image(
    tmp_path: Path, data: Path, reads: Counter[str], s3: Any
) -> None:
    """All of these have one size; on a disk each would be read."""
    size = 5000
    for path in sorted(data.rglob("0*.png")):
        s3.put_object(Bucket="photos", Key=f"set/{path.relative_to(data)}", Body=path.read_bytes().ljust(size, b"\0"))
    again = (data / "ant" / "004.png").read_bytes().ljust(size, b"\0")
    s3.put_object(Bucket="photos", Key="set/bee/again.png", Body=again)
    root = location(ADDRESS)
    plan = make_plan(root, discover(root).refs, [])
    assert plan.copies == {"bee/again.png": "ant/004.png"}
    assert reads == {"set/ant/004.png": 1, "set/bee/again.png": 1}


def test_an_image_that_is_gone_is_listed(tmp_path: Path, data: Path, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read = bucket.read

    def late(address: Any) -> bytes:
        if address.name == "003.png":
            s3.delete_object(Bucket="photos", Key=address.key)
        return read(address)

    monkeypatch.setattr(bucket, "read", late)
    summary = run(ADDRESS, tmp_path / "c.h5")
    reasons = {failure.ref.path: failure.reason for failure in summary.failures}
    assert set(reasons) == {"ant/003.png", "bee/003.png", "bee/broken.png"}
    assert "gone" in reasons["ant/003.png"]
    with open_cache(tmp_path / "c.h5") as cache:
        assert "ant/003.png" not in set(cache.rows.path)
        assert cache.n_images == 18


def test_one_object_that_may_not_be_read_is_listed(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = bucket.read

    def denied(address: Any) -> bytes:
        if address.name == "003.png":
            raise DeniedError("denied")
        return read(address)

    monkeypatch.setattr(bucket, "read", denied)
    assert {f.reason for f in run(ADDRESS, tmp_path / "c.h5").failures if "003" in f.ref.path} == {"permission denied"}
    with pytest.raises(ImageError, match=r"ant/003.png: permission denied"):
        run(ADDRESS, tmp_path / "d.h5", stop_on_failure=True)


def test_a_storage_that_falls_silent_ends_the_run_which_goes_on_later(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data, tmp_path / "disk.h5")
    read = bucket.read

    def silent(address: Any) -> bytes:
        if address.key.startswith("set/bee"):
            raise NotReachedError("does not answer")
        return read(address)

    with monkeypatch.context() as patch:
        patch.setattr(bucket, "read", silent)
        with pytest.raises(StorageError, match="does not answer"):
            run(ADDRESS, tmp_path / "c.h5", batch_size=4)
    assert not (tmp_path / "c.h5").exists()
    assert run(ADDRESS, tmp_path / "c.h5").reused["unchanged"] == 8
    assert contents(tmp_path / "c.h5") == contents(tmp_path / "disk.h5")


def test_a_bucket_that_vanishes_in_the_middle_is_no_list_of_failures(
    tmp_path: Path, data: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, keys = bucket.read, [found["Key"] for found in s3.list_objects_v2(Bucket="photos")["Contents"]]

    lock = threading.Lock()

    def vanishing(address: Any) -> bytes:
        with lock:
            while keys:
                s3.delete_object(Bucket="photos", Key=keys.pop())
                if not keys:
                    s3.delete_bucket(Bucket="photos")
        return read(address)

    monkeypatch.setattr(bucket, "read", vanishing)
    with pytest.raises(DataError, match="has vanished"):
        run(ADDRESS, tmp_path / "c.h5")


def test_keys_are_nowhere(tmp_path: Path, data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(ADDRESS, tmp_path / "out" / "c.h5")
    said = "".join(capfd.readouterr()).encode()
    written = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written
    for secret in (KEY, SECRET):
        assert not any(secret.encode() in content for content in [*written, said])
