"""Engines compute the shards of a run; their base class, the registry of them, and the one that computes in this process."""

from __future__ import annotations

import pkgutil
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Self

from headstart.backbones.precision import count_gpus, pick_device
from headstart.errors import HeadstartError
from headstart.extract.network import PROOF_IMAGES, Network, draw_sample, first_images
from headstart.extract.options import ExtractOptions, OnImages
from headstart.extract.pipeline import Pipeline
from headstart.extract.shard_jobs import Shard, ShardJob, ShardReport, Task, Tasks, given_up
from headstart.extract.summary import StatisticsCollector, WorkerStatistics
from headstart.images.load import RunTimes
from headstart.ray_cluster import check_installed
from headstart.types import Backbone, ImageRef, Recipe


class Engine(ABC):
    """Computes shards; a context manager that frees its processes at the end. A subclass has ``prepare`` and ``run``."""

    #: Name of the device, e.g. ``cpu``; several are separated by commas; empty on a cluster.
    device: str = ""

    def __init__(self, network: Network, job: ShardJob, options: ExtractOptions) -> None:
        self.network, self.job, self.options = network, job, options
        self._statistics = StatisticsCollector()
        self._recipe: Recipe

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027 (an engine without processes has nothing to end)
        """End the workers."""

    @abstractmethod
    def prepare(self, existing: Recipe | None, refs: Sequence[ImageRef]) -> tuple[Recipe, str] | None:
        """Return the recipe of the new features, and why in its precision; None if no image can be decoded.

        ``existing`` is the recipe of the features that new ones are added to; a reduced precision is proven on the first
        ``refs``.
        """

    @abstractmethod
    def run(
        self,
        shards: Iterable[Shard],
        *,
        info: dict[str, str],
        stop: threading.Event,
        on_images: OnImages,
        times: RunTimes,
    ) -> Generator[ShardReport]:
        """Yield a report for each shard once its file exists, in the order in which they end; arguments as of ``Pipeline``.

        A shard whose worker exited is computed again by another one. Images over which two have exited are divided until
        the one is found that ends the process; it becomes a failure. A cluster reports no times. Raises HeadstartError if
        a worker raised an error, or workers exit without finishing a shard.
        """

    def statistics(self) -> tuple[WorkerStatistics, ...]:
        """Return images and rate per device or node; empty if there is only one."""
        return self._statistics.collect(self._n_workers())

    def _n_workers(self) -> Mapping[str, int]:
        """Return the current number of workers at each place."""
        return {}

    def _as_existing(self, existing: Recipe) -> tuple[Recipe, str]:
        self._recipe = existing
        return existing, f"{existing.precision}: as the rows that exist"

    def _put_back(self, task: Task, waiting: Tasks) -> ShardReport | None:
        """Queue a task again whose worker exited; return the report of an image that is given up."""
        lost = waiting.put_back(task)
        return None if lost is None else given_up(lost, self._recipe, self.job)

    def _count(self, report: ShardReport, place: str, on_images: OnImages) -> bool:
        """Count the images of a shard; return whether there are any."""
        n_images = report.n_images + len(report.failures)
        if n_images:
            self._statistics.add(place, n_images)
            on_images(n_images, place)
        return n_images > 0


class LocalEngine(Engine):
    """Computes in this process: one network, one pipeline."""

    backbone: Backbone | None = None

    def __exit__(self, *_: object) -> None:
        self.backbone = None

    def prepare(self, existing: Recipe | None, refs: Sequence[ImageRef]) -> tuple[Recipe, str] | None:
        images = first_images(refs, self.network.wanted(None), self.job, self.options.batch_size or PROOF_IMAGES)
        if not len(images):
            return None
        self.backbone, reason = self.network.backbone(
            existing, images, lambda: draw_sample(refs, self.network.wanted(None), self.job)
        )
        self.device = self.backbone.device
        return self.backbone.recipe, reason

    def run(
        self,
        shards: Iterable[Shard],
        *,
        info: dict[str, str],
        stop: threading.Event,
        on_images: OnImages,
        times: RunTimes,
    ) -> Generator[ShardReport]:
        if self.backbone is None:
            raise HeadstartError("Nothing is prepared: call prepare() first.")
        pipeline = Pipeline(
            self.job,
            self.backbone,
            info=info,
            stop=stop,
            on_images=on_images,
            times=times,
            max_unpublished=self.options.shard_images,
        )
        with closing(pipeline.run(shards)) as reports:
            yield from reports


#: Name → engine, or its import path; ``devices`` is ``local`` on several devices of this machine.
ENGINES: dict[str, Callable[[Network, ShardJob, ExtractOptions], Engine] | str] = {
    "local": LocalEngine,
    "devices": "headstart.extract.devices_engine:DevicesEngine",
    "ray": "headstart.extract.ray_engine:RayEngine",
}


def check_engine(options: ExtractOptions) -> None:
    """Raise HeadstartError if there is no engine of this name, or what it needs is not installed."""
    if options.engine not in ENGINES:
        raise HeadstartError(f"Unknown engine {options.engine!r}. Expected one of: {', '.join(ENGINES)}.")
    if options.engine == "ray":
        check_installed()


def make_engine(network: Network, job: ShardJob, options: ExtractOptions, existing: Recipe | None) -> Engine:
    """Return the engine named in the options; ``devices`` for several devices of this machine.

    Raises HeadstartError if there is no such engine or device, or what it needs is not installed.
    """
    check_engine(options)
    several = options.engine == "local" and len(devices_of(options, existing)) > 1
    engine = ENGINES["devices" if several else options.engine]
    factory = pkgutil.resolve_name(engine) if isinstance(engine, str) else engine
    found: Engine = factory(network, job, options)
    return found


def devices_of(options: ExtractOptions, existing: Recipe | None) -> list[str]:
    """Return the names of a run's devices; only ``auto`` if the network picks one.

    ``auto`` is every GPU there is. An int8 network runs on the CPU alone, and TensorFlow is not asked about GPUs for it.
    Raises HeadstartError if the option names no device, or a GPU that does not exist.
    """
    names = options.device.split(",")
    if len(names) > 1:
        return [pick_device(name.strip()).name for name in names]
    precision = options.precision if existing is None else existing.precision
    if names != ["auto"] or precision == "int8":
        return names
    n_gpus = count_gpus()
    return [f"gpu:{number}" for number in range(n_gpus)] if n_gpus > 1 else names
