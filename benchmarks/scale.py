"""Caches of ten thousand to a million rows: seconds and memory of every step that looks at all of them.

python benchmarks/scale.py [--rows 10000 100000 1000000] [--steps plan merge ...] [--keep FOLDER] [--profile]

The rows are synthetic: small maps (1 × 1 × 8 and 5 averages), descriptions as of photographs in a thousand class folders.
They are written as shards by the project's own writer and merged as an extraction does it. No image file exists: an
unchanged folder is one whose scan says what the cache says.

Each step runs in a process of its own. Its memory is the peak of the resident set (VmHWM) less what was resident before
the scan that the step is given, imports included; so it counts what HDF5 and the allocator hold, too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from headstart.cache.integrity import verify_file
from headstart.cache.merge import merge
from headstart.cache.reader import FeatureCache, open_cache
from headstart.cache.writer import ShardWriter
from headstart.extract.options import SHARD_IMAGES
from headstart.extract.plan import KnownRows, assemble, is_current, make_plan
from headstart.images.discovery.refs import ImageRefs
from headstart.types import FeatureBatch, ImageRef, ImageRow, Recipe
from machine import write_result

ROWS, N_CLASSES, SHAPE, N_POOLED, BATCH_ROWS, READ_ROWS = (10_000, 100_000, 1_000_000), 1000, (1, 1, 8), 5, 250, 1000

#: Bytes a row that are allowed, the scan counted.
LIMIT_BYTES = 300

RECIPE = Recipe(
    backbone="foreign:scale", weights="none", weights_sha256="0" * 64, layer="map", pooled_layers=("before",),
    input_size_px=224, decode="none", resize="none", precision="float32", storage="float16",
)  # fmt: skip
CLASS_NAMES = tuple(f"class {number:03}" for number in range(N_CLASSES))


def scan(n_rows: int, start: int = 0, end: int | None = None) -> Iterator[ImageRef]:
    """Yield what a scan says of the images, sorted by path; every image of a label shares its string."""
    for i in range(start, n_rows if end is None else end):
        name = CLASS_NAMES[i * N_CLASSES // n_rows]
        yield ImageRef(
            f"{name}/IMG_{i:07}.jpg",
            name,
            None,
            None,
            50_000 + i * 7919 % 200_000,
            1_700_000_000 * 10**9 + i,
            i + 1,
        )


def write_shards(folder: Path, n_rows: int) -> None:
    """Write the shards of an extraction of so many images."""
    rng = np.random.default_rng(0)
    for first in range(0, n_rows, SHARD_IMAGES):
        last = min(first + SHARD_IMAGES, n_rows)
        with ShardWriter(folder / f"{first:08}.h5", recipe=RECIPE, class_names=CLASS_NAMES) as writer:
            for start in range(first, last, BATCH_ROWS):
                refs = list(scan(n_rows, start, min(start + BATCH_ROWS, last)))
                rows = [ImageRow(r, hashlib.sha256(r.path.encode()).hexdigest(), 640, 480, ()) for r in refs]
                maps = np.maximum(rng.normal(-1, 2, (len(rows), *SHAPE)), 0).astype(np.float32)
                writer.append(FeatureBatch(maps, rng.random((len(rows), N_POOLED), np.float32)), rows)


def merge_shards(folder: Path, refs: ImageRefs, output: Path) -> None:
    """Plan on shards alone and merge them, as an extraction that was interrupted at its very end."""
    sources = [KnownRows.of_file(path) for path in sorted((folder / "shards").iterdir())]
    plan = make_plan(folder, refs, sources)
    files = [source.file for source in sources]
    del sources  # as a run does
    rows, _ = assemble(refs, plan, (), n_sources=len(files), failures=())
    merge(output, sources=files, rows=rows, failures=(), class_names=CLASS_NAMES, layout="class-folders")


def plan_unchanged(cache: FeatureCache, folder: Path, refs: ImageRefs) -> None:
    """Find that nothing is to be done."""
    sources = [KnownRows.of_open(cache)]
    plan = make_plan(folder, refs, sources)
    rows, _ = assemble(refs, plan, (), n_sources=1, failures=())
    if plan.reasons["unchanged"] != len(refs) or not is_current(cache, rows, (), CLASS_NAMES, "class-folders"):
        raise SystemExit("The folder is unchanged, and the plan says that it is not.")


def read_some(cache: FeatureCache) -> None:
    """Read features and averages of some rows in random order."""
    for _ in cache.batches(np.random.default_rng(0).permutation(cache.n_images)[:READ_ROWS]):
        pass


def inspect_cache(cache: FeatureCache) -> None:
    """Do what ``headstart inspect`` does."""
    from headstart_cli.cache_commands.inspect_command import describe

    if sum(sum(counts.values()) for counts in describe(cache)["classes"].values()) != cache.n_images:
        raise SystemExit("Images are missing from the counts.")


def verify_whole(path: Path) -> None:
    """Read every byte."""
    for finding in verify_file(path):
        raise SystemExit(f"{path} is not whole: {finding}")


def steps(folder: Path, n_rows: int) -> dict[str, Callable[[ImageRefs], None]]:
    """Return what is measured, by name; each is given the scan, which is empty where the step needs none."""
    path = folder / "cache.h5"

    def opened(action: Callable[..., None], *arguments: Any) -> None:
        with open_cache(path) as cache:
            action(cache, *arguments)

    return {
        "write shards": lambda refs: write_shards(folder / "shards", n_rows),
        "merge": lambda refs: merge_shards(folder, refs, path),
        "open": lambda refs: opened(lambda cache: None),
        f"open and read {READ_ROWS:,} rows": lambda refs: opened(read_some),
        "plan of an unchanged folder": lambda refs: opened(plan_unchanged, folder, refs),
        "inspect": lambda refs: opened(inspect_cache),
        "verify": lambda refs: verify_whole(path),
    }


def status(name: str) -> int:
    """Return a figure of this process in bytes: VmRSS, what is resident, or VmHWM, its peak."""
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) * 1024


def measure(name: str, folder: Path, n_rows: int, profiled: bool) -> dict[str, float]:
    """Run one step in this process; return seconds and bytes."""
    import headstart_cli.cache_commands.inspect_command  # noqa: F401  (imports are no part of a step)

    before = status("VmRSS")
    refs = ImageRefs.of(scan(n_rows) if name == "merge" or name.startswith("plan") else ())
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew (proc(5))
    action, start = steps(folder, n_rows)[name], time.perf_counter()
    if profiled:
        profile(lambda: action(refs))
    else:
        action(refs)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "bytes": status("VmHWM") - before}


def profile(action: Callable[[], object]) -> None:
    """Print where the time of an action goes."""
    import cProfile
    import pstats

    with cProfile.Profile() as profiler:
        action()
    pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(18)


def run(name: str, folder: Path, n_rows: int, profiled: bool) -> dict[str, float]:
    """Run one step in a process of its own and return its figures."""
    command = [sys.executable, __file__, "--keep", str(folder), "--rows", str(n_rows), "--one", name]
    child = subprocess.run(command + ["--profile"] * profiled, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
    result = {
        "seconds": round(found["seconds"], 3),
        "peak_mib": round(found["bytes"] / 2**20, 1),
        "bytes_a_row": round(found["bytes"] / n_rows),
    }
    print(f"{n_rows:>9,}  {name:30}  {result}", file=sys.stderr, flush=True)
    return result


def measure_all(options: argparse.Namespace, root: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return rows → step → figures; shards and cache are made where they are missing."""
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for n_rows in options.rows:
        folder = root / str(n_rows)
        (folder / "shards").mkdir(parents=True, exist_ok=True)
        made = {"write shards": any((folder / "shards").iterdir()), "merge": (folder / "cache.h5").exists()}
        wanted = [
            name for name in steps(folder, n_rows) if name.split()[0] in options.steps or not made.get(name, True)
        ]
        figures[str(n_rows)] = {name: run(name, folder, n_rows, options.profile) for name in wanted}
    return figures


def scaling(figures: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return, per step, time a row and further bytes a row at the largest size against the smallest; linear is 1."""
    few, many = min(figures, key=int), max(figures, key=int)
    first, last = figures[few], figures[many]
    return {
        name: {
            "time_a_row_ratio": round(last[name]["seconds"] / int(many) / (first[name]["seconds"] / int(few)), 2),
            "further_bytes_a_row": round(
                (last[name]["peak_mib"] - first[name]["peak_mib"]) * 2**20 / max(1, int(many) - int(few))
            ),
        }
        for name in last
        if name in first
    }


def main() -> None:
    """Measure and write ``results/scale.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--steps", nargs="+", default=["write", "merge", "open", "plan", "inspect", "verify"])
    parser.add_argument("--keep", type=Path, help="where shards and caches lie, or are made and stay")
    parser.add_argument("--profile", action="store_true", help="print where the time goes; nothing is written")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.keep, options.rows[0], options.profile)))
        return
    with tempfile.TemporaryDirectory() as name:
        figures = measure_all(options, options.keep or Path(name))
    if options.profile:
        return
    write_result("scale", {
        "limit_bytes_a_row": LIMIT_BYTES, "shard_rows": SHARD_IMAGES, "rows": figures, "scaling": scaling(figures),
    })  # fmt: skip


if __name__ == "__main__":
    main()
