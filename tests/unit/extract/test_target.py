"""A cache in a bucket: written whole by one run at a time, from shards that lie beside it, against a real S3 server."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from buckets import KEY, SECRET, put_folder
from fakes import FakeBackbone, FakeNetwork
from headstart.cache.reader import on_this_machine, open_cache
from headstart.errors import CacheError, StorageError
from headstart.extract import lock as claim
from headstart.extract.run import extract_features
from headstart.extract.summary import ExtractionSummary
from headstart.storage import bucket, objects
from headstart.storage.bucket import ExistsError, location
from pictures import class_folders, picture

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]

OUTPUT = "s3://photos/features/set.h5"
KEY_OF_OUTPUT = "features/set.h5"
LOCK = "features/.set.h5.lock"


@pytest.fixture
def data(tmp_path: Path, s3: Any) -> Path:
    return class_folders(tmp_path / "data", n_per_class=10)


def run(data: Path | str, output: Path | str = OUTPUT, network: Any = None, **options: Any) -> ExtractionSummary:
    return extract_features(data, output, network=network or FakeNetwork(), **{"shard_images": 8, **options})


def contents(path: Path) -> list[tuple[Any, ...]]:
    with open_cache(path) as cache:
        batch = next(cache.batches(batch_rows=10_000))
        return [
            (name, sha, label, f.tobytes(), p.tobytes())
            for name, sha, label, f, p in zip(
                cache.rows.path, cache.rows.sha256, cache.rows.label, batch.features, batch.pooled, strict=True
            )
        ]


def keys(s3: Any, prefix: str = "") -> list[str]:
    return [found["Key"] for found in s3.list_objects_v2(Bucket="photos", Prefix=prefix).get("Contents", ())]


class Crashing(FakeBackbone):
    """A network that fails at the images behind the first ten."""

    def forward(self, images: Any) -> Any:
        if self.n_images >= 10:
            raise MemoryError("the machine is gone")
        return super().forward(images)


def crash(data: Path) -> None:
    """Leave a run in the middle: some shards are in the bucket."""
    with pytest.raises(MemoryError):
        run(data, network=FakeNetwork(batch_size=2, kind=Crashing))


def test_rows_are_those_of_a_cache_on_the_disk_and_nothing_else_stays(tmp_path: Path, data: Path, s3: Any) -> None:
    run(data, tmp_path / "disk.h5")
    summary = run(data)
    assert str(summary.output) == OUTPUT
    assert keys(s3) == [KEY_OF_OUTPUT]
    assert contents(on_this_machine(location(OUTPUT))) == contents(tmp_path / "disk.h5")


def test_images_and_cache_in_a_bucket(tmp_path: Path, data: Path, s3: Any) -> None:
    put_folder(s3, data, "photos", "set/")
    run(data, tmp_path / "disk.h5")
    run("s3://photos/set")
    assert contents(on_this_machine(location(OUTPUT))) == contents(tmp_path / "disk.h5")


def test_an_update_computes_what_is_new_and_writes_only_what_changed(
    data: Path, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data)
    before = s3.head_object(Bucket="photos", Key=KEY_OF_OUTPUT)
    assert run(data).reused == {"unchanged": 20}
    after = s3.head_object(Bucket="photos", Key=KEY_OF_OUTPUT)
    assert (after["ETag"], after["LastModified"]) == (before["ETag"], before["LastModified"])
    monkeypatch.setenv("HEADSTART_CACHE_DIR", str(tmp_path / "another machine"))
    picture(data / "cat" / "1.png", 500)
    summary = run(data)
    assert (summary.n_computed, summary.reused) == (1, {"unchanged": 20})
    run(data, tmp_path / "disk.h5")
    assert contents(on_this_machine(location(OUTPUT))) == contents(tmp_path / "disk.h5")
    assert keys(s3) == [KEY_OF_OUTPUT]


def test_a_copy_is_made_once_and_anew_when_the_object_is_another(
    data: Path, s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(data)
    fetched: list[str] = []
    get = objects._get
    monkeypatch.setattr(objects, "_get", lambda address, path: fetched.append(str(address)) or get(address, path))
    first = on_this_machine(location(OUTPUT))
    assert fetched == []  # the run has left its own file there
    picture(data / "cat" / "1.png", 500)
    run(data)
    second = on_this_machine(location(OUTPUT))
    assert not first.exists()
    monkeypatch.setenv("HEADSTART_CACHE_DIR", str(tmp_path / "another machine"))
    third = on_this_machine(location(OUTPUT))
    assert on_this_machine(location(OUTPUT)) == third
    assert fetched == [OUTPUT]
    assert third.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("same_machine", [True, False])
def test_an_interrupted_run_goes_on_from_the_shards_in_the_bucket(
    data: Path, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_machine: bool
) -> None:
    crash(data)
    left = keys(s3)
    assert left
    assert all(key.startswith("features/.set.h5.parts/") for key in left)
    if not same_machine:
        monkeypatch.setenv("HEADSTART_CACHE_DIR", str(tmp_path / "another machine"))
    summary = run(data)
    n_left = summary.reused["unchanged"]
    assert n_left >= 4 * len(left) if same_machine else n_left == 4 * len(left)  # here may be one that was on its way
    assert summary.n_computed == 20 - n_left
    run(data, tmp_path / "disk.h5")
    assert contents(on_this_machine(location(OUTPUT))) == contents(tmp_path / "disk.h5")
    assert keys(s3) == [KEY_OF_OUTPUT]


def test_a_damaged_shard_is_computed_again(
    data: Path, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash(data)
    s3.put_object(Bucket="photos", Key=keys(s3)[0], Body=b"nonsense")
    monkeypatch.setenv("HEADSTART_CACHE_DIR", str(tmp_path / "another machine"))
    run(data)
    run(data, tmp_path / "disk.h5")
    assert contents(on_this_machine(location(OUTPUT))) == contents(tmp_path / "disk.h5")


def test_an_upload_that_fails_leaves_the_old_cache_and_what_was_computed(
    data: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data)
    before = s3.get_object(Bucket="photos", Key=KEY_OF_OUTPUT)["Body"].read()
    picture(data / "cat" / "1.png", 500)
    upload = objects.upload

    def failing(path: Path, address: Any, **options: Any) -> Any:
        if str(address) == OUTPUT:
            raise StorageError("no room")
        return upload(path, address, **options)

    with monkeypatch.context() as patch:
        patch.setattr(objects, "upload", failing)
        with pytest.raises(StorageError, match="no room"):
            run(data)
    assert s3.get_object(Bucket="photos", Key=KEY_OF_OUTPUT)["Body"].read() == before
    summary = run(data)
    assert (summary.n_computed, summary.n_images) == (0, 21)


def test_a_large_file_goes_in_parts_and_comes_back_the_same(s3: Any, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(2**20) * 101)
    address = location("s3://photos/large")
    objects.upload(path, address)
    assert "-" in s3.head_object(Bucket="photos", Key="large")["ETag"]
    objects.download(address, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()
    with pytest.raises(ExistsError):
        objects.upload(path, address, new=True)


def test_parts_of_a_killed_upload_are_removed(data: Path, s3: Any) -> None:
    s3.create_multipart_upload(Bucket="photos", Key=KEY_OF_OUTPUT)
    s3.create_multipart_upload(Bucket="photos", Key="other")
    run(data)
    assert [found["Key"] for found in s3.list_multipart_uploads(Bucket="photos")["Uploads"]] == ["other"]


def hold(s3: Any, **facts: Any) -> None:
    """Put a claim of another process beside the cache."""
    owner = {"token": "other", "host": "elsewhere", "machine": "", "pid": 4711, "renewed": 0}
    s3.put_object(Bucket="photos", Key=LOCK, Body=json.dumps({**owner, **facts}).encode())


def test_another_writer_is_refused_by_name(data: Path, s3: Any) -> None:
    hold(s3)
    with pytest.raises(CacheError, match=r"written by process 4711 on elsewhere \(last seen \d+ s ago"):
        run(data)
    assert keys(s3) == [LOCK]


def test_another_writer_is_refused_by_a_server_that_ignores_conditions_too(
    data: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(s3)
    monkeypatch.setattr(
        objects, "create", lambda address, content: s3.put_object(Bucket="photos", Key=address.key, Body=content)
    )
    with pytest.raises(CacheError, match="written by process 4711"):
        run(data)


def test_a_claim_that_nobody_renews_is_taken_over(data: Path, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(s3)
    later = claim.Claim(location(OUTPUT), clock=lambda: time.time() + 2 * claim.STALE_SECONDS)
    later.take()
    later.check()
    later.release()
    assert keys(s3) == []


def test_a_claim_of_a_dead_process_of_this_machine_is_taken_over_at_once(data: Path, s3: Any) -> None:
    hold(s3, host=socket.gethostname(), machine=claim.machine(), pid=2**22 + 1)
    run(data)
    assert keys(s3) == [KEY_OF_OUTPUT]


def test_of_two_that_take_over_one_is_refused(s3: Any) -> None:
    hold(s3)
    first, second = (claim.Claim(location(OUTPUT), clock=lambda: time.time() + 2 * claim.STALE_SECONDS) for _ in "12")
    seen = second._holder()
    first.take()
    second._holder = lambda: seen  # type: ignore[method-assign]  # it has looked before the first one was there
    with pytest.raises(CacheError, match="is being written"):
        second.take()
    first.check()


def test_whoever_lost_its_claim_does_not_publish(data: Path, s3: Any) -> None:
    class Robbed(FakeBackbone):
        def forward(self, images: Any) -> Any:
            hold(s3)
            return super().forward(images)

    with pytest.raises(CacheError, match="is being written by process 4711"):
        run(data, network=FakeNetwork(kind=Robbed))
    assert KEY_OF_OUTPUT not in keys(s3)
    assert LOCK in keys(s3)  # it is not its own to delete


@pytest.mark.parametrize("is_there", [True, False])
def test_a_cache_that_another_program_has_written_meanwhile_stays(data: Path, s3: Any, is_there: bool) -> None:
    if is_there:
        run(data)
        picture(data / "cat" / "1.png", 500)

    class Interfered(FakeBackbone):
        def forward(self, images: Any) -> Any:
            s3.put_object(Bucket="photos", Key=KEY_OF_OUTPUT, Body=b"of another")
            return super().forward(images)

    with pytest.raises(CacheError, match="written by something else"):
        run(data, network=FakeNetwork(kind=Interfered))
    assert s3.get_object(Bucket="photos", Key=KEY_OF_OUTPUT)["Body"].read() == b"of another"


def test_a_claim_is_renewed_unless_it_is_lost(s3: Any) -> None:
    mine = claim.Claim(location(OUTPUT), clock=lambda: 1.0)
    mine.take()
    before = bucket.stat(mine.at)
    mine._clock = lambda: 2.0
    mine.renew()
    assert bucket.stat(mine.at) != before
    hold(s3)
    with pytest.raises(CacheError):
        mine.renew()


def test_no_cache_and_no_bucket(s3: Any, data: Path) -> None:
    with pytest.raises(CacheError, match="There is no cache at s3://photos/none"):
        on_this_machine(location("s3://photos/none.h5"))
    with pytest.raises(StorageError, match="no such bucket"):
        run(data, "s3://nobody-has-this/set.h5")
    s3.put_object(Bucket="photos", Key="text.h5", Body=b"not a cache")
    with pytest.raises(CacheError):
        on_this_machine(location("s3://photos/text.h5"))


def test_keys_are_in_no_object_and_no_file(data: Path, s3: Any, tmp_path: Path) -> None:
    crash(data)
    hold(s3, host=socket.gethostname(), machine=claim.machine(), pid=2**22 + 1)
    seen = [s3.get_object(Bucket="photos", Key=key)["Body"].read() for key in keys(s3)]
    run(data)
    seen += [s3.get_object(Bucket="photos", Key=key)["Body"].read() for key in keys(s3)]
    seen += [path.read_bytes() for path in (tmp_path / "user-cache").rglob("*") if path.is_file()]
    assert len(seen) > 3
    for secret in (KEY, SECRET):
        assert not any(secret.encode() in content for content in seen)
