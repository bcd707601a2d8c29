"""On a device that works beside the program a batch is started before the features of the former are fetched."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import FakeBackbone
from headstart.cache.reader import open_cache
from headstart.errors import HeadstartError
from headstart.extract.pipeline import MAX_QUEUED_BATCHES, InferenceQueue, Pipeline, extract_shard
from headstart.extract.shard_jobs import Batch, Shard, ShardJob
from headstart.images.discovery.scan import discover
from headstart.images.load import StageTime
from headstart.types import FeatureBatch
from pictures import class_folders

BATCH, N_IMAGES = 4, 40


class Device(FakeBackbone):
    """Computes in a thread of its own, and gives its features back only where ``may_fetch`` says so.

    ``events`` are the batches that were started (their number) and fetched (minus their number), from 1 on.
    """

    def __init__(self) -> None:
        super().__init__(batch_size=BATCH)
        self.condition = threading.Condition()
        self.events: list[int] = []
        self.may_fetch: Callable[[int], bool] = lambda number: True
        self.fail_at: dict[int, Exception] = {}

    @property
    def n_started(self) -> int:
        return sum(event > 0 for event in self.events)

    @property
    def in_flight(self) -> int:
        return sum(1 if event > 0 else -1 for event in self.events)

    def tell(self, event: int) -> None:
        with self.condition:
            self.events.append(event)
            self.condition.notify_all()

    def start(self, images: np.ndarray) -> Callable[[], FeatureBatch]:
        number = self.n_started + 1
        self.tell(number)

        def fetch() -> FeatureBatch:
            with self.condition:
                assert self.condition.wait_for(lambda: self.may_fetch(number), timeout=60), self.events
            self.tell(-number)
            if number in self.fail_at:
                raise self.fail_at[number]
            return self.forward(images)

        return fetch


@pytest.fixture
def refs(tmp_path: Path) -> list[Any]:
    return list(discover(class_folders(tmp_path / "data", n_per_class=N_IMAGES // 2)).refs)


def contents(path: Path) -> list[tuple[Any, ...]]:
    with open_cache(path) as cache:
        batch = next(cache.batches(batch_rows=1000))
        return [
            (p, f.tobytes(), q.tobytes()) for p, f, q in zip(cache.paths, batch.features, batch.pooled, strict=True)
        ]


def extract(refs: list[Any], root: Path, device: FakeBackbone, **options: Any) -> list[Path]:
    job = ShardJob(root / "data", ("ant", "bee"))
    shards = [Shard(root / f"{start:02d}.h5", refs[start : start + 8]) for start in range(0, len(refs), 8)]
    with closing(Pipeline(job, device, **options).run(shards)) as reports:
        return [report.path for report in reports]


def test_the_next_batch_is_started_before_the_features_of_the_former_are_fetched(
    refs: list[Any], tmp_path: Path
) -> None:
    device, n_batches, most = Device(), N_IMAGES // BATCH, []
    device.may_fetch = lambda number: most.append(device.in_flight) or device.n_started > number or number == n_batches
    assert len(extract(refs, tmp_path, device, max_unpublished=16)) == N_IMAGES // 8
    assert [event for event in device.events if event > 0] == list(range(1, n_batches + 1))
    assert [-event for event in device.events if event < 0] == list(range(1, n_batches + 1))
    assert max(most) == MAX_QUEUED_BATCHES


def test_rows_are_those_of_a_network_that_computes_at_once(refs: list[Any], tmp_path: Path) -> None:
    beside = extract(refs, tmp_path, Device())
    found = [contents(path) for path in beside]
    assert found == [contents(path) for path in extract(refs, tmp_path, FakeBackbone(batch_size=BATCH))]


def test_what_a_crash_costs_is_bounded_with_batches_in_flight(refs: list[Any], tmp_path: Path) -> None:
    """A batch is started only where all that is not published, with it, is within the bound: whole shards here."""
    device, seen = Device(), []
    start = device.start

    def noted(images: np.ndarray) -> Callable[[], FeatureBatch]:
        n_published = 8 * len([*tmp_path.glob("[0-9]*.h5")])
        seen.append(device.n_started * BATCH + len(images) - n_published)
        return start(images)

    device.start = noted  # type: ignore[method-assign]
    extract(refs, tmp_path, device, max_unpublished=8)
    assert max(seen) <= 8


def test_an_error_of_a_batch_in_flight_costs_its_own_shard_and_those_behind_it(refs: list[Any], tmp_path: Path) -> None:
    device = Device()
    device.fail_at[5] = HeadstartError("broken")  # the first batch of the third shard
    device.may_fetch = lambda number: number != 5 or device.n_started > 5
    with pytest.raises(HeadstartError, match="broken"):
        extract(refs, tmp_path, device)
    assert sorted(path.name for path in tmp_path.glob("*.h5")) == ["00.h5", "08.h5"]


def test_asked_to_stop_what_is_in_flight_is_kept(refs: list[Any], tmp_path: Path) -> None:
    device, stop = Device(), threading.Event()

    def may_fetch(number: int) -> bool:
        if number == 3 and device.n_started > 3:
            stop.set()
        return number < 3 or stop.is_set()

    device.may_fetch = may_fetch
    extract(refs, tmp_path, device, stop=stop)
    assert device.in_flight == 0
    assert sum(len(contents(path)) for path in tmp_path.glob("*.h5")) == BATCH * device.n_started == 16


def test_one_shard_alone(refs: list[Any], tmp_path: Path) -> None:
    device = Device()
    report = extract_shard(refs, tmp_path / "x.h5", job=ShardJob(tmp_path / "data", ("ant", "bee")), backbone=device)
    assert (report.n_images, device.in_flight) == (N_IMAGES, 0)


def test_time_in_the_network_is_counted_once_where_batches_overlap() -> None:
    """Two batches, started at 1 and 2, fetched at 5 and 7: six seconds."""
    clock = iter([1.0, 2.0, 5.0, 7.0])
    both, device, time = threading.Event(), Device(), StageTime()
    device.may_fetch = lambda _number: both.is_set()
    batch = Batch(None, np.zeros((1, 35, 35, 3), np.uint8), [], [])  # type: ignore[arg-type]
    queue = InferenceQueue(device, lambda _batch, features: len(features or ()), time, threading.Event())
    queue._clock = lambda: next(clock)
    with queue:
        queue.submit(batch)
        queue.submit(batch)
        with device.condition:
            assert device.condition.wait_for(lambda: device.n_started == 2, timeout=60)
            both.set()
            device.condition.notify_all()
    assert [future.result() for future in queue._pending] == [1, 1]
    assert time.busy_seconds == 6.0
