"""Caches with a number for each image that follows from its features, for tests of heads for numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caches import RECIPE
from headstart.cache.writer import ShardWriter
from headstart.types import FeatureBatch, ImageRef, ImageRow

WIDTH = 24


def numbered_cache(
    path: Path,
    n: int = 120,
    *,
    seed: int = 0,
    of: str = "",
    splits: Sequence[str | None] | None = None,
    groups: Sequence[str | None] | None = None,
    without: Sequence[int] = (),
    weights: Sequence[float] | None = None,
    copies: dict[int, int] | None = None,
) -> Path:
    """Write a cache of unlabelled images whose numbers are a noisy linear function of the features.

    ``without`` are rows without a number, and ``copies`` map a row to the row whose bytes and features it has.
    """
    rng = np.random.default_rng(seed)
    values = rng.random((n, WIDTH)).astype(np.float32)
    for row, source in (copies or {}).items():
        values[row] = values[source]
    slope = np.random.default_rng(99).normal(size=WIDTH)
    targets: NDArray[np.float64] = 50 + 10 * values @ slope + rng.normal(size=n)
    rows = [
        ImageRow(
            ImageRef(
                f"{of}{row}.jpg",
                None,
                splits[row] if splits else None,
                groups[row] if groups else None,
                100,
                row,
                weight=weights[row] if weights else 1.0,
                target=None if row in without else float(targets[row]),
            ),
            hashlib.sha256(f"{of}{(copies or {}).get(row, row)}".encode()).hexdigest(),
            300,
            200,
        )
        for row in range(n)
    ]
    recipe = replace(RECIPE, pooled_layers=())
    with ShardWriter(path, recipe=recipe, class_names=(), compression="zstd") as writer:
        writer.append(FeatureBatch(values[:, None, None, :], np.empty((n, 0), np.float32)), rows)
    return path
