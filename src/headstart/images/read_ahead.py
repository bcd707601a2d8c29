"""Decode images in order, in threads, ahead of their use; and measure how long each stage of a run takes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from headstart.errors import ImageError
from headstart.images.load import LoadedImage, load_image
from headstart.images.samples import DecodeRules
from headstart.runtime import usable_cores
from headstart.storage.bucket import Address, Location
from headstart.types import Failure, ImageRef, Recipe

#: Small results that are computed ahead of their use.
AHEAD = 256

#: Additional threads that read images from a bucket: a request takes 10–100 ms whatever the size, so that 16 threads read
#: some hundred images a second.
REQUESTS_AT_ONCE = 16

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True)
class StageTime:
    """How busy one stage was."""

    threads: int = 1  # tasks at the same time
    busy_seconds: float = 0.0  # working time, summed over the threads
    #: Time in which the run only waited for this stage. The stage with most of it limits the run.
    awaited_seconds: float = 0.0


@dataclass(slots=True)
class RunTimes:
    """How long each stage of a run took."""

    decode: StageTime = field(default_factory=StageTime)  # reading and decoding
    forward: StageTime = field(default_factory=StageTime)  # the network
    write: StageTime = field(default_factory=StageTime)  # compression and writing
    seconds: float = 0.0  # from the first image requested to the last shard written

    def add(self, other: RunTimes) -> None:
        """Add the times of another run with the same number of threads."""
        for name in ("decode", "forward", "write"):
            mine, theirs = getattr(self, name), getattr(other, name)
            mine.threads = theirs.threads
            mine.busy_seconds += theirs.busy_seconds
            mine.awaited_seconds += theirs.awaited_seconds

    def of_several(self, n_runs: int) -> None:
        """Multiply the threads by the number of simultaneous runs."""
        for stage in (self.decode, self.forward, self.write):
            stage.threads *= n_runs

    def share(self, stage: StageTime) -> float:
        """Return the fraction of the run in which a stage was busy, 0–1; the mean over its threads."""
        return min(1.0, stage.busy_seconds / (stage.threads * self.seconds)) if self.seconds else 0.0

    def bound(self) -> str:
        """Return the stage that the run waited for most: ``decode``, ``forward`` or ``write``."""
        return max(("forward", "decode", "write"), key=lambda name: float(getattr(self, name).awaited_seconds))


class Stage:
    """Threads for one kind of work; results come back in the order of submission.

    At the end of the ``with`` block, running tasks are finished; pending ones are dropped unless ``finish`` is set.
    ``time`` is updated with the times of the work and of the waiting; ``clock`` returns seconds.
    """

    def __init__(
        self,
        name: str,
        threads: int,
        time: StageTime,
        *,
        finish: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.time, self._finish, self._clock = time, finish, clock
        self.time.threads = threads
        self._pool = ThreadPoolExecutor(threads, name)
        self._pending: deque[Future[Any]] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of tasks whose results were not taken yet."""
        return len(self._pending)

    def submit(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Submit a task."""
        self._pending.append(self._pool.submit(self._timed, work, *arguments))

    def take(self) -> Any:
        """Return the result of the oldest task, waiting for it; its exception is raised here."""
        start = self._clock()
        try:
            return self._pending.popleft().result()
        finally:
            self.time.awaited_seconds += self._clock() - start

    def _timed(self, work: Callable[..., Any], *arguments: Any) -> Any:
        start = self._clock()
        try:
            return work(*arguments)
        finally:
            seconds = self._clock() - start
            with self._lock:
                self.time.busy_seconds += seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=not self._finish)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How images are read."""

    root: Location  # folder, on a disk or in a bucket, that the paths are relative to
    decode_threads: int = field(default_factory=usable_cores, kw_only=True)  # images decoded at the same time
    #: Raise at the first image that cannot be read, instead of recording a failure.
    stop_on_failure: bool = field(default=False, kw_only=True)


def decoded(
    refs: Iterable[ImageRef], recipe: Recipe, job: ReadOptions, *, ahead: int, time: StageTime | None = None
) -> Generator[LoadedImage | Failure]:
    """Return a generator of each image, or its failure, in order; up to ``ahead`` images are decoded in advance.

    With ``job.stop_on_failure``, ImageError is raised for the first image that cannot be read, after those before it.
    """
    rules = DecodeRules.of(recipe)

    def load(ref: ImageRef) -> LoadedImage | Failure:
        try:
            return load_image(job.root, ref, size_px=recipe.input_size_px, resize_preset=recipe.resize, rules=rules)
        except ImageError as error:
            if job.stop_on_failure:
                raise ImageError(f"{ref.path}: {error}") from error
            return Failure(ref, str(error))

    return in_order(load, refs, threads_of(job.root, job.decode_threads), ahead=ahead, time=time)


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    *,
    ahead: int = AHEAD,
    time: StageTime | None = None,
) -> Generator[Result]:
    """Yield the results for some items in order, computed by threads up to ``ahead`` items in advance."""
    with Stage("read", threads, time or StageTime()) as stage:
        for item in items:
            stage.submit(work, item)
            if len(stage) >= ahead:
                yield stage.take()
        while len(stage):
            yield stage.take()


def threads_of(root: Location, threads: int) -> int:
    """Return the number of reading threads: more for a bucket, whose answers most of them wait for."""
    return threads + (REQUESTS_AT_ONCE if isinstance(root, Address) else 0)


def batches(
    refs: Iterable[ImageRef], recipe: Recipe, job: ReadOptions, batch_size: Callable[[], int]
) -> Iterator[tuple[dict[int, LoadedImage], dict[int, Failure]]]:
    """Yield full batches of decoded images, and the failures among them, each by its index in ``refs``."""
    with closing(decoded(refs, recipe, job, ahead=images_ahead(batch_size(), job))) as results:
        yield from grouped(results, batch_size)


def grouped(
    results: Iterable[LoadedImage | Failure], batch_size: Callable[[], int]
) -> Iterator[tuple[dict[int, LoadedImage], dict[int, Failure]]]:
    """Yield batches of decoded images, and the failures among them, each by its index; the last batch may be smaller."""
    images: dict[int, LoadedImage] = {}
    failures: dict[int, Failure] = {}
    for index, result in enumerate(results):
        if isinstance(result, Failure):
            failures[index] = result
        else:
            images[index] = result
        if len(images) >= batch_size():
            yield images, failures
            images, failures = {}, {}
    if images or failures:
        yield images, failures


def images_ahead(batch_size: int, job: ReadOptions) -> int:
    """Return the number of images decoded ahead: enough that a single slow image does not stall the network."""
    return 2 * batch_size + job.decode_threads
