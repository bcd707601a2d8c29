"""Caches with classes that can be told apart, for tests of heads on caches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from caches import RECIPE
from headstart.cache.writer import ShardWriter
from headstart.types import Failure, FeatureBatch, ImageRef, ImageRow, Recipe

NAMES = ("ants", "bees", "wasps")

#: Channels: enough of them that different images look different.
WIDTH = 64


def labelled_cache(
    path: Path,
    labels: Sequence[int],
    *,
    splits: Sequence[str | None] | None = None,
    copies: dict[int, int] | None = None,
    near: dict[int, int] | None = None,
    distance: float = 1.5,
    seed: int = 0,
    recipe: Recipe = RECIPE,
    failed: Sequence[str] = (),
    of: str = "",
    alike: dict[int, int] | None = None,
) -> Path:
    """Write a cache whose classes lie around points of their own.

    Parameters
    ----------
    path : Path
        The file.
    labels : sequence of int
        Class of each row, 0 to 2; −1 for none.
    splits : sequence of str, optional
        Split of each row.
    copies, near : dict of int to int
        Row → the row whose bytes it has, and the row whose features it nearly has.
    distance : float
        Between the classes, in standard deviations of a value.
    seed : int
        Of the features.
    recipe : Recipe
        Said to have made them, without its pooled layers.
    failed : sequence of str
        Class of each image that could not be read.
    of : str
        Images of another name have other bytes.
    alike : dict of int to int
        Class → the class that it cannot be told from.
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(3, WIDTH)) * distance
    values = np.abs(
        rng.normal(size=(len(labels), WIDTH)) + centres[[(alike or {}).get(label, label) for label in labels]]
    )
    for row, source in {**(copies or {}), **(near or {})}.items():
        values[row] = values[source] * (1.0 if row in (copies or {}) else 1.001)
    rows = [
        ImageRow(
            ImageRef(f"{name}/{of}{row}.jpg", name, splits[row] if splits else None, None, 100, row),
            hashlib.sha256(f"{of}{(copies or {}).get(row, row)}".encode()).hexdigest(),
            300,
            200,
        )
        for row, name in enumerate(NAMES[label] if label >= 0 else None for label in labels)
    ]
    maps = values[:, None, None, :].astype(np.float32)
    with ShardWriter(path, recipe=replace(recipe, pooled_layers=()), class_names=NAMES, compression="zstd") as writer:
        writer.append(FeatureBatch(maps, np.empty((len(labels), 0), np.float32)), rows)
        for number, name in enumerate(failed):
            writer.add_failure(Failure(ImageRef(f"{name}/bad{number}.jpg", name, None, None, 100, 0), "damaged"))
    return path
