"""The network as a stage: one batch computes while the next one is on its way to the device, and the former comes back."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from headstart.backbone.vgg16 import started
from headstart.extract.stages import StageTime

if TYPE_CHECKING:
    from headstart.extract.shard import Batch
    from headstart.schema import Backbone, FeatureBatch

#: Batches in the network at most. On a device that works beside the program: one that it computes, or whose features come
#: back, and one that is there already. Elsewhere: one that is computed, and one that waits.
IN_FLIGHT = 2


class Flight:
    """Batches on their way through a network, in order. Started by one thread, fetched by another.

    A backbone with ``start`` computes beside the program (a GPU): the next batch is started before the features of the
    former are fetched, so that the device never waits for a copy. At the end of the ``with`` block what was started is
    fetched; what was not is dropped.

    Parameters
    ----------
    backbone : Backbone
        The network.
    done : callable
        Takes a batch and its features (None where no image of it could be read), in the thread that fetches; what it
        returns is the result of the batch.
    time : StageTime
        Is told how long at least one batch was in the network, and how long it was waited for.
    stop : threading.Event
        Once it is set, no batch is started; the result of those that are not is None.
    clock : callable
        Seconds from some fixed point.
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
        self._backbone, self._done, self._time, self._stop, self._clock = backbone, done, time, stop, clock
        self._time.threads = 1
        self._starter, self._fetcher = ThreadPoolExecutor(1, "forward"), ThreadPoolExecutor(1, "fetch")
        self._pending: deque[Future[Any]] = deque()
        self._last_end = 0.0

    def __len__(self) -> int:
        """Return how many batches were given whose results were not taken."""
        return len(self._pending)

    def submit(self, batch: Batch) -> None:
        """Give a batch."""
        sent = self._starter.submit(self._start, batch)
        self._pending.append(self._fetcher.submit(self._fetch, batch, sent))

    def take(self) -> Any:
        """Return the result of the oldest batch, waiting for it; what it raised is raised here."""
        start = self._clock()
        try:
            return self._pending.popleft().result()
        finally:
            self._time.awaited_seconds += self._clock() - start

    def _start(self, batch: Batch) -> tuple[float, Callable[[], FeatureBatch | None]] | None:
        """Return when a batch was started, and what waits for its features."""
        if self._stop.is_set():
            return None
        begin = self._clock()
        return begin, (lambda: None) if batch.pixels is None else started(self._backbone, batch.pixels)

    def _fetch(self, batch: Batch, sent: Future[tuple[float, Callable[[], FeatureBatch | None]] | None]) -> Any | None:
        found = sent.result()
        if found is None:
            return None
        begin, fetch = found
        features = fetch()
        end = self._clock()
        self._time.busy_seconds += end - max(begin, self._last_end)
        self._last_end = end
        return self._done(batch, features)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._starter.shutdown(wait=True, cancel_futures=True)
        self._fetcher.shutdown(wait=True)
