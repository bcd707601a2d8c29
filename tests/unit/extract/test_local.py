from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import FakeBackbone, FakeNetwork, QuickBackbone
from headstart.cache.reader import open_cache
from headstart.errors import CacheError, DataError, ImageError, RecipeMismatchError
from headstart.extract import output as destination
from headstart.extract import pipeline, shard_jobs
from headstart.extract import run as extraction
from headstart.extract.lock import lock
from headstart.extract.options import ExtractOptions
from headstart.extract.run import extract_features
from headstart.extract.summary import ExtractionSummary
from headstart.types import FeatureBatch, Silence
from pictures import class_folders, picture


def run(data: Path, output: Path, network: FakeNetwork | None = None, **options: Any) -> ExtractionSummary:
    options = {"shard_images": 10, "decode_threads": 2} | options
    return extract_features(data, output, options=ExtractOptions(**options), network=network or FakeNetwork())


def contents(path: Path) -> dict[str, tuple[Any, ...]]:
    """Everything that a cache says of each path."""
    with open_cache(path) as cache:
        batch = next(cache.batches(batch_rows=10_000))
        columns = zip(
            cache.paths, cache.sha256, cache.labels.tolist(), cache.splits, batch.features, batch.pooled, strict=True
        )
        return {p: (sha, label, split, f.tobytes(), q.tobytes()) for p, sha, label, split, f, q in columns}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "data", n_per_class=8)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "features" / "data.h5"


def test_every_image_is_a_row_with_its_own_features(data: Path, output: Path) -> None:
    summary = run(data, output)
    assert (summary.n_images, summary.n_computed, summary.failures) == (16, 16, ())
    with open_cache(output) as cache:
        assert cache.class_names == ("ant", "bee")
        assert cache.paths == sorted(cache.paths)
        assert [cache.class_names[label] for label in cache.labels] == [p.split("/")[0] for p in cache.paths]
        batch = next(cache.batches())
        expected = FakeBackbone()
        from headstart.images.discovery.scan import discover
        from headstart.images.load import load_image

        refs = discover(data).refs
        pixels = np.stack([load_image(data, r, size_px=35, resize_preset="keras-bilinear").pixels for r in refs])
        np.testing.assert_array_equal(batch.features, expected.forward(pixels).features.astype(np.float16))
    assert not list(output.parent.glob(".*.parts"))


def test_doubtful_classes_are_asked_about_before_an_image_is_computed(tmp_path: Path, output: Path) -> None:
    data = class_folders(tmp_path / "data", n_per_class=2, classes=("Cat", "cat"))
    said: list[str] = []

    class Listener(Silence):
        def message(self, text: str) -> None:
            said.append(text)

        def start(self, n_images: int) -> None:
            assert said[0].startswith("Cat, cat: the same class?")

    options = ExtractOptions(decode_threads=1)
    summary = extract_features(data, output, options=options, network=FakeNetwork(), progress=Listener())
    assert summary.to_dict()["notices"] == said


def test_the_same_rows_whatever_the_batch_and_shard_size(data: Path, output: Path, tmp_path: Path) -> None:
    run(data, output)
    run(data, tmp_path / "other.h5", FakeNetwork(batch_size=3), shard_images=7, decode_threads=1)
    assert contents(output) == contents(tmp_path / "other.h5")


def test_nothing_to_do_loads_no_network_and_leaves_the_file_alone(data: Path, output: Path) -> None:
    run(data, output)
    before = output.stat()
    network = FakeNetwork()
    summary = run(data, output, network)
    assert network.asked == 0
    assert summary.n_computed == 0
    assert summary.reused == {"unchanged": 16}
    assert (output.stat().st_mtime_ns, output.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_only_what_is_new_goes_through_the_network(data: Path, output: Path, tmp_path: Path) -> None:
    run(data, output)
    picture(data / "ant" / "new.png", seed=77)  # added
    picture(data / "ant" / "001.png", seed=78)  # changed
    (data / "ant" / "002.png").rename(data / "bee" / "moved.png")  # another path and label
    os.utime(data / "bee" / "003.png", ns=(1, 1))  # touched
    (data / "bee" / "004.png").unlink()  # deleted
    shutil.copy(data / "bee" / "005.png", data / "bee" / "copy.png")  # identical
    network = FakeNetwork()
    summary = run(data, output, network)
    assert summary.n_computed == 2
    assert network.made.n_images == 2
    assert summary.reused == {"unchanged": 12, "moved": 2, "touched": 1}
    run(data, tmp_path / "fresh.h5")
    assert contents(output) == contents(tmp_path / "fresh.h5")


def test_of_four_hundred_images_only_the_twenty_that_changed_or_came_are_computed(tmp_path: Path, output: Path) -> None:
    data = class_folders(tmp_path / "many", n_per_class=200)
    run(data, output, FakeNetwork(32, QuickBackbone), shard_images=256)
    paths = sorted(data.rglob("*.png"))
    for number in range(10):
        picture(paths[number], seed=5000 + number)  # changed
        picture(data / "bee" / f"new{number}.png", seed=6000 + number)  # added
        paths[100 + number].rename(data / "bee" / f"renamed{number}.png")
        paths[300 + number].unlink()
    network = FakeNetwork(32, QuickBackbone)
    summary = run(data, output, network, shard_images=256)
    assert (network.made.n_images, summary.n_computed, summary.n_images) == (20, 20, 400)
    assert summary.reused == {"unchanged": 370, "moved": 10}
    assert set(contents(output)) == {path.relative_to(data).as_posix() for path in data.rglob("*.png")}
    before = output.stat()
    network = FakeNetwork(32, QuickBackbone)
    assert run(data, output, network).reused == {"unchanged": 400}
    assert (network.asked, output.stat().st_mtime_ns, output.stat().st_ino) == (0, before.st_mtime_ns, before.st_ino)


def test_rows_of_images_that_are_gone_are_kept_where_that_is_asked_for(data: Path, output: Path) -> None:
    shutil.copytree(data / "bee", data / "cat")
    picture(data / "cat" / "only.png", seed=99)
    run(data, output)
    before = contents(output)
    shutil.rmtree(data / "cat")
    (data / "ant" / "000.png").unlink()
    (data / "ant" / "001.png").rename(data / "bee" / "moved.png")
    summary = run(data, output, keep_missing=True)
    assert summary.reused == {"unchanged": 14, "moved": 1, "kept though missing": 10}
    assert summary.class_names == ("ant", "bee", "cat")
    after = contents(output)
    assert list(after) == sorted(after)
    assert set(after) == set(before) - {"ant/001.png"} | {"bee/moved.png"}
    assert all(after[path] == before[path] for path in ("ant/000.png", "cat/only.png", "cat/000.png", "bee/000.png"))
    stamp = output.stat().st_mtime_ns
    assert run(data, output, keep_missing=True).n_images == 25
    assert output.stat().st_mtime_ns == stamp
    assert run(data, output).n_images == 15
    with pytest.raises(DataError, match="Give one of them"):
        run(data, output, keep_missing=True, overwrite=True)


def test_it_says_why_images_were_computed_and_what_was_ignored(data: Path, output: Path) -> None:
    (data / "ant" / "bad.png").write_bytes(b"bad")
    (data / "ant" / "notes.txt").write_text("x")
    (data / "ant" / ".hidden").write_text("x")
    summary = run(data, output)
    assert (summary.computed, summary.ignored, summary.hidden_count) == ({"new": 16}, ("ant/notes.txt",), 1)
    picture(data / "ant" / "bad.png", seed=50)
    picture(data / "ant" / "001.png", seed=51)
    picture(data / "ant" / "new.png", seed=52)
    assert run(data, output).computed == {"new": 1, "changed": 1, "unreadable before": 1}


def test_identical_files_are_computed_once(data: Path, output: Path) -> None:
    for i in range(3):
        shutil.copy(data / "ant" / "000.png", data / "bee" / f"copy{i}.png")
    network = FakeNetwork()
    summary = run(data, output, network)
    assert summary.n_images == 19
    assert network.made.n_images == 16
    rows = contents(output)
    assert rows["ant/000.png"][3:] == rows["bee/copy2.png"][3:]
    assert rows["ant/000.png"][1] != rows["bee/copy2.png"][1]


def test_a_bad_image_is_listed_and_the_others_are_kept(data: Path, output: Path) -> None:
    (data / "ant" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    (data / "ant" / "bad too.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    (data / "bee" / "empty.jpg").touch()
    summary = run(data, output)
    assert summary.n_images == 16
    with open_cache(output) as cache:
        failures = {failure.ref.path: failure.reason for failure in cache.failures}
    assert set(failures) == {"ant/bad.png", "ant/bad too.png", "bee/empty.jpg"}
    assert failures["bee/empty.jpg"] == "empty file"
    assert run(data, output).n_computed == 0


def test_a_bad_image_stops_the_run_where_that_is_asked_for(data: Path, output: Path) -> None:
    (data / "bee" / "empty.jpg").touch()
    with pytest.raises(ImageError, match=r"bee/empty\.jpg: empty file"):
        run(data, output, stop_on_failure=True)
    assert not output.exists()


def test_only_bad_images_are_an_error_without_a_network(tmp_path: Path, output: Path) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "1.jpg").write_bytes(b"x")
    network = FakeNetwork()
    with pytest.raises(DataError, match=r"Of 1 image in .* none could be read"):
        run(tmp_path / "data", output, network)
    assert network.asked == 0


def test_an_interrupted_run_goes_on_where_it_stopped(data: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = FakeBackbone.forward

    def die_at_the_third_batch(self: FakeBackbone, images: np.ndarray) -> FeatureBatch:
        if self.n_images >= 8:
            raise KeyboardInterrupt
        return forward(self, images)

    monkeypatch.setattr(FakeBackbone, "forward", die_at_the_third_batch)
    with pytest.raises(KeyboardInterrupt):
        run(data, output)
    assert not output.exists()
    monkeypatch.setattr(FakeBackbone, "forward", forward)
    network = FakeNetwork()
    summary = run(data, output, network)
    assert summary.n_images == 16
    assert network.made.n_images == 16 - 5  # one shard of five was whole
    assert not list(output.parent.glob(".*.parts"))


def test_asked_to_stop_it_keeps_what_it_has(data: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = FakeBackbone.forward
    stops: list[threading.Event] = []
    original = extraction.stop_on_signals

    @contextmanager
    def remember() -> Iterator[threading.Event]:
        with original() as stop:
            stops.append(stop)
            yield stop

    def stop_at_once(self: FakeBackbone, images: np.ndarray) -> FeatureBatch:
        if not stops[-1].is_set():  # a second signal would end this process
            os.kill(os.getpid(), 15)
        assert stops[-1].wait(60)  # the handler runs in the main thread
        return forward(self, images)

    monkeypatch.setattr(extraction, "stop_on_signals", remember)
    monkeypatch.setattr(FakeBackbone, "forward", stop_at_once)
    summary = run(data, output)
    assert summary.interrupted
    assert summary.n_computed == 4
    assert not output.exists()
    monkeypatch.setattr(FakeBackbone, "forward", forward)
    assert run(data, output).n_computed == 12


def test_a_damaged_shard_is_computed_again(data: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination, "merge", lambda *_args, **_options: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        run(data, output)
    monkeypatch.undo()
    shards = sorted(next(output.parent.glob(".*.parts")).iterdir())
    shards[1].write_bytes(shards[1].read_bytes()[:-500])
    assert run(data, output).n_computed == 5
    assert len(contents(output)) == 16


def test_another_recipe_is_refused_with_its_field(data: Path, output: Path) -> None:
    run(data, output)
    network = FakeNetwork()
    network.made.recipe = network.made.recipe.__class__.from_json(
        network.made.recipe.to_json().replace('"keras-bilinear"', '"pillow-antialias"')
    )
    with pytest.raises(RecipeMismatchError, match=r"resize: keras-bilinear ≠ pillow-antialias.*overwrite=True"):
        run(data, output, network)
    assert run(data, output, network, overwrite=True).n_computed == 16


def test_a_second_writer_is_refused(data: Path, output: Path) -> None:
    with lock(output), pytest.raises(CacheError, match="is being written by process"):
        run(data, output)


def test_the_worker_computes_full_batches_in_spite_of_failures(data: Path, output: Path, tmp_path: Path) -> None:
    from headstart.images.discovery.scan import discover

    (data / "ant" / "0000.png").write_bytes(b"bad")
    sizes: list[int] = []

    class Counting(FakeBackbone):
        def forward(self, images: np.ndarray) -> FeatureBatch:
            sizes.append(len(images))
            return super().forward(images)

    images = discover(data)
    report = pipeline.extract_shard(
        images.refs, tmp_path / "shard.h5", job=shard_jobs.ShardJob(data, images.class_names), backbone=Counting()
    )
    assert sizes == [4, 4, 4, 4]
    assert (report.n_images, len(report.failures)) == (16, 1)
