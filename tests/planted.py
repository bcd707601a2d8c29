"""Caches in which something is to be found."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caches import RECIPE
from headstart.cache.writer import ShardWriter
from headstart.types import FeatureBatch, ImageRef, ImageRow


class Planted:
    """A cache in the making: rows of two classes that a head can tell apart, 24 images each, all sound."""

    def __init__(self, n_per_class: int = 24, classes: Sequence[str] = ("ants", "bees"), width: int = 128) -> None:
        rng = np.random.default_rng(0)
        self.classes, self.rows, self.failures = tuple(classes), [], []
        self.features: list[NDArray[np.float32]] = []
        centres = np.abs(rng.normal(size=(len(classes), width)))
        for c, name in enumerate(classes):
            for i in range(n_per_class):
                ref = ImageRef(f"{name}/{i}.jpg", name, None, None, 1000, 1)
                self.rows.append(ImageRow(ref, hashlib.sha256(ref.path.encode()).hexdigest(), 640, 480, ()))
                self.features.append((centres[c] + np.abs(rng.normal(scale=0.7, size=width))).astype(np.float32))

    def change(self, row: int, **values: Any) -> None:
        """Change fields of a row, or of its ref."""
        in_ref = {name: values.pop(name) for name in list(values) if name in ImageRef.__dataclass_fields__}
        self.rows[row] = replace(self.rows[row], ref=replace(self.rows[row].ref, **in_ref), **values)

    def write(self, path: Path) -> Path:
        recipe = replace(RECIPE, pooled_layers=(), storage="float32", input_size_px=224)
        with ShardWriter(path, recipe=recipe, class_names=self.classes) as writer:
            maps = np.array(self.features)[:, None, None, :]
            writer.append(FeatureBatch(maps, np.empty((len(maps), 0), np.float32)), self.rows)
            for failure in self.failures:
                writer.add_failure(failure)
        return path
