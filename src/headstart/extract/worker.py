"""One shard: decode → forward → write. The same function on a laptop, a GPU box and a cluster."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headstart.cache.shard import ShardWriter
from headstart.errors import ImageError
from headstart.images.load import LoadedImage, load_image
from headstart.schema import Failure

if TYPE_CHECKING:
    from headstart.schema import Backbone, ImageRef, Recipe


@dataclass(frozen=True, slots=True)
class ShardJob:
    """What is the same for every shard of a run.

    Attributes
    ----------
    root : Path
        Folder that the paths are relative to.
    class_names : tuple of str
        Names that the labels index.
    compression : str
        ``zstd``, ``gzip`` or ``none``.
    decode_threads : int
        Images decoded at the same time.
    stop_on_failure : bool
        Raise at the first image that cannot be read, instead of listing it.
    """

    root: Path
    class_names: tuple[str, ...]
    compression: str = "zstd"
    decode_threads: int = 2
    stop_on_failure: bool = False


@dataclass(slots=True)
class ShardReport:
    """What became of one shard.

    Attributes
    ----------
    n_images : int
        Rows written.
    failures : list of Failure
        Images that could not be read.
    forward_seconds, wait_seconds : float
        Time in the network, and time the network waited for decoded images.
    stopped : bool
        Whether the shard ends before its last image because the run was asked to stop.
    """

    n_images: int = 0
    failures: list[Failure] = field(default_factory=list)
    forward_seconds: float = 0.0
    wait_seconds: float = 0.0
    stopped: bool = False


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
    """Write the features of some images to one file, which appears whole or not at all.

    The same images and recipe give the same features, whatever the engine and the batch size. Decoding runs ahead in
    threads, compression and writing behind in one; the network waits for neither while there is work.

    Parameters
    ----------
    refs : sequence of ImageRef
        The images, in the order of the rows.
    path : Path
        The shard's file.
    job : ShardJob
        What is the same for every shard.
    backbone : Backbone
        The network.
    info : mapping, optional
        Provenance to keep in the file.
    stop : threading.Event, optional
        When set, the shard ends after the current batch, with what it has.
    on_images : callable
        Called with the number of images finished since the last call, failures included.

    Raises
    ------
    ImageError
        With ``stop_on_failure``, for the first image that cannot be read.
    CacheError
        If the shard cannot be written, or a feature is not finite.
    """
    report = ShardReport()
    recipe = backbone.recipe
    with (
        ShardWriter(path, recipe=recipe, class_names=job.class_names, compression=job.compression, info=info) as writer,
        ThreadPoolExecutor(1, "write") as disk,
    ):
        written: Future[None] | None = None
        for images, failures in batches(refs, recipe, job, lambda: backbone.batch_size, report):
            for failure in failures:
                writer.add_failure(failure)
            report.failures += failures
            if images:
                start = time.perf_counter()
                features = backbone.forward(np.stack([image.pixels for image in images]))
                report.forward_seconds += time.perf_counter() - start
                if written is not None:
                    written.result()
                written = disk.submit(writer.append, features, [image.row for image in images])
                report.n_images += len(images)
            on_images(len(images) + len(failures))
            if stop is not None and stop.is_set():
                report.stopped = report.n_images + len(report.failures) < len(refs)
                break
        if written is not None:
            written.result()
    return report


def batches(
    refs: Sequence[ImageRef], recipe: Recipe, job: ShardJob, batch_size: Callable[[], int], report: ShardReport
) -> Iterator[tuple[list[LoadedImage], list[Failure]]]:
    """Yield full batches of decoded images, in order, with the failures met on the way."""
    images: list[LoadedImage] = []
    failures: list[Failure] = []
    start = time.perf_counter()
    for result in decoded(refs, recipe, job, ahead=2 * batch_size() + job.decode_threads):
        if isinstance(result, Failure):
            failures.append(result)
        else:
            images.append(result)
        if len(images) >= batch_size():
            report.wait_seconds += time.perf_counter() - start
            yield images, failures
            images, failures = [], []
            start = time.perf_counter()
    if images or failures:
        yield images, failures


def decoded(refs: Sequence[ImageRef], recipe: Recipe, job: ShardJob, *, ahead: int) -> Generator[LoadedImage | Failure]:
    """Yield each image, or why it failed, in order; ``ahead`` of them are decoded before they are asked for."""

    def load(ref: ImageRef) -> LoadedImage | Failure:
        try:
            return load_image(job.root, ref, size_px=recipe.input_size_px, resize_preset=recipe.resize)
        except ImageError as error:
            if job.stop_on_failure:
                raise ImageError(f"{ref.path}: {error}") from error
            return Failure(ref, str(error))

    pool = ThreadPoolExecutor(job.decode_threads, "decode")
    try:
        remaining = iter(refs)
        pending = deque(pool.submit(load, ref) for ref in islice(remaining, ahead))
        while pending:
            yield pending.popleft().result()
            pending.extend(pool.submit(load, ref) for ref in islice(remaining, 1))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
