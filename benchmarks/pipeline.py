"""Does the pipeline keep a device busy? A stand-in for one, whose forward pass takes a set time per batch.

python benchmarks/pipeline.py FOLDER [--threads 2] [--repeat 3] [--rounds 3]

First the rate at which the threads decode the images and do nothing else, and the rate of the whole pipeline, with
stacking, compression and files, in front of a device that takes no time: that is what the threads can just feed. Then
runs with devices that take so many images per second, from a share of that rate to more than it: one that the program
waits for, as for a CPU; and one that computes beside the program, as a GPU does, and whose features take a part of a
batch's time to come back, with as many images per batch as a GPU has. Busy is the device's own time in the time from the
start of its first batch to the end of its last; copies are none of it.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.precision import cpu, gpu
from headstart.backbones.vgg16 import VGG16
from headstart.extract.options import SHARD_IMAGES, ExtractOptions
from headstart.extract.pipeline import Pipeline
from headstart.extract.run import chunks
from headstart.extract.shard_jobs import Shard, ShardJob
from headstart.images import load as loading
from headstart.images.discovery.scan import ImageSet, discover
from headstart.images.load import LoadedImage, decoded, images_ahead
from headstart.types import Backbone, FeatureBatch
from machine import median, write_result

OPTIONS = ExtractOptions()

#: Device speeds that are tried, as shares of what the threads can just feed.
SHARES = (0.9, 0.95, 1.0, 1.1)

#: Speeds of devices that are fed without decoding, images/s.
FAST = (1000, 2000, 2500)

#: Time that features take to come back from a device beside the program, as a share of a batch's time.
COPY_SHARE = 0.3

#: Share of the time in which the device has to be at work.
TARGET = 0.95


class StandIn(Backbone):
    """A device of known speed that the program waits for: a batch takes a set time, in which the processor is free.

    Parameters
    ----------
    images_per_second : float
        Its speed.
    batch_size : int
        Images per pass.
    """

    batch_size = 1

    def __init__(self, images_per_second: float, batch_size: int = cpu().batch_size) -> None:
        self.recipe = VGG16.recipe(weights_sha256=VGG16.weights["imagenet"])
        self.batch_size, self.batch_seconds = batch_size, batch_size / images_per_second
        rng = np.random.default_rng(0)  # as sparse as block5_pool of photographs: about 0.9 of it is zero
        maps = np.maximum(rng.normal(-1.3, 1, (batch_size, 7, 7, 512)), 0).astype(np.float32)
        pooled = rng.random((batch_size, len(VGG16.column_layers)), np.float32)
        self._features = FeatureBatch(maps, pooled, VGG16.column_layers)
        self.first, self.last, self.n_batches = 0.0, 0.0, 0

    def forward(self, images: NDArray[np.uint8]) -> FeatureBatch:
        """Return features that have nothing to do with the images, after the set time."""
        start = time.perf_counter()
        self.first = self.first or start
        time.sleep(self.batch_seconds)
        self.last, self.n_batches = time.perf_counter(), self.n_batches + 1
        return self.features(len(images))

    def features(self, n_images: int) -> FeatureBatch:
        """Return so many rows of features."""
        return FeatureBatch(self._features.features[:n_images], self._features.pooled[:n_images], VGG16.column_layers)

    @property
    def busy(self) -> float:
        """Set time of all batches over the time that passed; what a sleep is late counts as idle."""
        return self.n_batches * self.batch_seconds / (self.last - self.first)


class StandInBeside(StandIn):
    """A device that computes beside the program, batch after batch, and copies features back beside that."""

    def __init__(self, images_per_second: float) -> None:
        super().__init__(images_per_second, gpu(0).batch_size)

    def start(self, images: NDArray[np.uint8]) -> Callable[[], FeatureBatch]:
        """Start a pass, once those before it are over; return what waits for its features and their copy."""
        begin = max(time.perf_counter(), self.last)
        self.first = self.first or begin
        end = self.last = begin + self.batch_seconds
        self.n_batches += 1

        def fetch() -> FeatureBatch:
            time.sleep(max(0.0, end + COPY_SHARE * self.batch_seconds - time.perf_counter()))
            features = self.features(len(images))
            return replace(features, features=features.features.copy(), pooled=features.pooled.copy())

        return fetch


#: The devices by what they are called in the results.
DEVICES = {"waited for": StandIn, "beside the program": StandInBeside}


def decode_rate(images: ImageSet, job: ShardJob) -> float:
    """Return the images per second of the decoding threads alone."""
    recipe = VGG16.recipe(weights_sha256=VGG16.weights["imagenet"])
    start = time.perf_counter()
    deque(decoded(images.refs, recipe, job, ahead=images_ahead(cpu().batch_size, job)), maxlen=0)
    return len(images.refs) / (time.perf_counter() - start)


def run(images: ImageSet, job: ShardJob, device: StandIn) -> tuple[float, float, str]:
    """Return the device's share of busy time, the rate, and the stage that the run waited for most."""
    with tempfile.TemporaryDirectory() as out:
        shards = (Shard(Path(out) / f"{i}.h5", refs) for i, refs in enumerate(chunks(images.refs, OPTIONS.file_images)))
        pipeline = Pipeline(job, device, max_unpublished=OPTIONS.shard_images)
        with closing(pipeline.run(shards)) as reports:
            deque(reports, maxlen=0)
    return device.busy, len(images.refs) / (device.last - device.first), pipeline.times.bound()


@contextmanager
def decoded_already(images: ImageSet) -> Iterator[None]:
    """Give every image of a folder the pixels of its first one, at once."""
    load, first = loading.load_image, images.refs[0]
    one = load(images.root, first, size_px=224, resize_preset="keras-bilinear")
    loading.load_image = lambda _root, ref, **_options: LoadedImage(one.pixels, replace(one.row, ref=ref))
    try:
        yield
    finally:
        loading.load_image = load


def measure(images: ImageSet, job: ShardJob, rounds: int) -> dict[str, Any]:
    """Return the rates and the shares."""
    decode_rate(images, job)  # the system's cache is filled
    alone = median([decode_rate(images, job) for _ in range(rounds)])
    feed = median([run(images, job, StandIn(math.inf))[1] for _ in range(rounds)])
    devices = {name: of_kind(images, job, rounds, [s * feed for s in SHARES], kind) for name, kind in DEVICES.items()}
    with decoded_already(images):
        feed_decoded = median([run(images, job, StandInBeside(math.inf))[1] for _ in range(rounds)])
        devices["beside the program, images decoded already"] = of_kind(images, job, rounds, FAST, StandInBeside)
    return {
        "images": len(images.refs),
        "decode_threads": job.decode_threads,
        "compression": job.compression,
        "decode_alone_images_per_second": round(alone, 1),
        "feed_images_per_second": round(feed, 1),
        "target_busy": TARGET,
        "feed_decoded_images_per_second": round(feed_decoded, 1),
        "devices": devices,
        "rounds": rounds,
    }


def of_kind(
    images: ImageSet, job: ShardJob, rounds: int, speeds: Sequence[float], kind: Callable[[float], StandIn]
) -> dict[str, Any]:
    """Return how busy devices of one kind are kept at these speeds, images/s."""
    rows = []
    for speed in speeds:
        runs = [run(images, job, kind(speed)) for _ in range(rounds)]
        busy = [round(found, 4) for found, *_ in runs]
        row = {"images_per_second": round(speed, 1), "busy": busy, "busy_median": median(busy)}
        rows.append({**row, "bound_by": [bound for *_, bound in runs]})
        print(kind, rows[-1])
    kept = [row for row in rows if row["busy_median"] >= TARGET]
    return {"batch_size": kind(1.0).batch_size, "fastest_kept_busy": kept[-1] if kept else None, "speeds": rows}


def main() -> None:
    """Measure and write ``results/pipeline.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3, help="how often the folder is gone through in a run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compression", default="zstd")
    options = parser.parse_args()
    images = discover(options.folder)
    refs = list(images.refs) * options.repeat
    images = replace(images, refs=refs[: len(refs) // SHARD_IMAGES * SHARD_IMAGES])
    job = ShardJob(images.root, images.class_names, options.compression, decode_threads=options.threads)
    write_result("pipeline", measure(images, job, options.rounds))


if __name__ == "__main__":
    main()
