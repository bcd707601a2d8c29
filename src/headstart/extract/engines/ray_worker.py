"""What runs in an actor."""

from __future__ import annotations

import platform
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from headstart.errors import HeadstartError
from headstart.extract.network import PROOF_IMAGES, first_images
from headstart.extract.pipeline import extract_shard
from headstart.extract.shard_jobs import Shard, ShardJob, ShardReport
from headstart.runtime import limit_threads
from headstart.storage.objects import upload

if TYPE_CHECKING:
    from headstart.extract.network import Network, Sample
    from headstart.types import Backbone, ImageRef, Recipe


class Worker:
    """What runs in an actor: one network, one shard at a time.

    Parameters
    ----------
    network : Network
        Where the backbone comes from.
    job : ShardJob
        What is the same for every shard.
    n_cpus : int
        Cores that are this actor's own.
    """

    def __init__(self, network: Network, job: ShardJob, n_cpus: int) -> None:
        limit_threads(n_cpus)
        self._network, self._job = network, replace(job, decode_threads=n_cpus)
        self._backbone: Backbone | None = None
        self._stop = threading.Event()

    def choose(self, refs: Sequence[ImageRef]) -> tuple[Recipe, str] | None:
        """Load the network in the precision that suits this node and the first of these images.

        Returns its recipe, and why it is that one; None where no image can be decoded.
        """
        images = first_images(refs, self._network.wanted(None), self._job, PROOF_IMAGES)
        if not len(images):
            return None
        self._backbone, reason = self._network.backbone(None, images, no_sample)
        return self._backbone.recipe, reason

    def extract(self, shard: Shard, recipe: Recipe, info: dict[str, str]) -> ShardReport:
        """Write one shard, to the folder of the driver or into a bucket."""
        backbone = self.load(recipe)
        with ExitStack() as stack:
            path, shards_at = shard.path, self._job.shards_at
            if shards_at is not None:
                path = Path(stack.enter_context(TemporaryDirectory(prefix="headstart-"))) / path.name
            report = extract_shard(shard.refs, path, job=self._job, backbone=backbone, info=info, stop=self._stop)
            if shards_at is not None and (report.n_images or report.failures):
                upload(path, shards_at / path.name)
            return replace(report, path=shard.path)

    def load(self, recipe: Recipe) -> Backbone:
        """Return the network of a recipe, which stays loaded."""
        if self._backbone is None:
            self._backbone = self._network.backbone(recipe, np.empty(0, np.uint8), no_sample)[0]
        return self._backbone

    def place(self) -> tuple[str, str]:
        """Return the name of the node, and what tells it from others of that name."""
        import ray

        return platform.node(), str(ray.get_runtime_context().get_node_id())

    def stop(self) -> None:
        """End the shard that is being written after its current batch."""
        self._stop.set()


def no_sample() -> Sample:
    """Draw no images: a quantised network comes here with its recipe (:meth:`RayEngine.prepare`)."""
    raise HeadstartError("A worker of a cluster quantises no network.")
