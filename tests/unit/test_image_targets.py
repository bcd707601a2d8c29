"""Numbers to predict: from the manifest into the cache, and through what is made of caches."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from caches import write_cache
from fakes import FakeNetwork
from headstart.cache.integrity import verify_file
from headstart.cache.merge import MergedRow, merge
from headstart.cache.reader import open_cache
from headstart.errors import CacheError, DataError
from headstart.exchange.export_features import convert
from headstart.exchange.import_features import import_features
from headstart.exchange.merge_caches import merge_caches
from headstart.extract.run import extract_features
from headstart.images.discovery.scan import ImageSet, discover
from pictures import picture


def with_targets(source: Path, path: Path, targets: Sequence[float | None]) -> Path:
    """Write a cache with other numbers to predict."""
    with open_cache(source) as cache:
        rows = [
            MergedRow(0, row, replace(ref, target=target))
            for row, (ref, target) in enumerate(zip(cache.refs(), targets, strict=True))
        ]
        merge(path, sources=[cache], rows=rows, failures=(), class_names=cache.class_names, layout="")
    return path


def targets_of(path: Path) -> list[float | None] | None:
    with open_cache(path) as cache:
        return None if cache.targets is None else [ref.target for ref in cache.refs()]


def found(folder: Path, table: str) -> ImageSet:
    for number in range(3):
        if not (folder / f"{number}.png").exists():
            picture(folder / f"{number}.png", number)
    (folder / "labels.csv").write_text(table)
    return discover(folder / "labels.csv")


@pytest.mark.parametrize(
    ("table", "labels", "targets"),
    [
        ("path,label,target\n0.png,a,0.5\n1.png,b,\n2.png,a,-2e1\n", ["a", "b", "a"], [0.5, None, -20.0]),
        ("path,category,Target\n0.png,a,1\n1.png,b,2\n2.png,a,3\n", ["a", "b", "a"], [1.0, 2.0, 3.0]),
        ("path,target\n0.png,0.5\n1.png,\n2.png,3\n", [None, None, None], [0.5, None, 3.0]),
        ("path,target\n0.png,1\n1.png,0\n2.png,\n", ["1", "0", None], [1.0, 0.0, None]),
        ("path,target\n0.png,cat\n1.png,dog\n2.png,7\n", ["cat", "dog", "7"], [None, None, None]),
        ("path,label,target\n0.png,a,x\n1.png,b,y\n2.png,a,\n", ["a", "b", "a"], [None, None, None]),
    ],
)
def test_a_manifest_gives_numbers_and_labels(
    tmp_path: Path, table: str, labels: list[str | None], targets: list[float | None]
) -> None:
    images = found(tmp_path, table)
    assert [(ref.label, ref.target) for ref in images.refs] == list(zip(labels, targets, strict=True))
    said = any("the number that heads for the target number predict" in notice for notice in images.notices)
    assert said == (targets != [None] * 3)


@pytest.mark.parametrize("cell", ["often", "nan", "inf", '"0,5"'])
def test_a_word_among_numbers_is_refused(tmp_path: Path, cell: str) -> None:
    with pytest.raises(DataError, match=r"line 3: the target is .*Expected: a finite number to predict"):
        found(tmp_path, f"path,label,target\n0.png,a,1\n1.png,b,{cell}\n2.png,a,2\n")


def test_one_image_has_one_number(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"named twice, as a, target 1 and as a, target 2"):
        found(tmp_path, "path,label,target\n0.png,a,1\n0.png,a,2\n")


@pytest.mark.parametrize("layout", ["file", "shards"])
def test_a_changed_number_changes_its_row_and_no_feature(tmp_path: Path, layout: str) -> None:
    def run(*targets: str) -> int:
        rows = "".join(f"{number}.png,a,{target}\n" for number, target in enumerate(targets))
        found(tmp_path, f"path,label,target\n{rows}")
        given: Any = FakeNetwork()
        return extract_features(tmp_path / "labels.csv", output, network=given, cache_layout=layout).n_computed

    output = tmp_path / "cache"
    assert run("1", "2.5", "") == 3
    assert targets_of(output) == [1, 2.5, None]
    assert run("1", "", "-4") == 0
    assert targets_of(output) == [1, None, -4]
    before = {file: file.stat().st_mtime_ns for file in [output, *output.rglob("*.h5")]}
    assert run("1", "", "-4") == 0
    assert before == {file: file.stat().st_mtime_ns for file in [output, *output.rglob("*.h5")]}
    assert run("", "", "") == 0
    assert targets_of(output) is None


def test_a_cache_without_numbers_is_what_it_was(tmp_path: Path) -> None:
    plain = write_cache(tmp_path / "a.h5", range(4))
    some = with_targets(plain, tmp_path / "b.h5", [1.0, None, 2.0, None])
    with h5py.File(plain) as without, h5py.File(some) as written:
        assert "target" not in without["rows"]
        np.testing.assert_array_equal(written["rows/target"][:], [1, math.nan, 2, math.nan])
    assert not list(verify_file(some))
    again = with_targets(some, tmp_path / "c.h5", [None] * 4)
    with h5py.File(again) as without:
        assert "target" not in without["rows"]


def test_an_infinite_number_is_damage(tmp_path: Path) -> None:
    path = with_targets(write_cache(tmp_path / "a.h5", range(4)), tmp_path / "b.h5", [1.0, None, 2.0, None])
    with h5py.File(path, "r+") as file:
        values = np.array([1, np.inf, 2, np.nan])
        file["rows/target"][:] = values
        file["rows/target"].attrs["sha256"] = np.bytes_(hashlib.sha256(values.tobytes()).hexdigest())
    with open_cache(path) as cache, pytest.raises(CacheError, match="the target inf, which is no finite number"):
        _ = cache.targets


@pytest.mark.parametrize("name", ["a.npz", "a.h5", "a.parquet"])
def test_numbers_are_exported_and_imported(tmp_path: Path, name: str) -> None:
    targets = [1.0, None, -2.5, None]
    path = with_targets(write_cache(tmp_path / "cache.h5", range(4)), tmp_path / "with.h5", targets)
    convert(path, tmp_path / name)
    import_features(tmp_path / name, tmp_path / "again.h5", name="net")
    assert targets_of(tmp_path / "again.h5") == targets


def test_an_array_called_target_without_y_is_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=np.ones((4, 3), np.float32), target=np.array([0, 1, 1, 0]))
    import_features(tmp_path / "a.npz", tmp_path / "a.h5", name="net")
    with open_cache(tmp_path / "a.h5") as cache:
        assert (cache.labels.tolist(), cache.targets) == ([0, 1, 1, 0], None)


def test_a_merge_keeps_numbers_and_refuses_others(tmp_path: Path) -> None:
    plain = write_cache(tmp_path / "a.h5", range(4))
    one = with_targets(plain, tmp_path / "one.h5", [1.0, None, 2.0, None])
    two = with_targets(plain, tmp_path / "two.h5", [None, 3.0, 2.0, None])
    merge_caches([one, two], tmp_path / "all.h5")
    assert targets_of(tmp_path / "all.h5") == [1, 3, 2, None]
    three = with_targets(plain, tmp_path / "three.h5", [9.0, None, None, None])
    with pytest.raises(DataError, match=r"target 9\.0 in .*, 1\.0 before"):
        merge_caches([one, three], tmp_path / "more.h5")
