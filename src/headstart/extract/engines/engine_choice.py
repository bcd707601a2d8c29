"""Who computes shards: this process, one for each device, or the workers of a cluster."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from headstart.errors import HeadstartError
from headstart.extract.engines.device_engine import devices_of
from headstart.extract.network import PROOF_IMAGES, draw_sample, first_images
from headstart.extract.pipeline import Pipeline
from headstart.extract.shard_jobs import Shard, ShardJob, ShardReport
from headstart.ray_cluster import check_installed

if TYPE_CHECKING:
    from headstart.extract.network import Network
    from headstart.extract.options import ExtractOptions, OnImages, WorkerStatistics
    from headstart.images.read_ahead import RunTimes
    from headstart.types import Backbone, ImageRef, Recipe


class Engine(Protocol):
    """Computes shards; a context manager, at whose end nothing of it is left."""

    def __enter__(self) -> Self:
        """Start what computes."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it."""
        ...

    def prepare(self, existing: Recipe | None, refs: Sequence[ImageRef]) -> tuple[Recipe, str] | None:
        """Return the recipe of what will be computed, and why in its precision; None where no image can be decoded.

        Parameters
        ----------
        existing : Recipe or None
            Recipe of the features that new ones will stand beside.
        refs : sequence of ImageRef
            The images to come; on the first of them a reduced precision is proven.
        """
        ...

    def run(
        self,
        shards: Iterable[Shard],
        *,
        info: dict[str, str],
        stop: threading.Event,
        on_images: OnImages,
        times: RunTimes,
    ) -> Generator[ShardReport]:
        """Yield a report for each shard once its file is there. Parameters as of ``Pipeline``."""
        ...

    @property
    def device(self) -> str:
        """Name of the device, as ``cpu``; of several with commas between, as ``gpu:0,gpu:1``; empty on a cluster."""
        ...

    def statistics(self) -> tuple[WorkerStatistics, ...]:
        """Return images and rate per device or node; nothing where there is only one."""
        ...


class LocalEngine:
    """Computes in this process: one network, one pipeline."""

    def __init__(self, network: Network, job: ShardJob, options: ExtractOptions) -> None:
        self.network, self.job, self.options = network, job, options
        self._backbone: Backbone | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._backbone = None

    def prepare(self, existing: Recipe | None, refs: Sequence[ImageRef]) -> tuple[Recipe, str] | None:
        """See :class:`Engine`."""
        images = first_images(refs, self.network.wanted(None), self.job, self.options.batch_size or PROOF_IMAGES)
        if not len(images):
            return None
        self._backbone, reason = self.network.backbone(
            existing, images, lambda: draw_sample(refs, self.network.wanted(None), self.job)
        )
        return self._backbone.recipe, reason

    def run(
        self,
        shards: Iterable[Shard],
        *,
        info: dict[str, str],
        stop: threading.Event,
        on_images: OnImages,
        times: RunTimes,
    ) -> Generator[ShardReport]:
        """See :class:`Engine`."""
        if self._backbone is None:
            raise HeadstartError("Nothing is prepared: call prepare() first.")
        pipeline = Pipeline(
            self.job,
            self._backbone,
            info=info,
            stop=stop,
            on_images=on_images,
            times=times,
            max_unpublished=self.options.shard_images,
        )
        with closing(pipeline.run(shards)) as reports:
            yield from reports

    @property
    def device(self) -> str:
        """See :class:`Engine`."""
        return self._backbone.device if self._backbone else ""

    def statistics(self) -> tuple[WorkerStatistics, ...]:
        """See :class:`Engine`."""
        return ()


def check_engine(options: ExtractOptions) -> None:
    """Raise HeadstartError where there is no engine of the name that the options give, or what it needs is not installed."""
    if options.engine == "ray":
        check_installed()
    elif options.engine != "local":
        raise HeadstartError(f"Unknown engine {options.engine!r}. Expected local or ray.")


def make_engine(network: Network, job: ShardJob, options: ExtractOptions, existing: Recipe | None) -> Engine:
    """Return the engine that the options name; several devices of this machine have one of their own.

    Raises
    ------
    HeadstartError
        As :func:`check_engine`; or if there is no such device.
    """
    check_engine(options)
    if options.engine == "ray":
        from headstart.extract.engines.ray_engine import RayEngine

        return RayEngine(network, job, options)
    names = devices_of(options, existing)
    if len(names) == 1:
        return LocalEngine(network, job, options)
    from headstart.extract.engines.device_engine import DevicesEngine

    return DevicesEngine(network, job, options, names)
