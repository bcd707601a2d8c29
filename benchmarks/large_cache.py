"""Heads on more features than the memory holds: 200,000 flattened maps, 20 GB in float32, under a limit of 4 GiB.

python benchmarks/large_cache.py [--rows 200000] [--limit 4GiB] [--epochs 2] [--keep FILE] [--together]

The cache is made of planted classes: maps of 7 × 7 × 512, nine of ten values zero, the same from the same seed. Each head is
fitted by ``fit-head``'s own code in a process of its own, under RLIMIT_DATA: the kernel refuses that process any writable
private memory above the limit (heap, stacks, anonymous maps), whether it is in use or only asked for. Not counted are the
code of libraries, which is not writable, and the page cache of the file; the peak of the resident set (VmHWM), printed
beside it, has the former.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from headstart.cache.merge import MergedRow, merge
from headstart.cache.reader import open_cache
from headstart.cache.writer import ShardWriter
from headstart.runtime import parse_size
from headstart.types import FeatureBatch, ImageRef, ImageRow, Recipe
from machine import write_result

N_CLASSES, SHAPE, DENSITY, SHARD_ROWS, BATCH_ROWS = 10, (7, 7, 512), 0.1, 10_000, 250

#: Of how many values a class raises the odds, and by what factor: few enough that no single value tells a class.
PLANTED, FACTOR = 400, 1.5

RECIPE = Recipe(
    backbone="foreign:planted",
    weights="none",
    weights_sha256="0" * 64,
    layer="map",
    pooled_layers=(),
    input_size_px=224,
    decode="none",
    resize="none",
    precision="float32",
    storage="float16",
)

HEADS: dict[str, dict[str, Any]] = {
    "logistic": {"scaling": "sqrt-l2"},
    "ridge": {"scaling": "sqrt-l2"},
    "dense": {"scaling": "none"},
}


def batch(start: int, n_rows: int, odds: np.ndarray[Any, Any]) -> tuple[FeatureBatch, list[ImageRow]]:
    """Rows from ``start`` on; row i is of class i mod 10, and every tenth block of them is to be tested on."""
    rng = np.random.default_rng([7, start])
    numbers = np.arange(start, start + n_rows)
    present = rng.random((n_rows, odds.shape[1]), dtype=np.float32) < odds[numbers % N_CLASSES]
    values = np.zeros(present.shape, np.float32)
    values[present] = rng.exponential(1.0, int(present.sum()))
    rows = [
        ImageRow(
            ImageRef(
                f"class {i % N_CLASSES}/{i}.jpg", f"class {i % N_CLASSES}",
                "test" if i // N_CLASSES % 10 == 0 else "train", None, 1, 1,
            ),
            hashlib.sha256(str(i).encode()).hexdigest(), 224, 224, (),
        )
        for i in numbers.tolist()
    ]  # fmt: skip
    return FeatureBatch(values.reshape(-1, *SHAPE), np.empty((n_rows, 0), np.float32)), rows


def make_cache(path: Path, n_rows: int) -> None:
    """Write the cache: shards, then one file, as an extraction does."""
    rng = np.random.default_rng(7)
    odds = np.full((N_CLASSES, int(np.prod(SHAPE))), DENSITY, np.float32)
    for row in odds:
        row[rng.choice(len(row), PLANTED, replace=False)] *= FACTOR
    names = [f"class {number}" for number in range(N_CLASSES)]
    shards, merged = [], []
    for first in range(0, n_rows, SHARD_ROWS):
        shards.append(path.with_name(f"{path.stem}-{first}.shard.h5"))
        with ShardWriter(shards[-1], recipe=RECIPE, class_names=names) as writer:
            for start in range(first, min(first + SHARD_ROWS, n_rows), BATCH_ROWS):
                features, rows = batch(start, min(BATCH_ROWS, n_rows - start), odds)
                writer.append(features, rows)
                merged += [MergedRow(len(shards) - 1, row - first, rows[row - start].ref)
                           for row in range(start, start + len(rows))]  # fmt: skip
    merge(path, sources=shards, rows=merged, failures=[], class_names=names, layout="")
    for shard in shards:
        shard.unlink()


def read_rate(path: Path) -> float:
    """Rows per second of the cache, decompressed and checked, in random order."""
    with open_cache(path) as cache:
        rows = np.random.default_rng(0).permutation(cache.n_images)[:4000]
        start = time.perf_counter()
        for _ in cache.batches(rows):
            pass
        return round(len(rows) / (time.perf_counter() - start))


def fit_one(path: Path, head_type: str, limit: int, epochs: int) -> None:
    """Fit one head under the limit and print what came of it; this is what a child process runs."""
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    from headstart.fit import fit_head
    from headstart.heads.catalogue import default_spec

    params = {"epochs": epochs} if head_type == "dense" else {}
    spec = default_spec(head_type, features=["flatten"], params=params, **HEADS[head_type])
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = fit_head(path, spec, output=Path(folder) / "head", max_memory=limit)
    if not result.streamed:
        raise SystemExit("The features fitted in the memory: take more rows, or a lower limit.")
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    classifier = result.head.named_steps["classifier"]
    print(json.dumps({
        "head": head_type, "scaling": spec.scaling, "params": params, "n_train": result.n_train,
        "n_test": result.score.n_samples,
        "accuracy": result.score.accuracy, "fit_seconds": round(result.fit_seconds, 1),
        "total_seconds": round(time.perf_counter() - start, 1), "peak_resident_gib": round(peak / 2**30, 2),
        "n_iter": getattr(classifier, "n_iter_", None), "warnings": result.warnings,
    }))  # fmt: skip


def probe(limit: int) -> str:
    """Return what a process under the limit is told that asks for all of it: proof that it holds."""
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_DATA, ({limit}, {limit}))\n"
        f"try: bytearray({limit}); print('granted')\nexcept MemoryError: print('refused')"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def fit_all(options: argparse.Namespace, path: Path) -> list[dict[str, Any]]:
    """Fit the heads, each in a process of its own; one after the other, or all at once."""
    command = [sys.executable, __file__, "--keep", str(path), "--limit", options.limit, "--epochs", str(options.epochs)]
    fits, runs = [], []
    for head_type in options.heads:
        runs.append(subprocess.Popen([*command, "--one", head_type], stdout=subprocess.PIPE, text=True))
        if not options.together:
            runs[-1].wait()
    for head_type, run in zip(options.heads, runs, strict=True):
        output = run.communicate()[0]
        if run.returncode:
            raise SystemExit(f"{head_type} ended with {run.returncode} under the limit of {options.limit}.")
        fits.append(json.loads(output.splitlines()[-1]))
        print(fits[-1], file=sys.stderr, flush=True)
    return fits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--limit", default="4GiB")
    parser.add_argument("--epochs", type=int, default=2, help="of the dense head")
    parser.add_argument("--keep", type=Path, help="where the cache lies, or is made and stays")
    parser.add_argument("--heads", nargs="+", default=list(HEADS))
    parser.add_argument(
        "--together", action="store_true", help="all heads at once; their times are not comparable then"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    limit = parse_size(options.limit)
    if options.one:
        fit_one(options.keep, options.one, limit, options.epochs)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.keep or Path(folder) / "large.h5"
        start = time.perf_counter()
        if not path.exists():
            make_cache(path, options.rows)
        made_seconds = round(time.perf_counter() - start, 1)
        fits = fit_all(options, path)
        result = {
            "rows": options.rows,
            "columns": int(np.prod(SHAPE)),
            "density": DENSITY,
            "matrix_float32_gib": round(options.rows * 4 * int(np.prod(SHAPE)) / 2**30, 2),
            "cache_gib": round(path.stat().st_size / 2**30, 2),
            "made_seconds": made_seconds,
            "read_rows_per_second": read_rate(path),
            "limit": {"bytes": limit, "enforced_by": "RLIMIT_DATA", "a_request_of_all_of_it": probe(limit)},
            "fitted_at_once": options.together,
            "load_average": os.getloadavg()[1],
            "fits": fits,
        }
    write_result("large-cache", result)


if __name__ == "__main__":
    main()
