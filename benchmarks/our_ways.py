"""Our ways of extracting features: the bare forward function, and the worker of ``extract-features``."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from way import BATCH, Features, Pixels, Way, pixels_of

if TYPE_CHECKING:
    from headstart.images.discovery.scan import ImageSet
    from headstart.types import Backbone


class Bare(Way):
    """The compiled forward function on images that are decoded already: no file is read, none is written."""

    def load(self) -> Callable[[Pixels], Features]:
        return self.on_decoded(backbone_of(self.images, self.precision))

    def on_decoded(self, backbone: Backbone) -> Callable[[Pixels], Features]:
        """Decode every image, and return the function of a backbone."""
        self.precision = backbone.recipe.precision
        decoded = list(super().batches(self.images.refs))
        self.batches = lambda refs: islice(cycle(decoded), len(refs) // BATCH)  # type: ignore[method-assign]
        return lambda batch: backbone.forward(batch).features


class BareAuto(Bare):
    """The same in the precision that ``auto`` chooses."""

    precision = "auto"


class TensorFlow(Bare):
    """The compiled function of TensorFlow, which computes where no other engine is installed."""

    def load(self) -> Callable[[Pixels], Features]:
        from headstart.backbones.tensorflow import FrozenBackbone

        return self.on_decoded(FrozenBackbone(batch_size=BATCH, device="cpu"))


def backbone_of(images: ImageSet, precision: str) -> Backbone:
    """Return the network that ``extract-features`` takes for these images."""
    from headstart.extract.network import Network, draw_sample
    from headstart.extract.options import ExtractOptions
    from headstart.extract.shard_jobs import ShardJob

    first = np.stack([pixels_of(images, ref) for ref in images.refs[:BATCH]])
    network = Network(ExtractOptions(precision=precision, batch_size=BATCH))
    job = ShardJob(images.root, images.class_names)
    return network.backbone(None, first, lambda: draw_sample(images.refs, network.wanted(None), job))[0]


class Worker(Way):
    """``extract-features`` as it is: a whole run into a cache; then its worker, shard by shard, with the same network."""

    precision = "auto"

    def load(self) -> Callable[[Pixels], Features]:
        from headstart.extract.network import Network
        from headstart.extract.options import ExtractOptions

        class Kept(Network):
            """A network whose backbone is at hand afterwards."""

            def backbone(self, *arguments: Any) -> Any:
                self.kept = super().backbone(*arguments)
                return self.kept

        self.options = replace(ExtractOptions(), precision=self.precision)
        self.network = Kept(self.options)
        return lambda batch: self.network.kept[0].forward(batch).features

    def whole(self, output: Path) -> None:
        from headstart.extract.run import extract_features

        extract_features(self.images.root, output, options=self.options, network=self.network)
        self.precision = self.network.kept[0].recipe.precision

    def steady(self, n_images: int) -> float:
        from headstart.extract.pipeline import Pipeline
        from headstart.extract.shard_jobs import Shard, ShardJob

        job = ShardJob(
            self.images.root,
            self.images.class_names,
            self.options.compression,
            decode_threads=self.options.decode_threads,
        )
        refs, size = list(islice(cycle(self.images.refs), n_images)), self.options.file_images
        with tempfile.TemporaryDirectory() as folder:
            starts = range(0, n_images, size)
            shards = [Shard(Path(folder, f"{start}.h5"), refs[start : start + size]) for start in starts]
            start = time.perf_counter()
            for _ in Pipeline(job, self.network.kept[0], max_unpublished=self.options.shard_images).run(shards):
                pass
            return n_images / (time.perf_counter() - start)
