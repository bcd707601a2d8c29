"""What the chunks and filters of a cache cost, on the features of a real one: docs/adr/0001-cache-format.md.

python benchmarks/storage.py features/flowers17.h5 [ROWS] [--brief]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from headstart.cache.merge import MergedRow, merge
from headstart.cache.reader import open_cache
from headstart.cache.writer import ShardWriter
from headstart.types import FeatureBatch, ImageRow
from machine import median, write_result

FILTERS: dict[str, dict[str, Any]] = {
    "none": {},
    "zstd-1": dict(hdf5plugin.Zstd(clevel=1)),
    "zstd-3": dict(hdf5plugin.Zstd(clevel=3)),
    "zstd-9": dict(hdf5plugin.Zstd(clevel=9)),
    "zstd-1 shuffle": {"shuffle": True, **hdf5plugin.Zstd(clevel=1)},
    "gzip-4": {"compression": "gzip", "compression_opts": 4},
    "gzip-4 shuffle": {"compression": "gzip", "compression_opts": 4, "shuffle": True},
}

#: Rows per chunk and filter, compared by plain h5py, so that nothing but the layout differs.
LAYOUTS = [(1, "zstd-1"), (8, "zstd-1"), (32, "zstd-1"), *((1, name) for name in FILTERS if name != "zstd-1")]

#: What people write who give it no thought: float32, in h5py's own layout.
PLAIN: dict[str, dict[str, Any]] = {"h5py float32": {}, "h5py float32, gzip": {"compression": "gzip"}}

ROUNDS, BATCH_ROWS, SCATTERED_ROWS = 5, 256, 256


def rate(n_rows: int, action: Callable[[], object]) -> float:
    """Rows per second of processor time, median of some rounds: what one core does, whatever else the machine has to do."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        action()
        seconds.append(time.process_time() - start)
    return round(n_rows / median(seconds))


def layout(values: np.ndarray[Any, Any], rows: int, filters: dict[str, Any], path: Path) -> dict[str, float]:
    """Size and rates of one dataset in chunks of so many rows, with checksums as ours have them."""
    return dataset(values, {"chunks": (rows, *values.shape[1:]), "fletcher32": True, **filters}, path)


def dataset(values: np.ndarray[Any, Any], options: dict[str, Any], path: Path) -> dict[str, float]:
    """Size and rates of one dataset of h5py."""

    def write() -> None:
        with h5py.File(path, "w", libver=("v110", "v110")) as file:
            file.create_dataset("x", data=values, **options)

    written = rate(len(values), write)
    with h5py.File(path, "r") as file:
        data = file["x"]
        scattered = np.random.default_rng(0).permutation(len(values))[:SCATTERED_ROWS].tolist()
        return {
            "kb_per_row": round(path.stat().st_size / len(values) / 1000, 2),
            "write": written,
            "read": rate(len(values), lambda: [data[i : i + BATCH_ROWS] for i in range(0, len(values), BATCH_ROWS)]),
            "read_scattered": rate(SCATTERED_ROWS, lambda: [data[row] for row in scattered]),
        }


def own(source: Path, n_rows: int, folder: Path) -> dict[str, float]:
    """Rates of the package's own writer, reader and merge."""
    with open_cache(source) as cache:
        rows = np.arange(n_rows) % cache.n_images
        (batch, *_) = [
            FeatureBatch(
                np.concatenate([part.features for part in cache.batches(rows)]).astype(np.float32), cache.pooled(rows)
            )
        ]
        refs, digests = cache.refs(), cache.sha256
        described = [ImageRow(refs[row], digests[row], 1, 1) for row in rows.tolist()]
        names, recipe = cache.class_names, cache.recipe
    path = folder / "own.h5"

    def write() -> None:
        with ShardWriter(path, recipe=recipe, class_names=names) as writer:
            for i in range(0, n_rows, 32):
                part = FeatureBatch(batch.features[i : i + 32], batch.pooled[i : i + 32])
                writer.append(part, described[i : i + 32])

    result = {"write": rate(n_rows, write)}
    with open_cache(path) as cache:
        order = np.random.default_rng(0).permutation(n_rows)
        merged = [MergedRow(0, row, described[row].ref) for row in range(n_rows)]
        result |= {
            "read": rate(n_rows, lambda: [None for _ in cache.batches()]),
            "read_scattered": rate(n_rows, lambda: [None for _ in cache.batches(order)]),
            "read_pooled": rate(n_rows, cache.pooled),
            "merge": rate(
                n_rows,
                lambda: merge(
                    folder / "merged.h5", sources=[cache], rows=merged, failures=(), class_names=names, layout="flat"
                ),
            ),
            "kb_per_row": round(cache.size_bytes / n_rows / 1000, 2),
        }
    return result


def layouts(features: np.ndarray[Any, Any], pooled: np.ndarray[Any, Any], path: Path) -> dict[str, Any]:
    """Return figures of every layout that was thought of."""
    return {
        "features_layouts": {f"{n} rows, {name}": layout(features, n, FILTERS[name], path) for n, name in LAYOUTS},
        "pooled_layouts": {
            f"{n} rows, {name}": layout(pooled, n, FILTERS[name], path)
            for n, name in [(1, "none"), (1, "zstd-1"), (1, "zstd-1 shuffle"), (32, "zstd-1")]
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write ``results/storage.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("rows", type=int, nargs="?", default=1360)
    parser.add_argument("--brief", action="store_true", help="plain h5py and ours alone; results are printed only")
    options = parser.parse_args(arguments)
    with open_cache(options.cache) as cache:
        rows = np.arange(options.rows) % cache.n_images
        features = np.concatenate([batch.features for batch in cache.batches(rows)])
        pooled = cache.pooled(rows)
        zeros = round(cache.sparsity(), 3)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "x.h5")
        wide = features.astype(np.float32)
        result = {
            "rows": options.rows,
            "features": {"shape": features.shape[1:], "dtype": str(features.dtype), "zeros": zeros},
            **({} if options.brief else layouts(features, pooled, path)),
            "plain": {name: dataset(wide, filters, path) for name, filters in PLAIN.items()},
            "headstart": own(options.cache, options.rows, Path(name)),
        }
    write_result("storage", result, keep=not options.brief)


if __name__ == "__main__":
    main()
