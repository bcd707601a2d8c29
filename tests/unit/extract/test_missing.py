"""Rows whose images are gone: told, kept on request, and dropped in large numbers only if that was asked for."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from buckets import put_folder
from fakes import FakeBackbone, FakeNetwork
from headstart.cache.reader import open_cache
from headstart.errors import DataError
from headstart.extract import estimate
from headstart.extract.estimate import Forecast, forecast_extraction
from headstart.extract.options import ExtractOptions
from headstart.extract.run import extract_features
from headstart.extract.summary import ExtractionSummary
from headstart.types import FeatureBatch
from pictures import class_folders

LAYOUTS = pytest.mark.parametrize("layout", ["file", "shards"])


@pytest.fixture(autouse=True)
def one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "MEASURED_SECONDS", 0.0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "data", n_per_class=4, classes=("ant", "bee", "cat"))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "features" / "data.h5"


def run(data: Path | str, output: Path | str, **options: Any) -> ExtractionSummary:
    return extract_features(data, output, network=FakeNetwork(), decode_threads=2, **options)


def look(data: Path, output: Path, **options: Any) -> Forecast:
    return forecast_extraction(data, output, network=FakeNetwork(), decode_threads=2, **options)


def paths_of(output: Path) -> list[str]:
    with open_cache(output) as cache:
        return cache.paths


def state(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@LAYOUTS
def test_up_to_half_may_go_and_are_counted(data: Path, output: Path, layout: str) -> None:
    run(data, output, cache_layout=layout)
    shutil.rmtree(data / "cat")
    (data / "bee" / "000.png").unlink()
    found = look(data, output, cache_layout=layout)
    assert (found.n_gone, found.keeps_gone) == (5, False)
    summary = run(data, output, cache_layout=layout)
    assert (summary.n_gone, summary.keeps_gone, summary.to_dict()["n_gone"]) == (5, False, 5)
    assert run(data, output, cache_layout=layout).n_gone == 0


@LAYOUTS
def test_most_of_a_cache_is_dropped_only_on_request(data: Path, output: Path, layout: str) -> None:
    run(data, output, cache_layout=layout)
    shutil.rmtree(data / "cat")
    shutil.rmtree(data / "bee")
    before = state(output.parent)
    for attempt in (run, look):
        with pytest.raises(DataError, match=r"8 of the 12 images .*keep_missing=True.*drop_missing=True"):
            attempt(data, output, cache_layout=layout)
    after = state(output.parent)
    assert {path: after[path] for path in before} == before
    assert len(paths_of(output)) == 12
    kept = run(data, output, cache_layout=layout, keep_missing=True)
    assert (kept.n_gone, kept.keeps_gone, kept.n_images) == (8, True, 12)
    assert look(data, output, cache_layout=layout, drop_missing=True).n_gone == 8
    assert run(data, output, cache_layout=layout, drop_missing=True).n_images == 4


@LAYOUTS
def test_another_folder_of_the_same_name_takes_no_row_away(
    data: Path, output: Path, tmp_path: Path, layout: str
) -> None:
    run(data, output, cache_layout=layout)
    other = tmp_path / "project2" / "data"
    shutil.copytree(data, other)
    (other / "cat" / "003.png").unlink()
    with pytest.raises(DataError, match=f"another folder \\({data}\\)"):
        run(other, output, cache_layout=layout)
    assert len(paths_of(output)) == 12
    assert run(other, output, cache_layout=layout, drop_missing=True).n_images == 11


def test_a_folder_that_was_moved_is_no_other_images(data: Path, output: Path, tmp_path: Path) -> None:
    run(data, output)
    moved = data.rename(tmp_path / "elsewhere")
    summary = run(moved, output)
    assert (summary.n_gone, summary.n_computed) == (0, 0)


def test_a_link_to_the_folder_is_the_folder(data: Path, output: Path, tmp_path: Path) -> None:
    run(data, output)
    (tmp_path / "link").symlink_to(data)
    (data / "cat" / "003.png").unlink()
    assert run(tmp_path / "link", output).n_gone == 1


def test_an_image_under_a_new_name_is_not_gone(data: Path, output: Path) -> None:
    run(data, output)
    (data / "bee").rename(data / "wasp")
    (data / "cat").rename(data / "dog")
    summary = run(data, output)
    assert (summary.n_gone, summary.reused) == (0, {"unchanged": 4, "moved": 8})


def test_overwrite_asks_nothing(data: Path, output: Path) -> None:
    run(data, output)
    shutil.rmtree(data / "cat")
    shutil.rmtree(data / "bee")
    assert run(data, output, overwrite=True).n_images == 4


@pytest.mark.parametrize("options", [{"overwrite": True}, {"drop_missing": True}])
def test_rows_cannot_be_kept_and_dropped(options: dict[str, bool]) -> None:
    with pytest.raises(DataError, match="Give one of them"):
        ExtractOptions(keep_missing=True, **options)


def test_what_an_interrupted_run_computed_of_another_folder_stays(
    data: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = FakeBackbone.forward

    def interrupt(self: FakeBackbone, images: np.ndarray) -> FeatureBatch:
        if self.n_images == self.batch_size:  # once: a second SIGTERM ends the program
            signal.raise_signal(signal.SIGTERM)
        return forward(self, images)

    monkeypatch.setattr(FakeBackbone, "forward", interrupt)
    assert run(data, output).interrupted
    monkeypatch.setattr(FakeBackbone, "forward", forward)
    other = class_folders(tmp_path / "project2" / "data", n_per_class=2, classes=("elk", "fox"))
    before = state(output.parent)
    with pytest.raises(DataError, match=f"interrupted run has left .* images of {data}"):
        run(other, output)
    assert {path: content for path, content in state(output.parent).items() if path in before} == before
    assert run(other, output, drop_missing=True).n_images == 4


@pytest.mark.slow
def test_images_in_a_bucket(tmp_path: Path, s3: Any, data: Path) -> None:
    put_folder(s3, data, "photos", "set/")
    put_folder(s3, data, "photos", "other/")
    cache = "s3://photos/features/set.h5"
    run("s3://photos/set", cache)
    s3.delete_object(Bucket="photos", Key="set/cat/003.png")
    s3.delete_object(Bucket="photos", Key="other/cat/003.png")
    with pytest.raises(DataError, match=f"1 of the 12 images of {cache}, .*another folder .s3://photos/set"):
        run("s3://photos/other", cache)
    assert run("s3://photos/set", cache).n_gone == 1
    for number in range(4):
        s3.delete_object(Bucket="photos", Key=f"set/bee/00{number}.png")
        s3.delete_object(Bucket="photos", Key=f"set/ant/00{number}.png")
    with pytest.raises(DataError, match=f"8 of the 11 images of {cache} are not in"):
        run("s3://photos/set", cache)
    assert run("s3://photos/set", cache, keep_missing=True).n_images == 11


@pytest.mark.slow
def test_an_object_that_was_replaced_by_one_of_its_size_is_another_image(tmp_path: Path, s3: Any, data: Path) -> None:
    for number in range(4):
        Image.open(data / "ant" / f"00{number}.png").save(data / "ant" / f"00{number}.bmp")
        (data / "ant" / f"00{number}.png").unlink()
    put_folder(s3, data, "photos", "set/")
    output = tmp_path / "features" / "set.h5"
    run("s3://photos/set", output)
    for name, source in (("000", "001"), ("001", "000")):
        s3.put_object(Bucket="photos", Key=f"set/ant/{name}.bmp", Body=(data / "ant" / f"{source}.bmp").read_bytes())
    assert run("s3://photos/set", output).reused == {"unchanged": 10, "moved": 2}
    assert run("s3://photos/set", output, check_bytes=True).reused == {"unchanged": 12}
