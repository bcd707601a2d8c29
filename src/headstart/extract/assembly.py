"""Plan and computed shards → the rows of the new cache."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from headstart.cache.descriptions import says
from headstart.cache.index import PathIndex
from headstart.cache.merge import MergedRows
from headstart.images.refs import ImageRefs
from headstart.schema import Failure

if TYPE_CHECKING:
    from headstart.cache.store import FeatureCache
    from headstart.extract.known import KnownRows
    from headstart.extract.options import ExtractionSummary
    from headstart.extract.plan import Plan


def assemble(
    refs: ImageRefs, plan: Plan, sources: Sequence[KnownRows], *, first_new: int, summary: ExtractionSummary
) -> MergedRows:
    """Return the rows of the new cache in the order of the scan; copies of an image that failed fail with it.

    Parameters
    ----------
    refs : ImageRefs
        The scan.
    plan : Plan
        How each image comes to its row.
    sources : sequence of KnownRows
        Those of the plan, and behind them what was computed since.
    first_new : int
        Index of the first of the latter.
    summary : ExtractionSummary
        Has the failures, and is given those of the copies.
    """
    missing = np.flatnonzero(plan.sources < 0)
    if not len(missing):
        return MergedRows(plan.sources, plan.rows, refs)
    index = PathIndex([source.rows.path for source in sources[first_new:]])
    numbers, rows = index.split(index.find([plan.copies.get(path, path) for path in refs.paths.take(missing)]))
    all_sources, all_rows = plan.sources.copy(), plan.rows.copy()
    all_sources[missing], all_rows[missing] = np.where(numbers < 0, -1, numbers + first_new), rows
    reasons = {failure.ref.path: failure.reason for failure in summary.failures}
    without = refs.taken(missing[numbers < 0])
    summary.failures += tuple(
        Failure(ref, reasons[plan.copies[ref.path]]) for ref in without if ref.path in plan.copies
    )
    kept = all_sources >= 0
    return MergedRows(all_sources[kept], all_rows[kept], refs.taken(np.flatnonzero(kept)))


def with_missing(rows: MergedRows, old: FeatureCache, scanned: Sequence[str]) -> MergedRows:
    """Return the rows, and those of the old cache, its first source, whose images are gone, sorted by path.

    An image that lies under a new name now is not gone: its features are with that name. A copy that is gone is gone.

    Parameters
    ----------
    rows : MergedRows
        Of the images that are there.
    old : FeatureCache
        The cache that is brought up to date.
    scanned : sequence of str
        Paths of the images that are there, readable or not.
    """
    index, digests = PathIndex([old.rows.path]), old.rows.sha256.array
    gone = np.flatnonzero(~np.isin(index.find(old.rows.path), index.find(scanned)))
    renamed = (rows.sources == 0) & (index.find(rows.refs.paths) < 0)
    moved = {digests[row].tobytes() for row in rows.rows[renamed]}
    missing = np.array([row for row in gone if digests[row].tobytes() not in moved], np.int64)
    refs = ImageRefs.of(chain(rows.refs, old.iter_refs(missing)))
    order = np.array(sorted(range(len(refs)), key=refs.paths.raw), np.int64)
    sources = np.concatenate([rows.sources, np.zeros(len(missing), np.int32)])
    return MergedRows(sources[order], np.concatenate([rows.rows, missing])[order], refs.taken(order))


def is_current(
    old: FeatureCache,
    rows: MergedRows,
    failures: Sequence[Failure],
    class_names: tuple[str, ...],
    layout: str,
) -> bool:
    """Return whether the old cache, the first source, already says exactly this."""
    return (
        old.n_images == len(rows)
        and old.class_names == class_names
        and old.layout == layout
        and not rows.sources.any()
        and np.array_equal(rows.rows, np.arange(len(rows)))
        and says(old, rows.refs)
        and old.failures == tuple(failures)
    )
