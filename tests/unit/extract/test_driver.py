"""Memory of the driver of a cluster, image by image: the whole of its way, with workers that compute nothing."""

from __future__ import annotations

import gc
import hashlib
import tracemalloc
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from caches import RECIPE
from headstart.cache.reader import open_cache
from headstart.cache.writer import ShardWriter
from headstart.extract import run as extraction
from headstart.extract.options import ExtractOptions
from headstart.extract.ray_engine import Answer, RayEngine, WorkerPool
from headstart.extract.run import extract_features
from headstart.extract.shard_jobs import Shard, ShardJob, ShardReport
from headstart.types import FeatureBatch, ImageRow, Recipe

pytestmark = pytest.mark.slow

#: Bytes an image at most that a driver holds at its peak: 0.75 GiB of a million, beside what starts any of them.
LIMIT = 800

FEW, MANY = 2_000, 5_000


class Recipes:
    """Stands in for a network: nothing but its recipe."""

    def wanted(self, existing: Recipe | None) -> Recipe:
        return RECIPE


class Remote:
    """Something that is called as Ray calls a method of an actor."""

    def __init__(self, call: Any) -> None:
        self.remote = call


class Handle:
    """An actor in this process, whose shards hold features of two numbers."""

    def __init__(self, job: ShardJob) -> None:
        self.job = job
        self.place, self.extract = Remote(lambda: None), Remote(self.write)
        self.choose = Remote(lambda refs: (RECIPE, "float32: none"))

    def write(self, shard: Shard, recipe: Recipe, info: dict[str, str]) -> ShardReport:
        rows = [ImageRow(ref, hashlib.sha256(ref.path.encode()).hexdigest(), 640, 480) for ref in shard.refs]
        batch = FeatureBatch(np.ones((len(rows), 1, 1, 2), np.float32), np.ones((len(rows), 1), np.float32))
        with ShardWriter(shard.path, recipe=recipe, class_names=self.job.class_names, info=info) as writer:
            writer.append(batch, rows)
        return ShardReport(shard.path, len(rows))


class Desk(WorkerPool):
    """A pool whose actors answer when they are asked."""

    def answers(self) -> list[Answer]:
        found = []
        for actor in self.actors:
            actor.arrival = None
            if actor.work is not None:
                (value, task), actor.work = actor.work, None
                found.append(Answer(task, "node", value))
        return found


class DeskEngine(RayEngine):
    """The engine of a cluster, but for the cluster."""

    def __enter__(self) -> Self:
        self._pool = Desk(lambda: Handle(self.job), 2)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing."""


def make_images(folder: Path, n_images: int) -> Path:
    for number in range(n_images):
        path = folder / f"class {number % 10}" / f"IMG_{number:08}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%08d" % number)  # of one size: the plan looks at the digest of each
    return folder


def peak_bytes(data: Path) -> int:
    """Return the peak of what Python and NumPy allocate for an extraction."""
    gc.collect()
    tracemalloc.start()
    try:
        output = data.with_suffix(".h5")
        extract_features(data, output, options=ExtractOptions(engine="ray"), network=Recipes())  # type: ignore[arg-type]
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.alone
def test_a_driver_holds_few_bytes_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "make_engine", lambda network, job, options, *_: DeskEngine(network, job, options))
    peak_bytes(make_images(tmp_path / "first", 300))  # imports, and what is made once
    few, many = (peak_bytes(make_images(tmp_path / str(n), n)) for n in (FEW, MANY))
    with open_cache(tmp_path / f"{MANY}.h5") as cache:
        assert cache.n_images == MANY
    print((many - few) / (MANY - FEW))
    assert (many - few) / (MANY - FEW) < LIMIT
