"""Plan and computed shards → the rows of the new cache."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from headstart.cache.merge import MergedRow
from headstart.extract.plan import KnownRow, Plan
from headstart.schema import Failure

if TYPE_CHECKING:
    from headstart.cache.store import FeatureCache
    from headstart.extract.options import ExtractionSummary
    from headstart.schema import ImageRef


def assemble(
    refs: Sequence[ImageRef], plan: Plan, sources: Sequence[FeatureCache], *, first_new: int, summary: ExtractionSummary
) -> list[MergedRow]:
    """Return the rows of the new cache in the order of the scan; copies of an image that failed fail with it.

    Parameters
    ----------
    refs : sequence of ImageRef
        The scan.
    plan : Plan
        How each image comes to its row.
    sources : sequence of FeatureCache
        Those of the plan, and behind them what was computed since.
    first_new : int
        Index of the first of the latter.
    summary : ExtractionSummary
        Has the failures, and is given those of the copies.
    """
    computed = {
        path: KnownRow(number, row)
        for number, source in enumerate(sources)
        if number >= first_new
        for row, path in enumerate(source.rows.path)
    }
    reasons = {failure.ref.path: failure.reason for failure in summary.failures}
    rows = []
    for ref in refs:
        original = plan.copies.get(ref.path, ref.path)
        known = plan.known.get(ref.path) or computed.get(original)
        if known is not None:
            rows.append(MergedRow(known.source, known.row, ref))
        elif ref.path in plan.copies:
            summary.failures += (Failure(ref, reasons[original]),)
    return rows


def with_missing(rows: Sequence[MergedRow], old: FeatureCache, scanned: Collection[str]) -> list[MergedRow]:
    """Return the rows, and those of the old cache, its first source, whose images are gone, sorted by path.

    An image that lies under a new name now is not gone: its features are with that name. A copy that is gone is gone.

    Parameters
    ----------
    rows : sequence of MergedRow
        Of the images that are there.
    old : FeatureCache
        The cache that is brought up to date.
    scanned : collection of str
        Paths of the images that are there, readable or not.
    """
    paths, known, digests = set(scanned), set(old.rows.path), old.rows.sha256
    moved = {digests[row.row] for row in rows if row.source == 0 and row.ref.path not in known}
    missing = [
        MergedRow(0, number, ref)
        for number, ref in enumerate(old.refs())
        if ref.path not in paths and digests[number] not in moved
    ]
    return sorted([*rows, *missing], key=lambda row: os.fsencode(row.ref.path))


def is_current(
    old: FeatureCache,
    rows: Sequence[MergedRow],
    failures: Sequence[Failure],
    class_names: tuple[str, ...],
    layout: str,
) -> bool:
    """Return whether the old cache, the first source, already says exactly this."""
    return (
        all(row.source == 0 and row.row == number for number, row in enumerate(rows))
        and old.n_images == len(rows)
        and old.class_names == class_names
        and old.layout == layout
        and old.refs() == [row.ref for row in rows]
        and old.failures == tuple(failures)
    )
