"""A folder of shards says what one file says, before and after updates."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caches import CLASS_NAMES, RECIPE, everything, failure, make_row, write_cache
from folders import SHARDS, all_rows, name, publish, write_shards
from headstart.cache.merge import MergedRow, merge
from headstart.cache.reader import open_cache
from headstart.cache.shards import MANIFEST, ShardFolder, is_cache, most_open
from headstart.errors import CacheError, RecipeMismatchError


def said(path: Path) -> dict[str, Any]:
    """All but when it was written."""
    found = everything(path)
    n_images, layout, _, info, versions = found.pop("header")
    return {**found, "header": (n_images, layout, info, versions)}


def test_a_folder_says_what_a_file_of_the_same_rows_says(folder: Path, tmp_path: Path) -> None:
    # Rows shuffled, one used twice, one not at all: as after updates.
    rows = [all_rows()[number] for number in (8, 0, 3, 3, 5, 1, 7, 2)]
    sources = sorted(folder.glob("*.h5"))
    options = {
        "failures": [failure()],
        "class_names": CLASS_NAMES,
        "layout": "flat",
        "info": {"precision_reason": "test"},
    }
    merge(tmp_path / "one.h5", sources=sources, rows=rows, **options)
    publish(folder, sources, rows)
    assert said(folder) == said(tmp_path / "one.h5")
    assert said(folder / MANIFEST) == said(folder)
    with open_cache(folder) as cache:
        assert cache.path == folder
        assert cache.size_bytes == sum(path.stat().st_size for path in folder.iterdir())


def test_shards_stay_as_they_were_written(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "data")
    before = [path.read_bytes() for path in shards]
    publish(tmp_path / "data", shards, all_rows())
    assert [path.read_bytes() for path in shards] == before


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """A folder that is only read, and the features of its rows as its shards hold them."""
    path = tmp_path_factory.mktemp("folder") / "data"
    publish(path, write_shards(path), all_rows())
    with ExitStack() as stack:
        shards = [stack.enter_context(open_cache(path / name(number))) for number in range(3)]
        expected = [shards[row.source].read_rows("features", np.array([row.row]))[0] for row in all_rows()]
    return path, [row.tobytes() for row in expected]


@settings(max_examples=25)
@given(rows=st.lists(st.integers(0, 8), max_size=30), batch_rows=st.integers(1, 9))
def test_rows_come_in_the_order_asked_for_with_few_files_open(
    rows: list[int], batch_rows: int, features: tuple[Path, list[bytes]]
) -> None:
    path, expected = features
    with pytest.MonkeyPatch.context() as patch, open_cache(path) as cache:
        patch.setattr("headstart.cache.shards.MAX_OPEN", 1)
        found = list(cache.batches(rows, batch_rows=batch_rows))
    assert [row.tobytes() for batch in found for row in batch.features] == [expected[row] for row in rows]


def test_no_more_shards_are_open_than_allowed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.cache.shards.MAX_OPEN", 2)
    opened, closed = [], []

    class Counted(h5py.File):
        def close(self) -> None:
            closed.append(self.filename)
            super().close()

    monkeypatch.setattr(h5py, "File", lambda *args, **options: opened.append(args[0]) or Counted(*args, **options))
    with open_cache(folder) as cache:
        assert len(opened) == 1  # the manifest alone
        list(cache.batches([0, 4, 8, 0, 4, 8], batch_rows=1))
        assert len(opened) - len(closed) == 3
    assert len(opened) == len(closed)


def test_shards_that_are_open_are_read_before_they_are_closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches over all shards, of which two may be open: from the second read on, two of three are found open."""
    monkeypatch.setattr("headstart.cache.shards.MAX_OPEN", 2)
    opened: list[str] = []
    original = ShardFolder.open
    monkeypatch.setattr(ShardFolder, "open", lambda self, name: opened.append(name) or original(self, name))
    with open_cache(folder) as cache:
        opened.clear()
        list(cache.batches([0, 4, 8], batch_rows=3))  # features, then averages
        list(cache.batches([0, 4, 8], batch_rows=3))
    assert len(opened) == 3 + 1 + 1 + 1


def test_how_many_shards_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    for soft, expected in ((64, 32), (256, 128), (1024, 128), (10, 16), (resource.RLIM_INFINITY, 128)):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, soft=soft: (soft, soft))
        assert most_open() == expected


def test_shards_may_be_compressed_differently(tmp_path: Path) -> None:
    path = tmp_path / "data"
    shards = [write_cache(path_of, rows, compression=kind) for path_of, rows, kind in zip(
        [made(path) / name(number) for number in range(3)], SHARDS, ("zstd", "gzip", "none"), strict=True
    )]  # fmt: skip
    publish(path, shards, all_rows())
    merge(tmp_path / "one.h5", sources=[path], rows=[MergedRow(0, n, make_row(n).ref) for n in range(9)],
          failures=[], class_names=CLASS_NAMES, layout="flat")  # fmt: skip
    for key in ("features", "pooled", "features_sha256", "notes"):
        assert everything(tmp_path / "one.h5")[key] == everything(path)[key]


def made(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def test_an_update_keeps_shards_and_deletes_only_those_without_a_row(folder: Path) -> None:
    new = write_cache(folder / name(3), [9, 10])
    (folder / "notes.h5").write_bytes(b"somebody else's")
    (folder / "readme.txt").write_text("somebody else's")
    with open_cache(folder) as old:
        kept = [MergedRow(0, row, make_row(row).ref) for row in (0, 1, 8)]
        publish(folder, [old, new], [*kept, MergedRow(1, 1, make_row(10).ref)])
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [MANIFEST, name(0), name(2), name(3), "notes.h5", "readme.txt"]
    )
    with open_cache(folder) as cache:
        assert cache.refs() == [make_row(number).ref for number in (0, 1, 8, 10)]
        assert cache.sha256 == [make_row(number).sha256 for number in (0, 1, 8, 10)]


def test_a_reader_of_a_folder_that_was_updated_meanwhile_is_told_to_open_it_again(folder: Path) -> None:
    with open_cache(folder) as reader:
        with open_cache(folder) as old:
            publish(folder, [old], [MergedRow(0, 0, make_row(0).ref)])
        assert reader.pooled([0]).shape == (1, 5)
        with pytest.raises(CacheError, match="brought up to date meanwhile: open it again"):
            reader.pooled([8])


def test_a_closed_folder_cannot_be_read(folder: Path) -> None:
    with open_cache(folder) as cache:
        pass
    with pytest.raises(CacheError, match="has been closed"):
        cache.pooled([0])


def test_a_folder_without_manifest_is_no_cache(tmp_path: Path) -> None:
    write_shards(tmp_path / "data")
    assert not is_cache(tmp_path / "data")
    with pytest.raises(CacheError, match=r"without a cache\.manifest"):
        open_cache(tmp_path / "data")


def test_what_is_a_cache_by_its_name(folder: Path) -> None:
    assert is_cache(folder)
    assert is_cache(folder / MANIFEST)
    assert is_cache("anything.h5")
    assert not is_cache(folder.parent)


def test_rows_from_elsewhere_cannot_be_part_of_a_folder(folder: Path, tmp_path: Path) -> None:
    elsewhere = write_cache(tmp_path / "else.h5", [9])
    with pytest.raises(CacheError, match="does not lie in"):
        publish(folder, [elsewhere], [MergedRow(0, 0, make_row(9).ref)])


def test_shards_of_two_recipes_are_no_cache(folder: Path) -> None:
    other = write_cache(folder / name(9), [9], recipe=replace(RECIPE, resize="other"))
    with pytest.raises(RecipeMismatchError, match="resize"):
        publish(folder, [folder / name(0), other], [MergedRow(0, 0, make_row(0).ref), MergedRow(1, 0, make_row(9).ref)])
