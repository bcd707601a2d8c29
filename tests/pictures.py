"""Small pictures for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> Path:
    """Write a picture of coloured blocks that differs for every seed; the suffix decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(path)
    return path


def class_folders(root: Path, n_per_class: int = 6, classes: tuple[str, ...] = ("ant", "bee")) -> Path:
    """Write a folder of class folders; the classes differ in brightness, so that a head can learn them."""
    for number, name in enumerate(classes):
        for i in range(n_per_class):
            path = root / name / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            low, high = (0, 128) if number % 2 == 0 else (128, 256)
            blocks = np.random.default_rng(1000 * number + i).integers(low, high, (5, 5, 3), dtype=np.uint8)
            Image.fromarray(blocks).resize((40, 30), Image.Resampling.NEAREST).save(path)
    return root
