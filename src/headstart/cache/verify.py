"""Is every value of a cache the one that was written? Opening it tells of its structure only."""

from __future__ import annotations

from headstart.cache.features import row_digest
from headstart.cache.format import ROW_COLUMNS
from headstart.cache.reading import REMEDY
from headstart.cache.store import FeatureCache
from headstart.errors import CacheError


def verify(cache: FeatureCache) -> None:
    """Read the whole cache once and compare it with its checksums.

    Raises
    ------
    CacheError
        If a column or a row is damaged; the message names it.
    """
    for column in ROW_COLUMNS:
        getattr(cache.rows, column.name)
    _ = cache.failures, cache.pooled_column_layer
    start, digests = 0, cache.rows.features_sha256.array
    for batch in cache.batches():
        for features, pooled in zip(batch.features, batch.pooled, strict=True):
            if row_digest(features, pooled) != digests[start].tobytes():
                raise CacheError(
                    f"{cache.path} is damaged: row {start}, the image {cache.rows.path[start]}, is not the one that was "
                    f"written (its digest differs). {REMEDY}"
                )
            start += 1
