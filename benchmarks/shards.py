"""A folder of shards beside one file of the same rows: how fast it is made, opened and read.

python benchmarks/shards.py CACHE [--repeats 10] [--rounds 5]

The rows of a cache are repeated and written as shards of 128 rows, as an extraction leaves them. From there: a merge into
one file, or a manifest. Both are then opened, read from top to end, and read in random order in batches of 256, in rounds
that alternate; medians. The files are in the page cache; what is measured is the software.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from headstart.cache.merge import MergedRow, MergedRows, merge, publish_shards
from headstart.cache.reader import FeatureCache, open_cache
from headstart.cache.shards import MANIFEST, ShardFolder
from headstart.images.discovery.refs import ImageRefs
from machine import write_result

SHARD_ROWS, BATCH_ROWS = 128, 256


def write_shards(source: FeatureCache, folder: Path, n_rows: int) -> list[Path]:
    """Write shards of the rows of a cache, over and over, without recompression."""
    refs, paths = source.refs(), []
    for first in range(0, n_rows, SHARD_ROWS):
        numbers = [row % source.n_images for row in range(first, min(first + SHARD_ROWS, n_rows))]
        paths.append(folder / f"{first:020}.h5")
        merge(
            paths[-1], sources=[source], rows=[MergedRow(0, row, refs[row]) for row in numbers], failures=(),
            class_names=source.class_names, layout=source.layout,
        )  # fmt: skip
    return paths


def rows_of(paths: list[Path]) -> MergedRows:
    """Return all rows of all shards, in order."""
    refs, sources, rows = [], [], []
    for number, path in enumerate(paths):
        with open_cache(path) as cache:
            refs += cache.refs()
            sources += [number] * cache.n_images
            rows += range(cache.n_images)
    return MergedRows(np.array(sources, np.int32), np.array(rows), ImageRefs.of(refs))


def seconds(action: Callable[[], object]) -> float:
    """Return what an action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def opened(path: Path) -> None:
    """Open a cache and close it."""
    with open_cache(path):
        pass


def read(path: Path, *, shuffled: bool) -> None:
    """Read features and averages of all rows, batch by batch."""
    with open_cache(path) as cache:
        rows = np.random.default_rng(0).permutation(cache.n_images) if shuffled else None
        for _ in cache.batches(rows, batch_rows=BATCH_ROWS):
            pass


def main() -> None:
    """Print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, open_cache(options.cache) as source:
        folder, file, n_rows = Path(name) / "folder", Path(name) / "file.h5", source.n_images * options.repeats
        folder.mkdir()
        paths = write_shards(source, folder, n_rows)
        rows = rows_of(paths)
        said = {"failures": (), "class_names": source.class_names, "layout": source.layout}
        steps: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "made from its shards": (
                lambda: merge(file, sources=paths, rows=rows, **said),
                lambda: publish_shards(ShardFolder(folder), sources=paths, rows=rows, **said),
            ),
            "opened": (lambda: opened(file), lambda: opened(folder)),
            "read in order": (lambda: read(file, shuffled=False), lambda: read(folder, shuffled=False)),
            "read at random": (lambda: read(file, shuffled=True), lambda: read(folder, shuffled=True)),
        }
        result: dict[str, object] = {"rows": n_rows, "shards": len(paths), "rounds": options.rounds}
        for step, (of_file, of_folder) in steps.items():
            both = [(seconds(of_file), seconds(of_folder)) for _ in range(options.rounds)]
            one, many = (statistics.median(column) for column in zip(*both, strict=True))
            result[step] = {
                "file_seconds": round(one, 4),
                "folder_seconds": round(many, 4),
                "ratio": round(many / one, 2),
            }
            print(
                f"{step:22} file {one:8.3f} s   folder {many:8.3f} s   {many / one:5.2f} ×   {n_rows / many:10,.0f} rows/s"
            )
        result["file_bytes"] = file.stat().st_size
        result["shard_bytes"] = sum(path.stat().st_size for path in paths)
        result["manifest_bytes"] = (folder / MANIFEST).stat().st_size
        print({key: result[key] for key in ("file_bytes", "shard_bytes", "manifest_bytes")})
        write_result("shards", result)


if __name__ == "__main__":
    main()
