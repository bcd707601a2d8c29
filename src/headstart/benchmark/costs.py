"""What a head costs: time to fit and to predict, memory, size on the disk."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.heads.bundle import save_bundle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.heads.bundle import Bundle
    from headstart.schema import Backbone

#: Images predicted at a time when latency is measured, and how often.
BATCH_IMAGES, ROUNDS = 256, 5

#: Seconds between two looks at the memory of this process.
LOOK_SECONDS = 0.005

#: Where Linux says how many pages of memory a process holds (proc(5)); elsewhere memory is not measured.
MEMORY_FILE = Path("/proc/self/statm")


@dataclass(slots=True)
class Peak:
    """Memory at its highest, above what was there at the start; None where it cannot be measured."""

    bytes: int | None = None


@contextmanager
def watched_memory() -> Iterator[Peak]:
    """Measure the resident memory of this process while the block runs."""
    peak = Peak()
    if not MEMORY_FILE.exists():
        yield peak
        return
    start, done = resident_bytes(), threading.Event()
    peak.bytes = 0

    def look() -> None:
        while not done.wait(LOOK_SECONDS):
            peak.bytes = max(peak.bytes or 0, resident_bytes() - start)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        peak.bytes = max(peak.bytes or 0, resident_bytes() - start)
        done.set()
        watcher.join()


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    import resource

    return int(MEMORY_FILE.read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def head_milliseconds(head: Any, X: NDArray[np.float32]) -> float:
    """Return milliseconds per image from features to probabilities, in batches of 256; the median of five rounds."""
    batch = X[np.arange(min(BATCH_IMAGES, max(len(X), 1))) % len(X)]
    return 1000.0 * seconds_of(lambda: head.predict_proba(batch)) / len(batch)


def backbone_milliseconds(backbone: Backbone) -> float:
    """Return milliseconds per image of a frozen backbone, in its own batches; the median of five rounds."""
    size = backbone.recipe.input_size_px
    images = np.random.default_rng(0).integers(0, 256, (backbone.batch_size, size, size, 3), np.uint8)
    return 1000.0 * seconds_of(lambda: backbone.forward(images)) / len(images)


def seconds_of(call: Callable[[], Any]) -> float:
    """Return the median of the seconds that a call takes; a first one is not counted."""
    call()
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return median(taken)


def saved_bytes(bundle: Bundle) -> int:
    """Return the size of a head as it is saved."""
    with tempfile.TemporaryDirectory() as folder:
        saved = save_bundle(Path(folder) / "head", bundle, metrics={})
        return sum(path.stat().st_size for path in saved.iterdir())
