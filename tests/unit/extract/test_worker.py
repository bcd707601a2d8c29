"""The stages overlap, also from shard to shard; what waits between them is bounded; an error loses one shard at most."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import FakeBackbone
from headstart.cache.reader import open_cache
from headstart.errors import CacheError, ImageError
from headstart.extract import pipeline as worker
from headstart.extract import shard_jobs
from headstart.extract.pipeline import BATCHES_BEHIND, MAX_QUEUED_BATCHES, Pipeline
from headstart.extract.shard_jobs import Shard, ShardJob
from headstart.images import load as loading
from headstart.images.load import LoadedImage
from headstart.types import FeatureBatch, ImageRef, ImageRow

SIZE, BATCH, THREADS, N_IMAGES = 35, 4, 2, 120
AHEAD = loading.images_ahead(BATCH, ShardJob(Path(), (), decode_threads=THREADS))


def refs(n_images: int = N_IMAGES) -> list[ImageRef]:
    return [ImageRef(f"{number:04d}.png", None, None, None, 1, 1) for number in range(n_images)]


class Stages:
    """Stand-ins for the reader, the network and the writer that count what is between them, and can be held back.

    A stage that is slow goes on only when the others have done all that they can without it; if they do not get so far,
    the wait ends with an error.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.condition = threading.Condition()
        self.done: Counter[str] = Counter()
        self.alive: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.wait_before: dict[str, Callable[[], bool]] = {}
        self.act: dict[str, Callable[[], object]] = {}
        self.backbone = FakeBackbone(batch_size=BATCH)
        forward, append, publish = self.backbone.forward, shard_jobs.ShardWriter.append, shard_jobs.ShardWriter.__exit__

        def load(_root: Path, ref: ImageRef, **_options: Any) -> LoadedImage:
            self.enter("load")
            pixels = np.full((SIZE, SIZE, 3), int(ref.path[:4]) % 251, np.uint8)
            self.track("pixels", pixels, 1)
            self.leave("load", 1)
            return LoadedImage(pixels, ImageRow(ref, "0" * 64, 40, 30, ()))

        def compute(images: np.ndarray) -> FeatureBatch:
            self.enter("forward")
            batch = forward(images)
            self.track("features", batch.features, len(images))
            self.leave("forward", len(images))
            return batch

        def write(writer: Any, batch: FeatureBatch, rows: list[ImageRow]) -> None:
            self.enter("append")
            append(writer, batch, rows)
            self.leave("append", len(rows))

        def close(writer: Any, *error: Any) -> None:
            self.enter("publish")
            publish(writer, *error)

        monkeypatch.setattr(loading, "load_image", load)
        monkeypatch.setattr(self.backbone, "forward", compute)
        monkeypatch.setattr(shard_jobs.ShardWriter, "append", write)
        monkeypatch.setattr(shard_jobs.ShardWriter, "__exit__", close)

    def enter(self, stage: str) -> None:
        with self.condition:
            met = self.condition.wait_for(self.wait_before.get(stage, lambda: True), timeout=60)
        assert met, f"{stage} waited in vain: {self.done}"
        self.act.get(stage, lambda: None)()

    def leave(self, stage: str, n_images: int) -> None:
        with self.condition:
            self.done[stage] += n_images
            self.peak["read ahead"] = max(self.peak["read ahead"], self.done["load"] - self.done["forward"])
            self.condition.notify_all()

    def track(self, what: str, array: np.ndarray, n_images: int) -> None:
        """Count images whose array exists."""

        def gone() -> None:
            with self.condition:
                self.alive[what] -= n_images

        with self.condition:
            self.alive[what] += n_images
            self.peak[what] = max(self.peak[what], self.alive[what])
        weakref.finalize(array, gone)

    def run(self, folder: Path, shard_images: int = 10, threads: int = THREADS, **options: Any) -> list[Path]:
        job = ShardJob(folder, (), decode_threads=threads, stop_on_failure=True)
        images, bounds = refs(), range(0, N_IMAGES + shard_images, shard_images)
        shards = [Shard(folder / f"{start:04d}.h5", images[start:end]) for start, end in pairwise(bounds)]
        with closing(Pipeline(job, self.backbone, **options).run(shards)) as reports:
            return [report.path for report in reports]


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    return Stages(monkeypatch)


def paths(folder: Path) -> list[str]:
    """Paths of the images in the shards of a folder."""
    found = []
    for path in sorted(folder.iterdir()):
        with open_cache(path) as cache:
            found += cache.paths
    return found


def test_a_slow_device_finds_the_next_images_decoded_and_no_more_than_that(stages: Stages, tmp_path: Path) -> None:
    expected = MAX_QUEUED_BATCHES * BATCH + AHEAD - 1
    stages.wait_before["forward"] = lambda: stages.done["load"] >= min(N_IMAGES, stages.done["forward"] + expected)
    stages.run(tmp_path, shard_images=N_IMAGES)
    assert paths(tmp_path) == [ref.path for ref in refs()]
    assert stages.peak["pixels"] <= AHEAD + 2 * BATCH
    assert expected <= stages.peak["read ahead"] <= expected + BATCH


def test_a_slow_disk_is_no_reason_for_the_device_to_wait_until_the_features_would_fill_the_memory(
    stages: Stages, tmp_path: Path
) -> None:
    expected = (1 + BATCHES_BEHIND) * BATCH
    stages.wait_before["append"] = lambda: stages.done["forward"] >= min(N_IMAGES, stages.done["append"] + expected)
    stages.run(tmp_path, shard_images=N_IMAGES)
    assert paths(tmp_path) == [ref.path for ref in refs()]
    assert stages.peak["features"] <= expected + (1 + MAX_QUEUED_BATCHES) * BATCH
    assert stages.peak["pixels"] <= AHEAD + 2 * BATCH


def test_a_slow_reader_finds_that_all_it_has_read_is_written(stages: Stages, tmp_path: Path) -> None:
    stages.wait_before["load"] = lambda: stages.done["append"] >= stages.done["load"] // BATCH * BATCH
    stages.run(tmp_path, shard_images=10 * BATCH, threads=1)
    assert paths(tmp_path) == [ref.path for ref in refs()]
    assert stages.peak["pixels"] <= 2 * BATCH


def test_the_network_goes_on_with_the_next_shard_while_one_is_closed(stages: Stages, tmp_path: Path) -> None:
    stages.wait_before["publish"] = lambda: stages.done["forward"] >= min(N_IMAGES, stages.done["append"] + 2 * BATCH)
    assert len(stages.run(tmp_path, shard_images=BATCH)) == N_IMAGES // BATCH
    assert paths(tmp_path) == [ref.path for ref in refs()]


def test_large_features_do_not_pile_up() -> None:
    batch = FeatureBatch(np.empty((32, 224, 224, 64), np.float32), np.empty((32, 4), np.float32))
    assert worker.batches_behind(batch) == 1
    assert worker.batches_behind(FeatureBatch(batch.features[:1, :7, :7], batch.pooled[:1])) == BATCHES_BEHIND
    assert worker.batches_behind(None) == BATCHES_BEHIND


def test_an_image_that_stops_the_run_costs_its_own_shard_only(
    stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = loading.load_image

    def fail_at_25(root: Path, ref: ImageRef, **options: Any) -> LoadedImage:
        if ref.path == "0025.png":
            raise ImageError("empty file")
        return load(root, ref, **options)

    monkeypatch.setattr(loading, "load_image", fail_at_25)
    with pytest.raises(ImageError, match=r"0025\.png: empty file"):
        stages.run(tmp_path)
    assert paths(tmp_path) == [ref.path for ref in refs(20)]


@pytest.mark.parametrize("stage", ["forward", "append"])
def test_an_error_of_any_stage_costs_the_shards_that_are_not_closed(stages: Stages, tmp_path: Path, stage: str) -> None:
    def fail() -> None:
        if stages.done[stage] >= 24:
            raise CacheError("broken")

    stages.act[stage] = fail
    with pytest.raises(CacheError, match="broken"):
        stages.run(tmp_path)
    assert paths(tmp_path) == [ref.path for ref in refs(20)]


def test_who_asks_it_to_stop_gets_whole_shards_and_what_the_last_one_has(stages: Stages, tmp_path: Path) -> None:
    stop = threading.Event()
    stages.act["forward"] = lambda: stop.set() if stages.done["forward"] >= 24 else None
    reports = stages.run(tmp_path, stop=stop)
    assert [path.name for path in reports] == ["0000.h5", "0010.h5", "0020.h5"]
    assert paths(tmp_path) == [ref.path for ref in refs(28)]


def test_asked_to_stop_before_the_first_batch_there_is_no_file(stages: Stages, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    assert stages.run(tmp_path, stop=stop) == []
    assert not list(tmp_path.iterdir())
    report = worker.extract_shard(
        refs(4), tmp_path / "one.h5", job=ShardJob(tmp_path, ()), backbone=stages.backbone, stop=stop
    )
    assert (report.stopped, report.n_images, (tmp_path / "one.h5").exists()) == (True, 0, False)


def test_who_takes_no_more_reports_leaves_no_half_shard(stages: Stages, tmp_path: Path) -> None:
    job = ShardJob(tmp_path, (), decode_threads=THREADS)
    images = refs(60)
    shards = [Shard(tmp_path / f"{start}.h5", images[start : start + 30]) for start in (0, 30)]
    with closing(Pipeline(job, stages.backbone).run(shards)) as reports:
        assert next(reports).n_images == 30
    assert {path.suffix for path in tmp_path.iterdir()} == {".h5"}
    assert paths(tmp_path)[:30] == [ref.path for ref in images[:30]]


def test_times_are_of_the_whole_run(stages: Stages, tmp_path: Path) -> None:
    pipeline = Pipeline(ShardJob(tmp_path, (), decode_threads=THREADS), stages.backbone)
    list(pipeline.run([Shard(tmp_path / "a.h5", refs(8))]))
    times = pipeline.times
    assert (times.decode.threads, times.forward.threads, times.write.threads) == (THREADS, 1, 1)
    for stage in (times.decode, times.forward, times.write):
        assert 0 < times.share(stage) <= 1
    assert sum(s.awaited_seconds for s in (times.decode, times.forward, times.write)) <= times.seconds
