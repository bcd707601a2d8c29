"""The interface of an engine, and the engine that computes in this process."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Protocol, Self

from headstart.errors import HeadstartError
from headstart.extract.network import PROOF_IMAGES, draw_sample, first_images
from headstart.extract.pipeline import Pipeline
from headstart.extract.shard_jobs import Shard, ShardJob, ShardReport

if TYPE_CHECKING:
    from headstart.extract.network import Network
    from headstart.extract.options import ExtractOptions, OnImages, WorkerStatistics
    from headstart.images.read_ahead import RunTimes
    from headstart.types import Backbone, ImageRef, Recipe


class Engine(Protocol):
    """Computes shards; a context manager that frees its processes at the end. A subclass has ``prepare`` and ``run``."""

    def __enter__(self) -> Self:
        """Start the workers."""
        return self

    def __exit__(self, *_: object) -> None:
        """End them."""

    def prepare(self, existing: Recipe | None, refs: Sequence[ImageRef]) -> tuple[Recipe, str] | None:
        """Return the recipe of the new features, and why in its precision; None where no image can be decoded.

        Parameters
        ----------
        existing : Recipe or None
            Recipe of the features that new ones are added to.
        refs : sequence of ImageRef
            The images to compute; a reduced precision is proven on the first of them.
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
        """Name of the device, e.g. ``cpu``; several are separated by commas; empty on a cluster."""
        return ""

    def statistics(self) -> tuple[WorkerStatistics, ...]:
        """Return images and rate per device or node; nothing where there is only one."""
        return ()


class LocalEngine(Engine):
    """Computes in this process: one network, one pipeline."""

    def __init__(self, network: Network, job: ShardJob, options: ExtractOptions) -> None:
        self.network, self.job, self.options = network, job, options
        self.backbone: Backbone | None = None

    def __exit__(self, *_: object) -> None:
        self.backbone = None

    def prepare(self, existing: Recipe | None, refs: Sequence[ImageRef]) -> tuple[Recipe, str] | None:
        """See :class:`Engine`."""
        images = first_images(refs, self.network.wanted(None), self.job, self.options.batch_size or PROOF_IMAGES)
        if not len(images):
            return None
        self.backbone, reason = self.network.backbone(
            existing, images, lambda: draw_sample(refs, self.network.wanted(None), self.job)
        )
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
        """See :class:`Engine`."""
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

    @property
    def device(self) -> str:
        """See :class:`Engine`."""
        return self.backbone.device if self.backbone else ""
