"""Small folders of shards, whose rows say who they are (tests/caches.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from caches import CLASS_NAMES, failure, make_row, write_cache
from headstart.cache.merge import MergedRow, MergedRows, publish_shards
from headstart.cache.reader import FeatureCache
from headstart.cache.shards import ShardFolder

#: Rows of each shard of a small folder; the numbers say what is in them (tests/caches.py).
SHARDS = ((0, 1, 2), (3, 4), (5, 6, 7, 8))


def name(number: int) -> str:
    return f"{number:020d}.h5"


def write_shards(path: Path, shards: Sequence[Sequence[int]] = SHARDS, **options: Any) -> list[Path]:
    """Write the shards of a folder, without a manifest."""
    path.mkdir(parents=True, exist_ok=True)
    return [write_cache(path / name(number), rows, **options) for number, rows in enumerate(shards)]


def publish(path: Path, sources: Sequence[Path | FeatureCache], rows: Sequence[MergedRow], **options: Any) -> Path:
    """Write the manifest."""
    said = {"failures": [failure()], "class_names": CLASS_NAMES, "layout": "flat", "info": {"precision_reason": "test"}}
    publish_shards(ShardFolder(path), sources=sources, rows=MergedRows.of(rows), **{**said, **options})
    return path


def all_rows(shards: Sequence[Sequence[int]] = SHARDS) -> list[MergedRow]:
    """Every row of every shard, in order."""
    return [
        MergedRow(source, row, make_row(number).ref)
        for source, rows in enumerate(shards)
        for row, number in enumerate(rows)
    ]
