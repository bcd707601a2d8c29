"""Images that are other ones under the size and time of the old, and images that only look changed."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes import FakeBackbone, FakeNetwork
from headstart.cache.reader import open_cache
from headstart.evaluate.quality_report import inspect_quality
from headstart.exchange.export_features import convert
from headstart.exchange.merge_caches import merge_caches
from headstart.extract.run import extract_features
from headstart.extract.summary import ExtractionSummary
from headstart.images.discovery.refs import ImageRefs
from headstart.images.discovery.scan import ImageSet, discover
from headstart.predict import collect_images
from headstart.types import ImageRef
from headstart.verify import verify_cache
from pictures import picture

pytestmark = pytest.mark.slow

LAYOUTS = pytest.mark.parametrize("layout", ["file", "shards"])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve images of one size and one time."""
    for number in range(12):
        path = picture(tmp_path / "data" / ("ant", "bee")[number % 2] / f"{number:02}.bmp", number)
        os.utime(path, (10**9, 10**9))
    return tmp_path / "data"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "features" / "data.h5"


def run(data: Path, output: Path, **options: Any) -> ExtractionSummary:
    return extract_features(data, output, network=FakeNetwork(), decode_threads=2, **options)


def features(path: Path) -> dict[str, tuple[str, bytes]]:
    with open_cache(path) as cache:
        batch = next(cache.batches())
        rows = zip(cache.paths, cache.sha256, batch.features, strict=True)
        return {path: (digest, values.tobytes()) for path, digest, values in rows}


def swap_by_names(first: Path, second: Path) -> None:
    aside = first.with_suffix(".aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def swap_by_copies(first: Path, second: Path) -> None:
    aside = shutil.copy2(first, first.with_suffix(".aside"))
    shutil.copy2(second, first)
    shutil.copy2(aside, second)
    aside.unlink()


@pytest.mark.parametrize("swap", [swap_by_names, swap_by_copies])
@LAYOUTS
def test_two_files_that_were_swapped_are_two_other_images(
    data: Path, output: Path, tmp_path: Path, swap: Any, layout: str
) -> None:
    run(data, output, cache_layout=layout)
    swap(data / "ant" / "00.bmp", data / "bee" / "01.bmp")
    summary = run(data, output, cache_layout=layout)
    assert (summary.n_computed, summary.reused) == (0, {"unchanged": 10, "moved": 2})
    run(data, tmp_path / "fresh.h5")
    assert features(output) == features(tmp_path / "fresh.h5")


@LAYOUTS
def test_a_file_that_was_replaced_under_its_size_and_time_is_computed(
    data: Path, output: Path, tmp_path: Path, layout: str
) -> None:
    run(data, output, cache_layout=layout)
    os.utime(picture(data / "ant" / "00.bmp", 77), (10**9, 10**9))
    summary = run(data, output, cache_layout=layout)
    assert (summary.n_computed, summary.computed, summary.reused) == (1, {"changed": 1}, {"unchanged": 11})
    run(data, tmp_path / "fresh.h5")
    assert features(output) == features(tmp_path / "fresh.h5")


def test_a_copy_of_the_folder_is_read_once_and_computed_never(data: Path, output: Path, tmp_path: Path) -> None:
    run(data, output)
    shutil.copytree(data, tmp_path / "copy")
    assert run(tmp_path / "copy", output).reused == {"touched": 12}
    assert run(tmp_path / "copy", output).reused == {"unchanged": 12}


def test_copies_of_one_image_keep_their_own_rows(data: Path, output: Path) -> None:
    shutil.copy2(data / "ant" / "00.bmp", data / "bee" / "00.bmp")
    run(data, output)
    os.utime(data / "bee" / "00.bmp", (2 * 10**9, 2 * 10**9))
    assert run(data, output).reused == {"unchanged": 12, "touched": 1}


def forget_stamps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let scans know neither inode nor time of status change, as caches of older versions do."""

    def scan(*arguments: Any, **options: Any) -> ImageSet:
        images = discover(*arguments, **options)
        return replace(images, refs=ImageRefs.of(replace(ref, stamp=0) for ref in images.refs))

    monkeypatch.setattr("headstart.extract.run.discover", scan)


def test_a_cache_without_stamps_is_compared_by_size_and_time_or_by_bytes(
    data: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_stamps(monkeypatch)
    run(data, output)
    monkeypatch.undo()
    with open_cache(output) as cache:
        assert not cache.rows.stamp.any()
        assert "rows/stamp" not in cache._datasets
    before = output.read_bytes()
    swap_by_names(data / "ant" / "00.bmp", data / "bee" / "01.bmp")
    assert run(data, output).reused == {"unchanged": 12}
    assert output.read_bytes() == before
    assert run(data, output, check_bytes=True).reused == {"unchanged": 10, "moved": 2}
    run(data, tmp_path / "fresh.h5")
    assert features(output) == features(tmp_path / "fresh.h5")


def test_bytes_that_are_compared_and_equal_change_nothing(data: Path, output: Path) -> None:
    run(data, output)
    before = output.stat()
    assert run(data, output, check_bytes=True).reused == {"unchanged": 12}
    assert output.stat().st_ino == before.st_ino


@pytest.mark.parametrize("names", [("st_mtime_ns",), ("st_mtime_ns", "st_ctime_ns")])
def test_a_file_system_whose_times_jitter(
    data: Path, output: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    jitter(monkeypatch, names)
    assert run(data, output).n_computed == 12
    before = output.stat().st_ino
    summary = run(data, output)
    assert (summary.n_computed, summary.failures, output.stat().st_ino) == (0, (), before)


def jitter(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> None:
    """Let times be others by some nanoseconds at every look."""
    from headstart.images import load
    from headstart.images.discovery import scan
    from headstart.images.discovery.refs import state_of

    looks = iter(range(10**6))

    class Info:
        def __init__(self, info: os.stat_result) -> None:
            more = next(looks) * 1009 % 10**9
            self.st_size, self.st_ino = info.st_size, info.st_ino
            self.st_mtime_ns, self.st_ctime_ns = info.st_mtime_ns, info.st_ctime_ns
            for name in names:
                setattr(self, name, getattr(info, name) // 10**9 * 10**9 + more)

    for module in (load, scan):
        monkeypatch.setattr(module, "state_of", lambda info: state_of(Info(info)))  # type: ignore[arg-type]


@pytest.mark.parametrize("year", [1601, 1904, 1969, 2400, 30828])
def test_a_time_that_no_column_holds_is_a_time(
    data: Path, output: Path, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    time_ns = (year - 1970) * 31_556_952 * 10**9

    def scan(*arguments: Any, **options: Any) -> ImageSet:
        images = discover(*arguments, **options)
        first, *rest = images.refs
        return replace(images, refs=ImageRefs.of([replace(first, mtime_ns=time_ns), *rest]))

    monkeypatch.setattr("headstart.extract.run.discover", scan)
    assert run(data, output).n_computed == 12
    assert run(data, output).reused == {"unchanged": 12}


@pytest.mark.parametrize("seconds", [-11_644_473_600, -2_082_844_800, 13_569_465_600])
def test_a_file_from_1601_1904_or_2400_goes_all_the_way(data: Path, output: Path, tmp_path: Path, seconds: int) -> None:
    os.utime(data / "ant" / "00.bmp", ns=(seconds * 10**9, seconds * 10**9))
    assert run(data, output).n_computed == 12
    assert run(data, output).reused == {"unchanged": 12}
    (data / "images.csv").write_text("path,label\nant/00.bmp,ant\nbee/01.bmp,bee\n")
    named = run(data / "images.csv", tmp_path / "named.h5")
    assert named.n_images == 2
    assert merge_caches([output, tmp_path / "named.h5"], tmp_path / "merged.h5").n_images == 12
    convert(output, tmp_path / "features.npz")
    assert inspect_quality(output, data=data).n_images == 12
    assert verify_cache(output, data, backbone=FakeBackbone()).findings == ()
    assert len(collect_images([data / "ant" / "00.bmp"])[1]) == 1


def test_a_failure_is_no_change_each_time(data: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "ant" / "bad.bmp").write_bytes(b"BM no image")
    jitter(monkeypatch, ("st_mtime_ns",))
    assert len(run(data, output).failures) == 1
    before = output.stat().st_ino
    run(data, output)
    assert output.stat().st_ino == before


def test_what_a_scan_knows_comes_back_from_the_cache(data: Path, output: Path) -> None:
    run(data, output)
    with open_cache(output) as cache:
        refs: list[ImageRef] = cache.refs()
    assert refs == list(discover(data).refs)
    assert all(ref.stamp for ref in refs)
