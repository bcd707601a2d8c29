"""Shards: the images that go into one file, the file while it is written, and the queue from which workers take images."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.cache.writer import ShardWriter
from headstart.images.decode import TOLD_NOTES
from headstart.images.load import ReadOptions
from headstart.storage.bucket import Address
from headstart.types import Backbone, Failure, FeatureBatch, ImageRef, ImageRow, Recipe

#: Images in one file, so many as a crash costs at most: some seconds of work on a CPU.
SHARD_IMAGES = 256


@dataclass(frozen=True, slots=True)
class ShardJob(ReadOptions):
    """What is the same for every shard of a run."""

    class_names: tuple[str, ...]  # names of the classes, in the order of the labels
    compression: str = "zstd"  # ``zstd``, ``gzip`` or ``none``
    shards_at: Address | None = None  # where workers put their shards that cannot write to the folder of the driver


@dataclass(frozen=True, slots=True)
class Shard:
    """Images that go into one file, one at least, in the order of its rows."""

    path: Path
    refs: Sequence[ImageRef]


@dataclass(slots=True)
class ShardReport:
    """The result of one shard."""

    path: Path  # the file, which is whole
    n_images: int = 0  # rows written
    failures: list[Failure] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)  # images per note that is reported (images/load.py)
    stopped: bool = False  # whether the shard ends before its last image, since the run was stopped


@dataclass(frozen=True, slots=True)
class Batch:
    """Images that go through the network together."""

    file: ShardFile  # where their features go
    pixels: NDArray[np.uint8] | None  # RGB, shape (n_images, size_px, size_px, 3); None if no image could be read
    rows: list[ImageRow]
    failures: list[Failure]  # images that could not be read

    @property
    def n_images(self) -> int:
        """Number of images, including those that could not be read."""
        return len(self.rows) + len(self.failures)


class ShardFile:
    """The file of a shard while one thread writes it; it appears whole after its last batch, or not at all."""

    def __init__(self, shard: Shard, job: ShardJob, backbone: Backbone, info: Mapping[str, str] | None) -> None:
        self.report = ShardReport(shard.path)
        self._n_refs = len(shard.refs)
        self._writer = ShardWriter(
            shard.path, recipe=backbone.recipe, class_names=job.class_names, compression=job.compression, info=info
        )
        self._open = ExitStack()
        self._opened = self._published = False

    def append(self, batch: Batch, features: FeatureBatch | None) -> ShardReport | None:
        """Write a batch; return the report if it was the last one. An error discards the file."""
        report = self.report
        with self._open as stack:
            if not self._opened:
                self._opened = True
                stack.enter_context(self._writer)
            for failure in batch.failures:
                self._writer.add_failure(failure)
            if features is not None:
                self._writer.append(features, batch.rows)
            report.failures += batch.failures
            report.n_images += len(batch.rows)
            report.notes.update(note for row in batch.rows for note in row.notes if note in TOLD_NOTES)
            self._open = stack.pop_all()
        return self.publish() if self.n_done == self._n_refs else None

    def publish(self) -> ShardReport | None:
        """Let the file appear with its rows so far, and return the report; None if there are none, or it is published."""
        if self._published or not self.n_done:
            return None
        self._published = True
        self.report.stopped = self.n_done < self._n_refs
        self._open.close()
        return self.report

    def discard(self) -> None:
        """Remove the file, unless it is published."""
        with suppress(_DiscardedError), self._open:
            raise _DiscardedError

    @property
    def n_done(self) -> int:
        """Images written and failures listed."""
        return self.report.n_images + len(self.report.failures)


class _DiscardedError(Exception):
    """Ends a shard that is discarded."""


#: Worker exits over the same images after which these are divided, and a single one is recorded as a failure.
MAX_EXITS = 2

#: Worker exits in a row, per worker and without a finished shard, after which a run ends. An image that ends every process
#: causes four: two over its shard, one over the part, one over itself.
MAX_EXITS_IN_A_ROW = 8

#: Images among which a worker looks for decodable ones to choose the precision by.
CHOICE_IMAGES = 256

#: Parts into which a shard is divided: of 256 images, two divisions lead to a single one.
PARTS = 16


@dataclass(frozen=True, slots=True)
class Task:
    """A shard that waits for a worker, or is being computed."""

    shard: Shard
    exits: int = 0  # workers that exited while they computed it


class Tasks:
    """Queue of shards that wait for a worker; those over which one exited come first."""

    def __init__(self, shards: Iterable[Shard]) -> None:
        self._again: deque[Task] = deque()
        self._rest = iter(shards)

    def __bool__(self) -> bool:
        """Return whether anything waits."""
        if not self._again:
            self._again.extend(Task(shard) for shard in islice(self._rest, 1))
        return bool(self._again)

    @property
    def is_suspect(self) -> bool:
        """Whether a worker has exited over the next task."""
        return bool(self) and self._again[0].exits > 0

    def next(self) -> Task:
        """Remove and return the next task."""
        if not self:
            raise IndexError("Nothing waits.")
        return self._again.popleft()

    def put_back(self, task: Task) -> Shard | None:
        """Queue a task again whose worker exited, divided after ``MAX_EXITS``; return a single image that is given up."""
        again = replace(task, exits=task.exits + 1)
        if again.exits < MAX_EXITS:
            self._again.append(again)
        elif len(again.shard.refs) > 1:
            self._again.extend(divided(again))
        else:
            return again.shard
        return None


def to_choose_by(refs: Sequence[ImageRef]) -> Tasks:
    """Return parts of the images; a worker chooses the precision on the first part with decodable images."""
    starts = range(0, len(refs), CHOICE_IMAGES)
    return Tasks(Shard(Path("none"), refs[start : start + CHOICE_IMAGES]) for start in starts)


def divided(task: Task) -> Iterator[Task]:
    """Yield the parts of a shard in files of their own; the next exit over one of them divides it again."""
    refs, path = task.shard.refs, task.shard.path
    size = -(-len(refs) // PARTS)
    for number, start in enumerate(range(0, len(refs), size)):
        name = f"{path.stem}-{number:02d}{path.suffix}"
        yield Task(Shard(path.with_name(name), refs[start : start + size]), MAX_EXITS - 1)


def given_up(shard: Shard, recipe: Recipe, job: ShardJob) -> ShardReport:
    """Write a shard that records its only image as a failure."""
    failure = Failure(shard.refs[0], f"The process that decoded it exited without an error, {MAX_EXITS} times.")
    with ShardWriter(shard.path, recipe=recipe, class_names=job.class_names, compression=job.compression) as writer:
        writer.add_failure(failure)
    return ShardReport(shard.path, failures=[failure])
