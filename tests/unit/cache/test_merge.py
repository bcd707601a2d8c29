"""A merge moves rows as they lie on the disk, and says anew what is said of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from caches import CLASS_NAMES, RECIPE, everything, failure, make_batch, make_row, write_cache
from headstart.cache import merge as merging
from headstart.cache.merge import MergedRow, merge
from headstart.cache.reader import open_cache
from headstart.cache.writer import ShardWriter
from headstart.errors import CacheError, RecipeMismatchError
from headstart.types import ImageRef

NEW = ImageRef("new/name \udcff.jpg", "new", "test", "g", 3, 4)


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    return [write_cache(tmp_path / "a.h5", range(5)), write_cache(tmp_path / "b.h5", range(10, 17))]


def merged(output: Path, sources: list[Any], rows: list[MergedRow], **options: Any) -> Path:
    given = {"failures": (), "class_names": ("ants", "bees", "new"), "layout": "flat", **options}
    merge(output, sources=sources, rows=rows, **given)
    return output


def test_features_are_copied_as_stored_and_the_rest_is_said_anew(tmp_path: Path, sources: list[Path]) -> None:
    rows = [
        MergedRow(1, 6, NEW),
        MergedRow(0, 0, NEW),
        MergedRow(1, 0, make_row(10).ref),
        MergedRow(0, 0, make_row(0).ref),
    ]
    numbers = [16, 0, 10, 0]
    output = merged(tmp_path / "c.h5", list(sources), rows, failures=[failure(3)], info={"why": 1})
    with open_cache(output) as cache, open_cache(sources[0]) as a, open_cache(sources[1]) as b:
        for name in ("features", "pooled"):
            stored = [(a, b)[row.source].read_chunk(name, row.row) for row in rows]
            assert [cache.read_chunk(name, row) for row in range(4)] == stored
        (batch,) = cache.batches()
        np.testing.assert_array_equal(batch.features, make_batch(numbers).features.astype(np.float16))
        np.testing.assert_array_equal(batch.pooled, make_batch(numbers).pooled)
        assert cache.refs() == [row.ref for row in rows]
        assert cache.labels.tolist() == [2, 2, 1, 0]
        assert cache.sha256 == [make_row(number).sha256 for number in numbers]
        assert list(cache.rows.notes) == [make_row(number).notes for number in numbers]
        assert cache.rows.width_px.tolist() == [640 + number for number in numbers]
        assert list(cache.rows.features_sha256) == [
            b.rows.features_sha256[6], a.rows.features_sha256[0], b.rows.features_sha256[0], a.rows.features_sha256[0]
        ]  # fmt: skip
        assert (cache.failures, cache.layout, cache.info) == ((failure(3),), "flat", {"why": 1})
        assert cache.recipe == RECIPE


def test_paths_and_open_caches_are_sources_alike(tmp_path: Path, sources: list[Path]) -> None:
    rows = [MergedRow(source, row, make_row(row).ref) for source in (0, 1) for row in range(5)]
    with open_cache(sources[0]) as a:
        mixed = everything(merged(tmp_path / "c.h5", [a, sources[1]], rows))
        a.pooled()  # still open
    assert mixed["features"] == everything(merged(tmp_path / "d.h5", list(sources), rows))["features"]


def test_the_output_may_be_a_source(tmp_path: Path, sources: list[Path]) -> None:
    with open_cache(sources[0]) as old:
        merged(sources[0], [old, sources[1]], [MergedRow(1, 1, NEW), MergedRow(0, 1, NEW)])
        np.testing.assert_array_equal(old.pooled(), make_batch(range(5)).pooled)
    with open_cache(sources[0]) as new:
        np.testing.assert_array_equal(new.pooled(), make_batch([11, 1]).pooled)


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_rows_that_are_compressed_otherwise_are_compressed_again(
    tmp_path: Path, sources: list[Path], compression: str
) -> None:
    other = write_cache(tmp_path / "other.h5", range(20, 23), compression="gzip")
    rows = [MergedRow(0, 2, NEW), MergedRow(1, 1, NEW)]
    output = merged(tmp_path / "c.h5", [sources[0], other], rows, compression=compression)
    with open_cache(output) as cache:
        assert cache.compression == compression
        (batch,) = cache.batches()
        np.testing.assert_array_equal(batch.features, make_batch([2, 21]).features.astype(np.float16))
    with open_cache(merged(tmp_path / "d.h5", [sources[0], other], rows)) as cache:
        assert cache.compression == "zstd"


def test_another_recipe_is_refused_with_the_field(tmp_path: Path, sources: list[Path]) -> None:
    other = write_cache(tmp_path / "other.h5", recipe=replace(RECIPE, precision="bfloat16"))
    with pytest.raises(RecipeMismatchError, match="precision: float32 ≠ bfloat16"):
        merged(tmp_path / "c.h5", [sources[0], other], [MergedRow(0, 0, NEW), MergedRow(1, 0, NEW)])
    with pytest.raises(RecipeMismatchError, match="layer"):
        merged(tmp_path / "c.h5", list(sources), [MergedRow(0, 0, NEW)], recipe=replace(RECIPE, layer="x"))
    assert not (tmp_path / "c.h5").exists()


def test_another_shape_is_refused(tmp_path: Path, sources: list[Path]) -> None:
    with ShardWriter(tmp_path / "other.h5", recipe=RECIPE, class_names=CLASS_NAMES) as writer:
        writer.append(make_batch([0], map_shape=(1, 1, 1)), [make_row(0)])
    with pytest.raises(CacheError, match=r"rows of shape \(1, 1, 1\)"):
        merged(tmp_path / "c.h5", [sources[0], tmp_path / "other.h5"], [MergedRow(0, 0, NEW), MergedRow(1, 0, NEW)])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no row"),
        ([MergedRow(0, 5, NEW)], "has 5 rows"),
        ([MergedRow(0, -1, NEW)], "has 5 rows"),
        ([MergedRow(2, 0, NEW)], "source 2"),
        ([MergedRow(0, 0, replace(NEW, label="wasps"))], "wasps"),
    ],
)
def test_rows_that_make_no_sense_are_refused(
    tmp_path: Path, sources: list[Path], rows: list[MergedRow], words: str
) -> None:
    with pytest.raises(CacheError, match=words):
        merged(tmp_path / "c.h5", list(sources), rows)
    assert sorted(tmp_path.iterdir()) == sources


def test_an_interrupt_leaves_nothing(tmp_path: Path, sources: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(merging, "copy_rows", interrupt)
    with pytest.raises(KeyboardInterrupt):
        merged(tmp_path / "c.h5", list(sources), [MergedRow(0, 0, NEW)])
    assert sorted(tmp_path.iterdir()) == sources


def test_damage_is_carried_along_and_noticed(tmp_path: Path, sources: list[Path]) -> None:
    """A copied chunk keeps its checksum: what was damaged in the source is no less so in the copy."""
    data = sources[0].read_bytes()
    with open_cache(sources[0]) as cache:
        place = data.index(cache.read_chunk("features", 3)[1]) + 7
    sources[0].write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    output = merged(tmp_path / "c.h5", list(sources), [MergedRow(0, 2, NEW), MergedRow(0, 3, NEW)])
    with open_cache(output) as cache, pytest.raises(CacheError, match="row 1 of /features, the image new/name"):
        list(cache.batches())


def test_many_rows_need_many_looks_at_the_disk(
    tmp_path: Path, sources: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "CHECKED_ROWS", 3)
    rows = [MergedRow(number % 2, number % 5, make_row(number).ref) for number in range(20)]
    output = merged(tmp_path / "c.h5", list(sources), rows)
    with open_cache(output) as cache:
        expected = make_batch([number % 5 + 10 * (number % 2) for number in range(20)])
        np.testing.assert_array_equal(cache.pooled(), expected.pooled)
        assert cache.refs() == [row.ref for row in rows]


def test_on_windows_a_cache_is_closed_before_another_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There no file takes the place of one that is open."""
    monkeypatch.setattr(merging, "os", SimpleNamespace(name="nt"))
    path, put = write_cache(tmp_path / "c.h5", range(3)), Path.replace
    closed: list[bool] = []

    with open_cache(path) as cache:
        rows = [MergedRow(0, row, ref) for row, ref in enumerate(cache.refs())]

        def as_windows(partial: Path, target: Path) -> Path:
            with pytest.raises(CacheError, match="has been closed"):
                cache.pooled([0])
            closed.append(True)
            return put(partial, target)

        monkeypatch.setattr(Path, "replace", as_windows)
        merge(path, sources=[cache], rows=rows, failures=(), class_names=cache.class_names, layout="")
    assert closed == [True]
    with open_cache(path) as again:
        assert again.n_images == 3
