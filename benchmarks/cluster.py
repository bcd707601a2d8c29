"""The cluster engine against the local one: two workers of one core each, on this machine, over the same images.

python benchmarks/cluster.py FOLDER [--images 300] [--rounds 3]

Images per second of the shards alone: what it takes to start actors and load the network, once a run, is measured beside it.
A round runs both engines, each on a backbone that is loaded and warm, over the same shards.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.extract.engine import make_engine
from headstart.extract.network import Network
from headstart.extract.options import ExtractOptions
from headstart.extract.shard_jobs import Shard, ShardJob
from headstart.images.discovery.scan import discover
from headstart.images.load import RunTimes
from headstart.ray_cluster import ClusterOptions
from machine import median, write_result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headstart.extract.engine import Engine
    from headstart.types import ImageRef

SHARD_IMAGES, WARM_IMAGES = 50, 64
NAMES = count()


def timed(engine: Engine, refs: Sequence[ImageRef], folder: Path) -> float:
    """Return images per second over some images, in shards of 50."""
    starts = range(0, len(refs), SHARD_IMAGES)
    shards = [Shard(folder / f"{next(NAMES)}.h5", refs[start : start + SHARD_IMAGES]) for start in starts]
    begin = time.perf_counter()
    running = engine.run(
        shards, info={}, stop=threading.Event(), on_images=lambda _n, _place="": None, times=RunTimes()
    )
    with closing(running) as reports:
        n_images = sum(report.n_images for report in reports)
    return n_images / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    images = discover(options.folder)
    refs = images.refs[: options.images]
    rates: dict[str, list[float]] = {"local": [], "ray": []}
    starts: dict[str, list[float]] = {"local": [], "ray": []}
    for _ in range(options.rounds):
        for name, found in rates.items():
            chosen = ExtractOptions(engine=name, cluster=ClusterOptions(workers=2, cpus_per_worker=1))
            job = ShardJob(images.root, images.class_names, chosen.compression, decode_threads=chosen.decode_threads)
            with tempfile.TemporaryDirectory() as folder, make_engine(Network(chosen), job, chosen, None) as engine:
                begin = time.perf_counter()
                engine.prepare(None, refs)
                timed(engine, images.refs[-WARM_IMAGES * 2 :], Path(folder))  # every worker has its network then
                starts[name].append(time.perf_counter() - begin)
                found.append(timed(engine, refs, Path(folder)))
            print(f"{name}: {found[-1]:.1f} images/s, ready after {starts[name][-1]:.1f} s", flush=True)
    write_result(
        "cluster",
        {
            "images": len(refs),
            "workers": 2,
            "cpus_per_worker": 1,
            "baseline": "the local engine, same run, same shards",
            "baseline_images_per_second": rates["local"],
            "images_per_second": rates["ray"],
            "seconds_until_ready": starts,
            "ratio": median(rates["ray"]) / median(rates["local"]),
        },
    )


if __name__ == "__main__":
    main()
