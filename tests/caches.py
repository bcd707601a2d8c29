"""Small caches for tests, and everything that one says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.cache.reader import open_cache
from headstart.cache.writer import ShardWriter
from headstart.types import Failure, FeatureBatch, ImageRef, ImageRow, Recipe

#: A foreign backbone, so that rows are small: maps of 2 × 3 × 4, and 5 averages of one layer.
RECIPE = Recipe(
    backbone="foreign:test",
    weights="custom",
    weights_sha256="0" * 64,
    layer="last",
    pooled_layers=("before",),
    input_size_px=8,
    decode="test-1",
    resize="test",
    precision="float32",
    storage="float16",
)
MAP_SHAPE = (2, 3, 4)
N_POOLED = 5
CLASS_NAMES = ("ants", "bees")


def make_row(number: int, path: str | None = None) -> ImageRow:
    """Return a row whose every value follows from its number."""
    ref = ImageRef(
        path=path or f"{('ants', 'bees')[number % 2]}/{number}.jpg",
        label=(*CLASS_NAMES, None)[number % 3],
        split=("train", "validation", None)[number % 3],
        group=f"patient {number}" if number % 4 == 0 else None,
        size_bytes=1000 + number,
        mtime_ns=1_700_000_000_000_000_000 + number,
    )
    notes = ("exif-rotated-90", "from-CMYK") if number % 5 == 0 else ()
    return ImageRow(ref, hashlib.sha256(str(number).encode()).hexdigest(), 640 + number, 480, notes)


def make_batch(numbers: Sequence[int], map_shape: Sequence[int] = MAP_SHAPE, n_pooled: int = N_POOLED) -> FeatureBatch:
    """Return features that follow from the numbers of their rows, most of them zero, as after a relu."""
    maps, averages = [], []
    for number in numbers:
        rng = np.random.default_rng(number)
        maps.append(np.maximum(rng.normal(-1, 2, tuple(map_shape)), 0))
        averages.append(rng.random(n_pooled))
    return FeatureBatch(np.array(maps, np.float32), np.array(averages, np.float32))


def failure(number: int = 0) -> Failure:
    """Return an image that could not be read."""
    return Failure(ImageRef(f"bees/broken {number}.png", "bees", "train", None, 7, 8), "The file is empty.")


def write_cache(
    path: Path,
    numbers: Sequence[int] = range(7),
    *,
    recipe: Recipe = RECIPE,
    compression: str = "zstd",
    failures: Sequence[Failure] = (),
    **options: Any,
) -> Path:
    """Write a cache of some rows, in batches of three."""
    with ShardWriter(path, recipe=recipe, class_names=CLASS_NAMES, compression=compression, **options) as writer:
        for start in range(0, len(numbers), 3):
            part = numbers[start : start + 3]
            writer.append(make_batch(part), [make_row(number) for number in part])
        for one in failures:
            writer.add_failure(one)
    return path


def everything(path: Path) -> dict[str, Any]:
    """Return all that a cache says, as values that compare."""
    with open_cache(path) as cache:
        batches = list(cache.batches(batch_rows=4))
        return {
            "recipe": cache.recipe,
            "header": (cache.n_images, cache.layout, cache.created, dict(cache.info), dict(cache.versions)),
            "class_names": cache.class_names,
            "refs": cache.refs(),
            "labels": cache.labels.tolist(),
            "sha256": cache.sha256,
            "features_sha256": list(cache.rows.features_sha256),
            "sizes": (cache.rows.width_px.tolist(), cache.rows.height_px.tolist()),
            "notes": list(cache.rows.notes),
            "failures": cache.failures,
            "features": [batch.features.tobytes() for batch in batches],
            "pooled": [batch.pooled.tobytes() for batch in batches],
            "pooled_column_layer": cache.pooled_column_layer,
        }
