"""A worker that is let run for some batches at a time, beside the bare network: by turns of some seconds.

The clock of a shared machine drifts by 10 % within a minute, and much less from one second to the next: many short turns
say more than a few long ones. A short run of a worker would say too much, though, since some batches are decoded before the
first one is computed. So one worker runs throughout, and is held whenever nothing is left to do but what waits for the next
turn: each turn then decodes, computes and writes as many images as any other.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from itertools import count, cycle
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headstart.extract.options import ExtractOptions
from headstart.extract.pipeline import Pipeline
from headstart.extract.run import chunks
from headstart.extract.shard_jobs import Shard, ShardJob
from headstart.types import Backbone, ImageRef

#: Seconds in which a batch comes back, at the least.
PATIENCE = 60


class HeldWorker:
    """A worker that extracts the same images again and again, a turn at a time. Use it in a ``with`` block.

    Turns are equal where whole batches fill the files of a run.
    """

    def __init__(self, refs: Sequence[ImageRef], job: ShardJob, backbone: Backbone) -> None:
        options = ExtractOptions()
        self._parts, self._folder = list(chunks(refs, options.file_images)), tempfile.TemporaryDirectory()
        self._may_go_on, self._has_stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._n_images, self._ends = 0, False
        self._pipeline = Pipeline(job, backbone, max_unpublished=options.shard_images, on_images=self._hold)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def turn(self, n_batches: int) -> float:
        """Let so many batches pass; return images per second, until nothing is left to do."""
        before, start = self._n_images, time.perf_counter()
        for _ in range(n_batches):
            self._may_go_on.release()
            self._await_batch()
        self._settle()
        return (self._n_images - before) / (time.perf_counter() - start)

    def _await_batch(self) -> None:
        if not self._has_stopped.acquire(timeout=PATIENCE):
            raise SystemExit("The worker has ended, or hangs.")

    def _run(self) -> None:
        parts = enumerate(cycle(self._parts))
        shards = (Shard(Path(self._folder.name, f"{number}.h5"), part) for number, part in parts)
        for report in self._pipeline.run(shards):
            report.path.unlink()

    def _hold(self, n_images: int) -> None:
        """Wait for the next batch's turn, in the thread that feeds the network."""
        self._n_images += n_images
        self._has_stopped.release()
        if not self._ends:
            self._may_go_on.acquire()

    def _settle(self) -> None:
        """Wait until what was sent on its way is written; the next images are decoded by then: a batch takes longer.

        There is no public way to wait for batches without taking them. A batch is written once it is computed.
        """
        wait(list(self._pipeline._forward._pending))
        wait(list(self._pipeline._write._pending))

    def __enter__(self) -> Self:
        self._thread.start()
        self._await_batch()
        self._settle()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ends = True
        self._pipeline.stop.set()
        self._may_go_on.release()
        self._thread.join()
        self._folder.cleanup()


def bare_turns(backbone: Backbone, pixels: Any, n_images: int) -> Callable[[], float]:
    """Return what computes the next so many images of ``pixels``, after the last the first, and returns images per second."""
    starts = (turn * n_images % len(pixels) for turn in count())

    def run() -> float:
        chosen = pixels.take(range(start := next(starts), start + n_images), axis=0, mode="wrap")
        begin = time.perf_counter()
        backbone.forward(chosen)
        return n_images / (time.perf_counter() - begin)

    return run
