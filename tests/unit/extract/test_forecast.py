"""A dry run says what a run does then, and leaves everything as it is."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes import FakeNetwork
from headstart.backbones.vgg16 import VGG16
from headstart.cache.reader import open_cache
from headstart.errors import RecipeMismatchError
from headstart.extract import estimate
from headstart.extract.estimate import (
    DESCRIPTION_BYTES,
    Forecast,
    Rate,
    bytes_per_row,
    forecast_extraction,
    free_disk_bytes,
)
from headstart.extract.lock import lock
from headstart.extract.options import ExtractOptions
from headstart.extract.plan import KnownRows
from headstart.extract.run import extract_features
from headstart.extract.summary import ExtractionSummary
from pictures import class_folders, picture

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "MEASURED_SECONDS", 0.0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "data", n_per_class=8)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "features" / "data.h5"


def options(**values: Any) -> ExtractOptions:
    return ExtractOptions(shard_images=5, decode_threads=2, **values)


def look(data: Path, output: Path, network: FakeNetwork | None = None, **values: Any) -> Forecast:
    return forecast_extraction(data, output, options=options(**values), network=network or FakeNetwork())


def run(data: Path, output: Path, **values: Any) -> ExtractionSummary:
    return extract_features(data, output, options=options(**values), network=FakeNetwork())


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")}


def test_several_gpus_are_counted(data: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = FakeNetwork()
    network.made.device = "gpu:0"  # type: ignore[attr-defined]
    monkeypatch.setattr(estimate, "devices_of", lambda _options, _existing: ["gpu:0", "gpu:1", "gpu:2"])
    monkeypatch.setattr(estimate, "seconds_per_image", lambda _backbone, _images: 300.0)
    found = look(data, output, network)
    assert found.rate is not None
    assert found.rate.images_per_second == pytest.approx(0.01)
    assert "on one of 3 GPUs" in found.rate.reason


def test_a_new_folder_is_all_new_and_nothing_is_written(data: Path, output: Path, tmp_path: Path) -> None:
    before = files(tmp_path)
    found = look(data, output)
    assert (found.n_images, found.n_compute, found.compute, found.reused) == (16, 16, {"new": 16}, {})
    assert not found.up_to_date
    assert found.rate is not None
    assert found.seconds == pytest.approx(found.rate.start_seconds + 16 / found.rate.images_per_second)
    assert "first 16 of these images" in found.rate.reason
    assert files(tmp_path) == before


def test_an_unchanged_folder_needs_neither_network_nor_disk(data: Path, output: Path) -> None:
    run(data, output)
    network = FakeNetwork()
    found = look(data, output, network)
    assert found.up_to_date
    assert (found.n_compute, found.seconds, found.peak_bytes, found.rate) == (0, 0.0, 0, None)
    assert found.final_bytes == output.stat().st_size
    assert network.asked == 0


@pytest.mark.parametrize("keep_missing", [False, True])
def test_what_is_said_is_what_is_done(data: Path, output: Path, keep_missing: bool) -> None:
    run(data, output)
    picture(data / "ant" / "zz.png", 77)
    picture(data / "ant" / "000.png", 78)
    (data / "bee" / "000.png").rename(data / "bee" / "moved.png")
    os.utime(data / "bee" / "001.png")
    (data / "bee" / "002.png").unlink()
    shutil.copy(data / "ant" / "zz.png", data / "bee" / "copy.png")
    before = files(output.parent)
    found = look(data, output, keep_missing=keep_missing)
    assert files(output.parent) == before
    done = run(data, output, keep_missing=keep_missing)
    assert found.compute == done.computed == {"new": 1, "changed": 1}
    done.reused.pop("kept though missing", None)
    assert found.reused == done.reused
    assert (found.n_gone, found.keeps_gone) == (1, keep_missing)
    assert look(data, output, keep_missing=keep_missing).up_to_date


def test_rows_that_only_move_need_no_network(data: Path, output: Path) -> None:
    run(data, output)
    (data / "bee" / "000.png").rename(data / "bee" / "moved.png")
    found = look(data, output)
    assert (found.n_compute, found.up_to_date, found.rate) == (0, False, None)
    assert found.peak_bytes > 0


def test_an_interrupted_run_is_counted_and_its_damaged_shards_stay(data: Path, output: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "half.h5")
    parts = output.with_name(f".{output.name}.parts")
    parts.mkdir(parents=True)
    shutil.copy(tmp_path / "half.h5", parts / "0.h5")
    (parts / "1.h5").write_bytes(b"half a shard")
    picture(data / "ant" / "zz.png", 77)
    before = files(output.parent)
    found = look(data, output)
    assert (found.compute, found.reused) == ({"new": 1}, {"unchanged": 16})
    assert files(output.parent) == before


def test_a_cache_that_is_being_written_can_be_looked_at(data: Path, output: Path) -> None:
    with lock(output):
        assert look(data, output).n_compute == 16


def test_what_a_run_would_refuse_is_refused(data: Path, output: Path) -> None:
    run(data, output)
    network = FakeNetwork()
    network.made.recipe = replace(network.made.recipe, resize="pillow-antialias")
    with pytest.raises(RecipeMismatchError, match="overwrite=True"):
        look(data, output, network)
    assert look(data, output, network, overwrite=True).n_compute == 16


def test_weights_that_must_be_downloaded_first_are_left_alone(
    data: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = FakeNetwork()
    monkeypatch.setattr(network, "is_at_hand", lambda: False)
    found = look(data, output, network)
    assert (found.n_compute, found.seconds, network.asked) == (16, None, 0)
    assert "download" in found.no_rate_reason


def test_images_that_cannot_be_read_have_no_rate(tmp_path: Path, output: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_bytes(b"no")
    found = look(tmp_path / "bad", output)
    assert (found.seconds, found.no_rate_reason) == (None, "none of the images that would be computed can be read")


def test_a_row_is_as_large_as_those_that_exist_or_as_its_layer(data: Path, output: Path) -> None:
    recipe = VGG16.recipe(weights="custom", weights_sha256="0" * 64)
    assert VGG16.map_shape(recipe) == (7, 7, 512)
    assert VGG16.map_shape(replace(recipe, layer="block4_conv3", input_size_px=300)) == (37, 37, 512)
    rate = Rate(1.0, 1.0, 10_000.0, "")
    assert bytes_per_row(recipe, "zstd", [], rate) == (
        10_000 + 1472 * 4 + DESCRIPTION_BYTES,
        "measured on the first of these images, by zstd",
    )
    plain, _ = bytes_per_row(replace(recipe, storage="float32"), "none", [], None)
    assert plain > 7 * 7 * 512 * 4 + 1472 * 4
    assert bytes_per_row(replace(recipe, layer="block4_pool"), "zstd", [], None)[1].startswith("float16 at most")
    run(data, output)
    with open_cache(output) as cache:
        assert bytes_per_row(recipe, "zstd", [KnownRows.of_open(cache)], rate) == (
            output.stat().st_size / 16,
            "as the 16 rows that exist",
        )


def test_the_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert free_disk_bytes(tmp_path / "not" / "yet.h5") == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
