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
    from numpy.typing import NDArray

    from headstart.cache.store import FeatureCache
    from headstart.extract.known import KnownRows
    from headstart.extract.options import ExtractionSummary
    from headstart.extract.plan import Plan


def assemble(
    refs: ImageRefs, plan: Plan, new: Sequence[KnownRows], *, n_sources: int, summary: ExtractionSummary
) -> MergedRows:
    """Return the rows of the new cache in the order of the scan; copies of an image that failed fail with it.

    Parameters
    ----------
    refs : ImageRefs
        The scan.
    plan : Plan
        How each image comes to its row.
    new : sequence of KnownRows
        What was computed since; numbered behind the sources of the plan.
    n_sources : int
        How many those are.
    summary : ExtractionSummary
        Has the failures, and is given those of the copies.
    """
    missing = np.flatnonzero(plan.sources < 0)
    if not len(missing):
        return MergedRows(plan.sources, plan.rows, refs)
    index = PathIndex([source.rows.path for source in new])
    numbers, rows = index.split(index.find([plan.copies.get(path, path) for path in refs.paths.take(missing)]))
    all_sources, all_rows = plan.sources.copy(), plan.rows.copy()
    all_sources[missing], all_rows[missing] = np.where(numbers < 0, -1, numbers + n_sources), rows
    reasons = {failure.ref.path: failure.reason for failure in summary.failures}
    without = refs.taken(missing[numbers < 0])
    summary.failures += tuple(
        Failure(ref, reasons[plan.copies[ref.path]]) for ref in without if ref.path in plan.copies
    )
    kept = all_sources >= 0
    return MergedRows(all_sources[kept], all_rows[kept], refs.taken(np.flatnonzero(kept)))


def with_missing(rows: MergedRows, old: FeatureCache, gone: NDArray[np.int64]) -> MergedRows:
    """Return the rows, and those of the old cache, its first source, whose images are gone, sorted by path.

    Parameters
    ----------
    rows : MergedRows
        Of the images that are there.
    old : FeatureCache
        The cache that is brought up to date.
    gone : ndarray of shape (n_gone,), int64
        Those of its rows (extract/plan.py).
    """
    refs = ImageRefs.of(chain(rows.refs, old.iter_refs(gone)))
    order = np.array(sorted(range(len(refs)), key=refs.paths.raw), np.int64)
    sources = np.concatenate([rows.sources, np.zeros(len(gone), np.int32)])
    return MergedRows(sources[order], np.concatenate([rows.rows, gone])[order], refs.taken(order))


def is_current(
    old: FeatureCache,
    rows: MergedRows,
    failures: Sequence[Failure],
    class_names: tuple[str, ...],
    layout: str,
) -> bool:
    """Return whether the old cache, the first source, already says this."""
    return (
        old.n_images == len(rows)
        and old.class_names == class_names
        and old.layout == layout
        and not rows.sources.any()
        and np.array_equal(rows.rows, np.arange(len(rows)))
        and says(old, rows.refs)
        and list(map(said_of, old.failures)) == list(map(said_of, failures))
    )


def said_of(failure: Failure) -> tuple[str | None, ...]:
    """Return what a cache says of an image that could not be read, but for its times."""
    ref = failure.ref
    return ref.path, ref.label, ref.split, ref.group, failure.reason
