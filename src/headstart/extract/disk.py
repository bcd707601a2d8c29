"""The disk that rows need, and what is free."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.schema import POOLED_LAYERS

if TYPE_CHECKING:
    from headstart.extract.known import KnownRows
    from headstart.schema import Recipe

#: A compressed row of block5_pool, as a share of what it is without, by its views: 0.12 to 0.17 on photographs (hymenoptera,
#: flowers17) and solar cells, float16 and zstd, since nine of ten values are zero. The mean of two views has fewer zeros and
#: takes 1.23 times as much (hymenoptera). Other layers are counted as they are.
COMPRESSED_SHARE = {"single": (1 / 6, "a sixth"), "mirrored": (1 / 5, "a fifth")}

#: Digest, path, size, time and the like of a row, bytes, about.
DESCRIPTION_BYTES = 250


def bytes_per_row(recipe: Recipe, compression: str, sources: Sequence[KnownRows]) -> tuple[float, str]:
    """Return the disk that a row needs, and where that figure comes from."""
    n_rows = sum(map(len, sources))
    if n_rows:
        files = (source.file for source in sources)
        sizes = (file.stat().st_size if isinstance(file, Path) else file.size_bytes for file in files)
        return sum(sizes) / n_rows, f"as the {n_rows:,} rows that exist"
    map_bytes = values_of(recipe) * (2 if recipe.storage == "float16" else 4)
    pooled_bytes = 4 * sum(channels for _, channels in POOLED_LAYERS)
    if compression != "none" and recipe.layer == "block5_pool":
        share, words = COMPRESSED_SHARE[recipe.views]
        reason = f"as photographs need on average: {recipe.layer} in {words} by {compression}, and its averages"
        return map_bytes * share + pooled_bytes + DESCRIPTION_BYTES, reason
    at_most = "" if compression == "none" else f" at most: {recipe.layer} before {compression}"
    return map_bytes + pooled_bytes + DESCRIPTION_BYTES, f"{recipe.storage}{at_most}"


def values_of(recipe: Recipe) -> int:
    """Return how many values a row of the recipe's layer has: each block of VGG16 ends by halving height and width."""
    block = int(recipe.layer.removeprefix("block")[0])
    side = recipe.input_size_px >> (block if recipe.layer.endswith("pool") else block - 1)
    return int(side**2 * POOLED_LAYERS[block - 1][1])


def free_disk_bytes(target: Path) -> int:
    """Return the disk that is free where a file would lie, whose folder need not be there yet."""
    folder = next(parent for parent in target.absolute().parents if parent.is_dir())
    return shutil.disk_usage(folder).free
