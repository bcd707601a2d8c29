"""Workers of a Ray cluster and a bucket: they read it themselves, with the keys of their own environment."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from buckets import CREDENTIALS, KEY, SECRET, client, forget_buckets, forget_connections, put_folder
from fakes import FakeNetwork
from headstart.cache.reader import on_this_machine, open_cache
from headstart.errors import StorageError
from headstart.extract.options import ExtractOptions
from headstart.extract.run import extract_features
from headstart.storage import objects
from headstart.storage.bucket import location
from pictures import class_folders

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore")]

ray = pytest.importorskip("ray")


@pytest.fixture
def data(tmp_path: Path, s3_endpoint: str, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose content is in the bucket as well."""
    folder = class_folders(tmp_path / "data", n_per_class=10)
    (folder / "bee" / "broken.png").write_bytes(b"no picture")
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": s3_endpoint}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HEADSTART_CACHE_DIR", str(tmp_path / "user-cache"))
    forget_connections()
    forget_buckets(s3_endpoint)
    s3 = client(s3_endpoint)
    s3.create_bucket(Bucket="photos")
    put_folder(s3, folder, "photos", "set/")
    s3.close()
    yield folder
    forget_connections()


def contents(path: Path) -> tuple[Any, ...]:
    with open_cache(path) as cache:
        batch = next(cache.batches(batch_rows=10_000))
        rows = [
            (name, sha, label, f.tobytes(), p.tobytes())
            for name, sha, label, f, p in zip(
                cache.rows.path, cache.rows.sha256, cache.rows.label, batch.features, batch.pooled, strict=True
            )
        ]
        return rows, [(f.ref.path, f.reason) for f in cache.failures]


def run(data: Path | str, output: Path | str, **options: Any) -> Any:
    return extract_features(
        data, output, options=ExtractOptions(**{"shard_images": 8, "engine": "ray"} | options), network=FakeNetwork()
    )


def test_workers_read_a_bucket_and_their_rows_are_those_of_the_folder(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    put = ray.put
    monkeypatch.setattr(ray, "put", lambda value: given.append(value) or put(value))
    run(data, tmp_path / "disk.h5", engine="local")
    summary = run("s3://photos/set", tmp_path / "cloud.h5")
    assert summary.n_computed == 20
    assert contents(tmp_path / "cloud.h5") == contents(tmp_path / "disk.h5")
    assert given
    for secret in (KEY, SECRET):
        assert not any(secret.encode() in pickle.dumps(value) for value in given)


def test_workers_write_their_shards_into_the_bucket(
    tmp_path: Path, data: Path, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    get = objects._get
    monkeypatch.setattr(objects, "_get", lambda address, path: fetched.append(address.key) or get(address, path))
    run(data, tmp_path / "disk.h5", engine="local")
    summary = run("s3://photos/set", "s3://photos/features/set.h5")
    assert (summary.n_computed, len(fetched)) == (20, 6)  # by four of the 21 objects, one of which is no picture
    assert all(key.startswith("features/.set.h5.parts/") for key in fetched)
    assert contents(on_this_machine(location("s3://photos/features/set.h5"))) == contents(tmp_path / "disk.h5")
    s3 = client(s3_endpoint)
    assert [found["Key"] for found in s3.list_objects_v2(Bucket="photos", Prefix="features")["Contents"]] == [
        "features/set.h5"
    ]
    s3.close()


def test_keys_are_in_no_file_that_the_cluster_has_written(tmp_path: Path, data: Path) -> None:
    run("s3://photos/set", "s3://photos/features/set.h5")
    with pytest.raises(StorageError):
        run("s3://photos/set", "s3://nobody-has-this/set.h5")
    logs = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
    written = [path.read_bytes() for path in logs.rglob("*") if path.is_file()]
    assert written
    for secret in (KEY, SECRET):
        assert not any(secret.encode() in content for content in written)
