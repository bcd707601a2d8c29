"""``--layout shards``: the folder says what the file says, and updates, resumes and refuses like it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import FakeNetwork
from headstart.cache.reader import open_cache
from headstart.cache.shards import MANIFEST
from headstart.errors import CacheError, HeadstartError
from headstart.extract import estimate
from headstart.extract.estimate import forecast_extraction
from headstart.extract.options import ExtractOptions
from headstart.extract.run import default_output, extract_features
from headstart.extract.summary import ExtractionSummary
from headstart.types import Silence
from pictures import class_folders, picture

pytestmark = pytest.mark.slow


def run(data: Path, output: Path, network: FakeNetwork | None = None, **options: Any) -> ExtractionSummary:
    options = {"shard_images": 10, "decode_threads": 2, "cache_layout": "shards"} | options
    return extract_features(data, output, options=ExtractOptions(**options), network=network or FakeNetwork())


def said(path: Path) -> list[Any]:
    """All that a cache says, but the sizes and times that belong to the file."""
    with open_cache(path) as cache:
        batch = next(cache.batches(batch_rows=10_000))
        return [
            cache.recipe, cache.class_names, cache.layout, dict(cache.info), cache.refs(), cache.failures,
            list(cache.rows.notes), cache.sha256, list(cache.rows.features_sha256), cache.rows.width_px.tolist(),
            cache.labels.tolist(), batch.features.tobytes(), batch.pooled.tobytes(),
        ]  # fmt: skip


def shards(output: Path) -> dict[str, int]:
    """Name → inode of the shards of a folder."""
    return {path.name: path.stat().st_ino for path in output.glob("*.h5")}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "data", n_per_class=8)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "features" / "data"


@pytest.mark.parametrize("options", [{}, {"shard_images": 7, "decode_threads": 1}, {"compression": "gzip"}])
def test_both_layouts_hold_identical_rows(data: Path, output: Path, options: dict[str, Any]) -> None:
    (data / "ant" / "broken.jpg").write_bytes(b"no image")
    shutil.copy(next((data / "ant").glob("*.png")), data / "bee" / "copy.png")
    first, second = run(data, output, **options), run(data, output.with_suffix(".h5"), cache_layout="file")
    assert (first.n_images, first.n_computed, len(first.failures)) == (17, 16, 1)
    assert (second.n_images, second.n_computed) == (17, 16)
    assert said(output) == said(output.with_suffix(".h5"))
    assert len(shards(output)) > 1


def test_nothing_is_written_where_nothing_changed(data: Path, output: Path) -> None:
    run(data, output)
    before = {path.name: path.stat() for path in output.iterdir()}
    network = FakeNetwork()
    assert run(data, output, network).n_computed == 0
    assert network.asked == 0
    assert {path.name: path.stat() for path in output.iterdir()} == before


def test_an_update_computes_what_is_new_and_keeps_the_files_that_are_needed(data: Path, output: Path) -> None:
    run(data, output)
    before = shards(output)
    images = sorted((data / "ant").iterdir())
    picture(data / "ant" / "new.png", seed=91)
    picture(images[0], seed=92)  # changed
    images[1].unlink()
    images[2].rename(data / "bee" / "moved.png")  # another class
    network = FakeNetwork()
    summary = run(data, output, network, cache_layout="auto")
    assert (summary.n_images, summary.n_computed, network.made.n_images) == (16, 2, 2)
    assert before.items() <= shards(output).items()
    assert len(shards(output)) == len(before) + 1
    run(data, output.with_suffix(".h5"), cache_layout="file")
    assert said(output) == said(output.with_suffix(".h5"))


def test_a_shard_without_a_row_that_is_needed_goes_once_the_manifest_is_there(data: Path, output: Path) -> None:
    run(data, output)
    before = shards(output)
    for image in (data / "ant").iterdir():
        image.unlink()
    picture(data / "ant" / "one.png", seed=93)
    run(data, output)
    gone = before.keys() - shards(output).keys()
    assert gone
    assert said(output)


def test_the_manifest_comes_last_and_the_old_shards_go_after_it(
    data: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data, output)
    before = said(output)
    shutil.rmtree(data / "ant")
    picture(data / "wasp" / "one.png", seed=94)
    replace = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if Path(target).name == MANIFEST:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(CacheError, match="No space left"):
        run(data, output)
    assert said(output) == before
    monkeypatch.setattr(Path, "replace", replace)
    network = FakeNetwork()
    assert run(data, output, network).n_computed == 0  # what was computed is there
    assert network.made.n_images == 0
    run(data, output.with_suffix(".h5"), cache_layout="file")
    assert said(output) == said(output.with_suffix(".h5"))


def test_overwrite_computes_all_anew_and_leaves_the_old_cache_until_then(
    data: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data, output)
    before, old = said(output), shards(output)

    def broken(*args: object, **options: object) -> None:
        assert old.items() <= shards(output).items()
        assert said(output) == before
        raise CacheError("stop here")

    with monkeypatch.context() as patch:
        patch.setattr("headstart.extract.output.publish_shards", broken)
        with pytest.raises(CacheError, match="stop here"):
            run(data, output, overwrite=True)
    network = FakeNetwork()
    run(data, output, network, overwrite=True)
    assert said(output) == before
    assert not old.keys() & shards(output).keys()


def test_overwrite_replaces_a_folder_whose_manifest_is_damaged(data: Path, output: Path) -> None:
    run(data, output)
    before = said(output)
    (output / MANIFEST).write_bytes(b"\x89HDF\r\n\x1a\n\x03" + bytes(100))
    with pytest.raises(CacheError, match="overwrite=True"):
        run(data, output)
    run(data, output, overwrite=True)
    assert said(output) == before


def test_new_shards_are_compressed_as_the_old_ones(data: Path, output: Path) -> None:
    run(data, output, compression="gzip")
    picture(data / "ant" / "new.png", seed=95)
    run(data, output)
    for shard in output.glob("*.h5"):
        with open_cache(shard) as cache:
            assert cache.compression == "gzip"


def test_names_of_new_shards_sort_behind_those_that_are_there_whatever_the_clock_says(
    data: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data, output)
    before = shards(output)
    picture(data / "ant" / "new.png", seed=96)
    monkeypatch.setattr("time.time_ns", lambda: int(min(before)[:20]))
    run(data, output)
    assert before.items() <= shards(output).items()
    assert max(shards(output)) not in before


def test_a_damaged_shard_that_was_left_is_said_and_computed_again(data: Path, output: Path) -> None:
    told: list[str] = []

    class Listening(Silence):
        def message(self, text: str) -> None:
            told.append(text)

    run(data, output)
    (output / MANIFEST).unlink()  # as if the run had ended before it
    last = max(output.glob("*.h5"))
    last.write_bytes(last.read_bytes()[:-10])
    network, progress = FakeNetwork(), Listening()
    options = ExtractOptions(shard_images=10, decode_threads=2, cache_layout="shards")
    summary = extract_features(data, output, options=options, network=network, progress=progress)
    assert 0 < network.made.n_images == summary.n_computed < 16
    assert any("not whole" in text for text in told)
    assert summary.n_images == 16


@pytest.mark.parametrize("layout", ["shards", "auto"])
def test_a_missing_shard_is_refused(data: Path, output: Path, layout: str) -> None:
    run(data, output)
    next(output.glob("*.h5")).unlink()
    with pytest.raises(CacheError, match="is missing"):
        run(data, output, cache_layout=layout)


def test_a_folder_of_other_things_is_never_written_into(data: Path) -> None:
    before = sorted(data.rglob("*"))
    with pytest.raises(CacheError, match=r"holds other things \(ant\)"):
        run(data, data)
    assert sorted(data.rglob("*")) == before


def test_a_file_does_not_become_a_folder_nor_a_folder_a_file(data: Path, output: Path) -> None:
    run(data, output)
    with pytest.raises(CacheError, match="is a folder of shards"):
        run(data, output, cache_layout="file")
    run(data, output.with_suffix(".h5"), cache_layout="file")
    with pytest.raises(CacheError, match="is a file"):
        run(data, output.with_suffix(".h5"))
    with pytest.raises(HeadstartError, match="Unknown layout"):
        run(data, output, cache_layout="zarr")


def test_the_default_name(data: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(output.parent.parent)
    assert default_output(data) == Path("features/data.h5")
    assert default_output(data, "shards") == Path("features/data")
    run(data, output)
    assert default_output(data) == Path("features/data")
    assert default_output(data, "file") == Path("features/data.h5")
    run(data, output.with_suffix(".h5"), cache_layout="file")
    assert default_output(data) == Path("features/data.h5")


def test_a_forecast_of_a_folder_counts_no_copy(data: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "MEASURED_SECONDS", 0.0)
    options = {"shard_images": 10, "decode_threads": 2, "network": FakeNetwork()}
    folder = forecast_extraction(data, output, cache_layout="shards", **options)
    file = forecast_extraction(data, output.with_suffix(".h5"), **options)
    assert folder.peak_bytes < file.peak_bytes
    assert not output.exists()
    run(data, output)
    assert forecast_extraction(data, output, **options).up_to_date


def test_missing_images_are_kept_on_request(data: Path, output: Path) -> None:
    run(data, output)
    with open_cache(output) as cache:
        paths = cache.paths
    next((data / "ant").iterdir()).unlink()
    run(data, output, keep_missing=True)
    with open_cache(output) as cache:
        assert cache.paths == paths


def test_a_batch_over_all_shards_equals_rows_one_by_one(data: Path, output: Path) -> None:
    run(data, output, shard_images=2)
    assert len(shards(output)) == 16
    with open_cache(output) as cache:
        rows = np.random.default_rng(0).permutation(cache.n_images)
        whole = next(cache.batches(rows))
        single = [next(cache.batches([row])).features[0] for row in rows.tolist()]
        assert np.array_equal(whole.features, np.stack(single))
