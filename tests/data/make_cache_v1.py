"""Write ``cache_v1.h5``: a cache of format version 1 with something in every corner of it.

The file is committed and never made again: tests/unit/cache/test_golden.py proves that every later headstart reads what the
first one wrote. Its values are given by short formulas, so that the test can say them without this script.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from headstart.cache.writer import ShardWriter
from headstart.types import Failure, FeatureBatch, ImageRef, ImageRow, Recipe

RECIPE = Recipe(
    backbone="foreign:golden",
    weights="custom",
    weights_sha256="0123456789abcdef" * 4,
    layer="last",
    pooled_layers=("before last",),
    input_size_px=32,
    decode="golden-1",
    resize="golden",
    precision="float32",
    storage="float16",
)

ROWS = (
    ImageRow(ImageRef("ants/1.jpg", "ants", "train", None, 1, 10), "00" * 32, 640, 480),
    ImageRow(
        ImageRef("bees/ü, \n日本 \udcff.png", "bees", "validation", "group é", 2**40, -1), "ff" * 32, 1, 2**31 - 1
    ),
    ImageRow(ImageRef("unlabelled.gif", None, None, None, 0, 2**62), "5a" * 32, 3, 4, ("alpha-on-white", "from-P")),
    ImageRow(ImageRef("ants/2.jpg", "ants", "test", "group é", 5, 6), "a5" * 32, 7, 8),
)

FAILURE = Failure(ImageRef("bees/broken \udcfe.jpg", "bees", "train", "group é", 9, 11), "The file is empty.")


def main(path: Path) -> None:
    """Write the file."""
    os.environ["SOURCE_DATE_EPOCH"] = "1790000000"
    features = np.arange(4 * 2 * 2 * 3, dtype=np.float32).reshape(4, 2, 2, 3) / 8
    features[features % 1 != 0] = 0
    pooled = np.arange(4 * 5, dtype=np.float32).reshape(4, 5) / 3
    info = {"precision_reason": "the golden one", "nested": [1, 2.5, None]}
    with ShardWriter(
        path, recipe=RECIPE, class_names=("ants", "bees", "çà"), layout="split-folders", info=info
    ) as writer:
        writer.append(FeatureBatch(features, pooled), ROWS)
        writer.add_failure(FAILURE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
