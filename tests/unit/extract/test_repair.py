"""repair computes the damaged rows again and touches nothing else; or it refuses and touches nothing at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import pytest

from caches import everything, write_cache
from fakes import FakeBackbone, FakeNetwork
from headstart import repair as repair_module
from headstart.cache.reader import open_cache
from headstart.errors import CacheError, DataError, HeadstartError, RecipeMismatchError
from headstart.extract.run import extract_features
from headstart.repair import Repair, repair_cache
from headstart.verify import verify_cache
from pictures import class_folders

pytestmark = pytest.mark.slow


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = class_folders(tmp_path / "photos", n_per_class=5)
    (folder / "bee/empty.png").write_bytes(b"")
    return folder


@pytest.fixture
def cache(data: Path, tmp_path: Path) -> Path:
    extract_features(data, tmp_path / "a.h5", network=FakeNetwork())  # type: ignore[arg-type]
    return tmp_path / "a.h5"


def damage(path: Path, *places: tuple[str, int]) -> None:
    with open_cache(path) as cache:
        stored = [cache.read_chunk(name, row)[1] for name, row in places]
    data = bytearray(path.read_bytes())
    for chunk in stored:
        data[data.index(chunk) + len(chunk) // 2] ^= 8
    path.write_bytes(data)


def repaired(path: Path, data: Path) -> tuple[Repair, FakeBackbone]:
    backbone = FakeBackbone()
    return repair_cache(path, data, backbone=backbone), backbone


def without_header(path: Path) -> dict[str, Any]:
    return {name: value for name, value in everything(path).items() if name != "header"}


def test_only_damaged_rows_are_computed_and_the_cache_is_as_before(cache: Path, data: Path) -> None:
    before = without_header(cache)
    damage(cache, ("features", 2), ("pooled", 2), ("pooled", 7))
    assert len(verify_cache(cache).findings) == 3
    done, backbone = repaired(cache, data)
    assert (done.n_images, done.images) == (10, ("ant/002.png", "bee/002.png"))
    assert backbone.n_images == 2
    assert without_header(cache) == before
    assert verify_cache(cache, data, backbone=FakeBackbone()).findings == ()
    assert sorted(path.name for path in cache.parent.iterdir() if "repair" in path.name) == []


def test_swapped_rows_are_repaired_too(cache: Path, data: Path) -> None:
    before = without_header(cache)
    with h5py.File(cache, "r+") as file:
        file["features"][[2, 3]] = file["features"][...][[3, 2]]
    assert repaired(cache, data)[0].images == ("ant/002.png", "ant/003.png")
    assert without_header(cache) == before


def test_what_is_whole_is_left_alone(cache: Path, data: Path) -> None:
    before = cache.read_bytes(), cache.stat().st_mtime_ns
    done, backbone = repaired(cache, data)
    assert (done.images, backbone.n_images) == ((), 0)
    assert (cache.read_bytes(), cache.stat().st_mtime_ns) == before


def refused(path: Path, data: Path, error: type[HeadstartError], match: str) -> None:
    before = path.read_bytes()
    with pytest.raises(error, match=match):
        repaired(path, data)
    assert path.read_bytes() == before


def test_a_changed_or_missing_image_is_refused(cache: Path, data: Path) -> None:
    damage(cache, ("features", 2), ("features", 7))
    (data / "ant/002.png").write_bytes((data / "ant/001.png").read_bytes())
    (data / "bee/002.png").unlink()
    refused(cache, data, CacheError, "2 of 2 damaged rows .*ant/002.png: its bytes.*bee/002.png: No such file")


def test_damage_beyond_rows_is_refused_with_what_to_do(cache: Path, data: Path) -> None:
    damage(cache, ("features", 2))
    with h5py.File(cache, "r+") as file:
        file["rows/label"][0] = 1
    refused(cache, data, CacheError, "more than rows of features is damaged .*/rows/label.*overwrite=True")
    cache.write_bytes(cache.read_bytes()[:4000])
    refused(cache, data, CacheError, "cannot be repaired.*cannot be opened.*overwrite=True")


def test_features_made_elsewhere_and_other_backbones_are_refused(cache: Path, data: Path, tmp_path: Path) -> None:
    foreign = write_cache(tmp_path / "foreign.h5")
    damage(foreign, ("pooled", 1))
    refused(foreign, data, RecipeMismatchError, "which headstart cannot run")
    refused(cache, cache, DataError, "not a folder")


def test_nothing_is_made_where_there_is_no_cache(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="There is no cache"):
        repaired(tmp_path / "none/a.h5", data)
    assert not (tmp_path / "none").exists()


def test_the_old_file_stays_where_the_new_one_cannot_be_finished(
    cache: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(cache, ("features", 2))

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(repair_module, "merge", full)
    refused(cache, data, CacheError, "No space left on device")


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    options = {"shard_images": 6, "cache_layout": "shards"}
    extract_features(data, tmp_path / "folder", network=FakeNetwork(), **options)  # type: ignore[arg-type]
    return tmp_path / "folder"


def shard_of(folder: Path, row: int) -> tuple[Path, int]:
    """The shard that a row lies in, and its row there."""
    with open_cache(folder) as cache:
        assert cache.places is not None
        return folder / cache.places.table.names[cache.places.shard[row]], int(cache.places.shard_row[row])


def test_of_a_folder_the_damaged_shards_are_replaced_and_the_others_stay(folder: Path, data: Path) -> None:
    before, files = without_header(folder), {path.name: path.stat().st_ino for path in folder.glob("*.h5")}
    shard, row = shard_of(folder, 2)
    damage(shard, ("features", row))
    shard_of(folder, 9)[0].unlink()
    places = [(finding.place, finding.row) for finding in verify_cache(folder).findings]
    assert sorted(places, key=str) == sorted([(shard.name, None), (max(files), None), ("/features", 2)], key=str)
    done, backbone = repaired(folder, data)
    assert backbone.n_images == len(done.images) == 2
    assert done.images == ("ant/002.png", "bee/004.png")
    assert without_header(folder) == before
    assert verify_cache(folder, data, backbone=FakeBackbone()).findings == ()
    after = {path.name: path.stat().st_ino for path in folder.glob("*.h5")}
    assert len(files.keys() - after.keys()) == 2
    assert len(after.keys() - files.keys()) == 1
    assert {name: after[name] for name in files.keys() & after.keys()}.items() <= files.items()


def test_a_shard_that_is_damaged_where_no_row_is_used_is_written_anew_without_the_network(
    folder: Path, data: Path
) -> None:
    before, (shard, _) = without_header(folder), shard_of(folder, 0)
    content = bytearray(shard.read_bytes())
    with h5py.File(shard) as file:
        content[file["rows/path"].id.get_chunk_info(0).byte_offset] ^= 1
    shard.write_bytes(content)
    assert [(f.place, f.row) for f in verify_cache(folder).findings] == [(shard.name, None)]
    done, backbone = repaired(folder, data)
    assert (done.images, backbone.n_images) == ((), 0)
    assert not shard.exists()
    assert without_header(folder) == before
    assert verify_cache(folder).findings == ()


def test_a_folder_that_is_whole_is_left_alone(folder: Path, data: Path) -> None:
    before = {path.name: path.stat() for path in folder.iterdir()}
    assert repaired(folder / "cache.manifest", data)[0] == Repair(folder, 10, ())
    assert {path.name: path.stat() for path in folder.iterdir()} == before


def test_a_damaged_manifest_cannot_be_repaired(folder: Path, data: Path) -> None:
    with h5py.File(folder / "cache.manifest", "r+") as file:
        file["rows/label"][0] = 1
    refused(folder / "cache.manifest", data, CacheError, "more than rows of features is damaged .*/rows/label")
