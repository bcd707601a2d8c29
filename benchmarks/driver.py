"""Memory and time of the driver of a cluster, for a million new images: scan, plan, shards, assembly, merge.

python benchmarks/driver.py [--images 1000000] [--layouts file shards] [--folder FOLDER]

The images are empty but for their size (sparse files), in a thousand class folders; a worker of a Ray cluster on this
machine answers at once, with features of a few numbers, through the project's own writer, so everything that the driver does
of a run is done: the walk through the folders, the plan, shards handed out one by one, reports, assembly, and the merged
file or the manifest of the folder of shards.
Two things are not: of each file the plan reads 4 KB, which are zeros, and is given a digest of its path in their place; and
no image is decoded.

Peaks are of the resident set of the driver's process alone (VmHWM), interpreter, imports and Ray's own client included.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headstart.cache.shards import MANIFEST
from headstart.cache.writer import ShardWriter
from headstart.extract import plan, ray_engine
from headstart.extract import run as extraction
from headstart.extract import run as local
from headstart.extract.options import ExtractOptions
from headstart.extract.run import extract_features
from headstart.extract.shard_jobs import SHARD_IMAGES, Shard, ShardReport
from headstart.ray_cluster import ClusterOptions
from headstart.types import FeatureBatch, ImageRef, ImageRow, Recipe
from machine import write_result
from scale import N_POOLED, RECIPE, SHAPE, scan, status

LIMIT_MIB = 1024

#: Name of the cache in each layout.
OUTPUTS = {"file": "cache.h5", "shards": "cache"}


class SynthNetwork:
    """Stands in for ``extract.network.Network``: a recipe, and nothing that computes."""

    def wanted(self, existing: Recipe | None) -> Recipe:
        """Return the recipe of the synthetic features."""
        return RECIPE


class SynthWorker:
    """Stands in for ``extract.cluster.worker.Worker``: writes the shard that it is given, with features of a few numbers."""

    def __init__(self, network: SynthNetwork, job: Any, n_cpus: int) -> None:
        self.class_names = job.class_names
        self.rng = np.random.default_rng(0)

    def choose(self, refs: list[ImageRef]) -> tuple[Recipe, str]:
        """Return the recipe."""
        return RECIPE, "float32: synthetic"

    def extract(self, shard: Shard, recipe: Recipe, info: dict[str, str]) -> ShardReport:
        """Write one shard."""
        rows = [ImageRow(ref, digest_of(ref).hex(), 640, 480, ()) for ref in shard.refs]
        maps = np.maximum(self.rng.normal(-1, 2, (len(rows), *SHAPE)), 0).astype(np.float32)
        with ShardWriter(shard.path, recipe=recipe, class_names=self.class_names, info=info) as writer:
            writer.append(FeatureBatch(maps, self.rng.random((len(rows), N_POOLED), np.float32)), rows)
        return ShardReport(shard.path, len(rows))

    def place(self) -> tuple[str, str]:
        """Return a name."""
        return "node", "0"

    def stop(self) -> None:
        """Nothing to stop."""


def digest_of(ref: ImageRef) -> bytes:
    """Return what stands for the digest of an image's bytes."""
    return hashlib.sha256(os.fsencode(ref.path)).digest()


def make_folder(root: Path, n_images: int) -> None:
    """Make sparse files as large as photographs."""
    above = ""
    for ref in scan(n_images):
        folder, _, _ = ref.path.partition("/")
        if folder != above:
            above = folder
            (root / folder).mkdir(parents=True)
        descriptor = os.open(root / ref.path, os.O_CREAT | os.O_WRONLY, 0o644)
        os.ftruncate(descriptor, ref.size_bytes)
        os.close(descriptor)


class Phases:
    """Seconds and peak of each phase of a run; a phase lasts until the next one begins."""

    def __init__(self) -> None:
        self.figures: dict[str, dict[str, float]] = {}
        self.begin("start")

    def begin(self, name: str) -> None:
        """End the last phase, and begin one."""
        now = time.perf_counter()
        if self.figures:
            last = self.figures[self.name]
            last["seconds"] = round(now - self.start, 1)
            last["peak_mib"] = round(status("VmHWM") / 2**20, 1)
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew (proc(5))
        self.name, self.start = name, now
        self.figures[name] = {}

    def watch(self, module: Any, function: str, phase: str) -> None:
        """Let a phase begin where a function is called."""
        inner: Callable[..., Any] = getattr(module, function)

        def watched(*arguments: Any, **options: Any) -> Any:
            self.begin(phase)
            return inner(*arguments, **options)

        setattr(module, function, watched)


def run(folder: Path, output: Path, layout: str) -> dict[str, Any]:
    """Extract with the synthetic network; return the figures of each phase, and the sizes of what was written."""
    read = plan.read_part
    plan.read_part = lambda path, *part: read(path, *part) and hashlib.sha256(os.fsencode(path)).digest()
    ray_engine.Worker = SynthWorker  # type: ignore[misc, assignment]
    phases = Phases()
    phases.watch(local, "discover", "scan")
    phases.watch(extraction, "make_plan", "plan")
    phases.watch(extraction.Run, "compute", "shards")
    phases.watch(extraction, "assemble", "assembly")
    phases.watch(extraction.Run, "publish", "publish")
    options = ExtractOptions(
        engine="ray",
        cluster=ClusterOptions(workers=1, cpus_per_worker=1),
        cache_layout=layout,
        shard_images=SHARD_IMAGES,
    )
    extract_features(folder, output, options=options, network=SynthNetwork())  # type: ignore[arg-type]
    phases.begin("end")
    del phases.figures["end"]
    peak = max(figure["peak_mib"] for figure in phases.figures.values())
    files = [path.stat().st_size for path in output.glob("*.h5")] if output.is_dir() else []
    return {
        "phases": phases.figures,
        "peak_mib": peak,
        "n_shards": len(files),
        "manifest_bytes": (output / MANIFEST).stat().st_size if files else 0,
    }


def alone(folder: Path, layout: str) -> dict[str, Any]:
    """Return the figures of a run in a process of its own."""
    command = [sys.executable, __file__, "--folder", str(folder), "--one", layout]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    print(layout, found, file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Measure and write ``results/driver.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--layouts", nargs="+", choices=("file", "shards"), default=("file", "shards"))
    parser.add_argument("--folder", type=Path, help="where the files are, or are made and stay")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.one:
            print(json.dumps(run(options.folder, Path(name) / OUTPUTS[options.one], options.one)))
            return
        folder = options.folder or Path(name) / "images"
        if not folder.exists():
            make_folder(folder, options.images)
        figures = {layout: alone(folder, layout) for layout in options.layouts}
    peak = max(figure["peak_mib"] for figure in figures.values())
    write_result("driver", {
        "images": options.images, "limit_mib": LIMIT_MIB, "layouts": figures, "peak_mib": peak,
        "ratio": round(peak / LIMIT_MIB, 3),
    })  # fmt: skip


if __name__ == "__main__":
    main()
