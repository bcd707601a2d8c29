"""The pipeline that computes shards: decode, forward pass, write. The same on one machine and on a cluster."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import chain, islice, tee
from pathlib import Path
from typing import Any

import numpy as np

from headstart.errors import ImageError, StorageError
from headstart.extract.shard_jobs import Batch, Shard, ShardFile, ShardJob, ShardReport
from headstart.images.load import RunTimes, Stage, StageTime, decoded, grouped, images_ahead
from headstart.types import Backbone, FeatureBatch, ImageRef

#: Batches in the inference queue at most: one that is computed or copied back, and the next one.
MAX_QUEUED_BATCHES = 2


class InferenceQueue(Stage):
    """Queue of batches that go through a network in order. One thread starts them, another fetches their features.

    On a device that computes asynchronously (a GPU), the next batch is started before the features of the previous one
    are fetched, so that the device never waits for a copy. ``done`` is called in the fetching thread with a batch and its
    features (None if no image of it could be read), and returns the result of the batch. ``time`` receives the time in
    which at least one batch was in the network. Once ``stop`` is set, no batch is started, and the remaining results are
    None. At the end of the ``with`` block, started batches are fetched and the others are dropped.
    """

    def __init__(
        self,
        backbone: Backbone,
        done: Callable[[Batch, FeatureBatch | None], Any],
        time: StageTime,
        stop: threading.Event,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__("fetch", 1, time, finish=True, clock=clock)
        self._backbone, self._done, self._stop = backbone, done, stop
        self._starter, self._last_end = ThreadPoolExecutor(1, "forward"), 0.0

    def submit(self, batch: Batch) -> None:  # type: ignore[override]
        """Queue a batch."""
        sent = self._starter.submit(self._start, batch)
        self._pending.append(self._pool.submit(self._fetch, batch, sent))

    def _start(self, batch: Batch) -> tuple[float, Callable[[], FeatureBatch | None]] | None:
        """Return the time at which a batch was started, and a callable that waits for its features."""
        if self._stop.is_set():
            return None
        begin = self._clock()
        return begin, (lambda: None) if batch.pixels is None else self._backbone.start(batch.pixels)

    def _fetch(self, batch: Batch, sent: Future[tuple[float, Callable[[], FeatureBatch | None]] | None]) -> Any | None:
        found = sent.result()
        if found is None:
            return None
        begin, fetch = found
        features = fetch()
        end = self._clock()
        self.time.busy_seconds += end - max(begin, self._last_end)
        self._last_end = end
        return self._done(batch, features)

    def __exit__(self, *error: Any) -> None:
        self._starter.shutdown(wait=True, cancel_futures=True)
        super().__exit__(*error)


#: Features that may wait for the disk, in bytes and in batches: a slow moment of the disk does not stop the network.
BYTES_BEHIND, BATCHES_BEHIND = 256 * 2**20, 8


class Pipeline:
    """The stages of a run, across shards: decoding ahead in threads, the network, compression and writing in a thread.

    The number of images between two stages is bounded, so memory does not grow when one stage is slow. Once ``stop`` is
    set, the run ends after the current batch, and an unfinished shard keeps its rows. ``on_images`` is called with the
    number of images finished since the last call, failures included. At most ``max_unpublished`` images, and not less
    than the largest shard, have gone into the network before their file is published: the cost of a crash. ``info`` is
    provenance for the files; ``times`` receives the times of the stages.
    """

    def __init__(
        self,
        job: ShardJob,
        backbone: Backbone,
        *,
        info: Mapping[str, str] | None = None,
        stop: threading.Event | None = None,
        on_images: Callable[[int], None] = lambda _n: None,
        times: RunTimes | None = None,
        max_unpublished: int | None = None,
    ) -> None:
        self.job, self.backbone, self.info = job, backbone, info
        self._max_unpublished, self._n_unpublished = max_unpublished or sys.maxsize, 0
        self.stop, self.on_images = stop or threading.Event(), on_images
        self.times = times or RunTimes()
        self._forward = InferenceQueue(backbone, self._write_behind, self.times.forward, self.stop)
        self._write = Stage("write", 1, self.times.write, finish=True)
        self._last: ShardFile | None = None

    def run(self, shards: Iterable[Shard]) -> Generator[ShardReport]:
        """Yield a report for each shard once its file is published; closing the generator discards an unfinished shard.

        Raises
        ------
        ImageError
            With ``stop_on_failure``, for the first image that cannot be read; the shards before its own are published.
        StorageError
            If a bucket stops answering; the shards before are published.
        CacheError
            If a shard cannot be written, or a feature is not finite.
        """
        start = time.perf_counter()
        with ExitStack() as stack:
            stack.callback(self._discard)
            stack.enter_context(self._write)
            stack.enter_context(self._forward)
            yield from self._feed(stack.enter_context(closing(self._batches(shards))))
            while len(self._write):
                yield from self._taken()
            self.times.seconds = time.perf_counter() - start

    def _feed(self, batches: Iterator[Batch]) -> Generator[ShardReport]:
        """Send batches through the network until there are no more, or the run is stopped."""
        error = None
        try:
            for batch in batches:
                yield from self._wait_for_capacity(batch)
                self._forward.submit(batch)
                while len(self._forward) >= MAX_QUEUED_BATCHES and not self.stop.is_set():
                    yield from self._computed()
                if self.stop.is_set():
                    break
        except (ImageError, StorageError) as found:  # what came before it is written first
            error = found
        while len(self._forward):
            yield from self._computed()
        if self.stop.is_set() and self._last is not None:
            self._write.submit(self._last.publish)
        if error is not None:
            raise error

    def _wait_for_capacity(self, batch: Batch) -> Generator[ShardReport]:
        """Wait until this batch fits into the images that a crash may cost: for the writer first, as the device has work."""
        while self._n_unpublished + batch.n_images > self._max_unpublished and not self.stop.is_set():
            yield from self._taken() if len(self._write) else self._computed()
        self._n_unpublished += batch.n_images

    def _batches(self, shards: Iterable[Shard]) -> Generator[Batch]:
        """Yield batches ready for the network; none spans two shards."""

        def batch_size() -> int:
            return self.backbone.batch_size

        recipe = self.backbone.recipe
        read, shards = tee(shards)
        refs = chain.from_iterable(shard.refs for shard in read)
        ahead = images_ahead(batch_size(), self.job)
        with closing(decoded(refs, recipe, self.job, ahead=ahead, time=self.times.decode)) as results:
            for shard in shards:
                file = ShardFile(shard, self.job, self.backbone, self.info)
                for images, failures in grouped(islice(results, len(shard.refs)), batch_size):
                    pixels = np.stack([image.pixels for image in images.values()]) if images else None
                    yield Batch(file, pixels, [image.row for image in images.values()], list(failures.values()))

    def _write_behind(self, batch: Batch, features: FeatureBatch | None) -> tuple[int, int]:
        """Pass features to the writer, in the thread that fetches them.

        Returns the number of images finished and of batches of this size that may wait for the disk.
        """
        self._last = batch.file
        self._write.submit(batch.file.append, batch, features)
        return batch.n_images, batches_behind(features)

    def _computed(self) -> Generator[ShardReport]:
        """Wait for the oldest batch in the network, and for the disk if too much waits for it; yield whole shards."""
        done: tuple[int, int] | None = self._forward.take()
        if done is None:
            return
        n_images, behind = done
        self.on_images(n_images)
        while len(self._write) > behind:
            yield from self._taken()

    def _taken(self) -> Generator[ShardReport]:
        """Take the oldest result of the writer, and yield the shard that it has completed, if any."""
        report: ShardReport | None = self._write.take()
        if report is not None:
            self._n_unpublished -= report.n_images + len(report.failures)
            yield report

    def _discard(self) -> None:
        if self._last is not None:
            self._last.discard()


def batches_behind(features: FeatureBatch | None) -> int:
    """Return how many batches of this size may wait for the disk."""
    if features is None:
        return BATCHES_BEHIND
    n_bytes = features.features.nbytes + features.pooled.nbytes
    return max(1, min(BATCHES_BEHIND, BYTES_BEHIND // n_bytes))


def extract_shard(
    refs: Sequence[ImageRef],
    path: Path,
    *,
    job: ShardJob,
    backbone: Backbone,
    info: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
    on_images: Callable[[int], None] = lambda _n: None,
) -> ShardReport:
    """Write the features of some images, one at least, to one file, which appears whole or not at all.

    The same images and recipe give the same features, whatever the engine and the batch size. Parameters and errors are
    those of :class:`Pipeline`; a shard that is stopped without a row has no file.
    """
    pipeline = Pipeline(job, backbone, info=info, stop=stop, on_images=on_images)
    with closing(pipeline.run([Shard(path, refs)])) as reports:
        return next(reports, ShardReport(path, stopped=True))
