"""Plan and computed shards to the rows of the new cache; rows whose images are gone are dropped, or kept on request."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.cache.columns import PathIndex
from headstart.cache.merge import MergedRows, has_descriptions
from headstart.cache.reader import FeatureCache
from headstart.errors import DataError
from headstart.extract.options import ExtractOptions
from headstart.extract.plan import KnownRows, Plan
from headstart.images.discovery.refs import ImageRefs
from headstart.storage.bucket import Address, Location
from headstart.texts import counted, printable
from headstart.types import Failure

#: Share of the rows of a cache that may be dropped without ``drop_missing``.
MAX_DROPPED = 0.5

#: Key of the folder of images in the provenance of a cache (``info``).
SOURCE = "source"


def source_of(root: Location) -> str:
    """Return the address of a folder, or its absolute path without links."""
    return str(root) if isinstance(root, Address) else os.path.realpath(root)


def check_missing(
    sources: Sequence[KnownRows], plan: Plan, root: Location, target: Location, options: ExtractOptions
) -> None:
    """Raise DataError if a run would drop most rows of a cache, or any rows that were made from another folder.

    ``keep_missing`` keeps the rows of the cache, and ``drop_missing`` allows to drop them. The first of the ``sources``
    is the open cache to bring up to date, if there is one; the others are shards of an interrupted run.
    """
    if options.drop_missing:
        return
    for number, source in enumerate(sources):
        origin = other_folder(source, root)
        if isinstance(source.file, Path):
            n_used = len(np.unique(plan.rows[plan.sources == number]))
            if origin and n_used < len(source):
                raise DataError(
                    f"An interrupted run has left {len(source) - n_used:,} images of {origin} for {target}, which are not in "
                    f"{root} and would be dropped. Nothing was changed.",
                    hint="End that run first, write to another cache (`output`), or drop them with `drop_missing=True`.",
                )
        elif not options.keep_missing and len(plan.gone) > (0 if origin else MAX_DROPPED * len(source)):
            made_from = f", which was made from another folder ({origin})," if origin else ""
            raise DataError(
                f"{len(plan.gone):,} of the {counted(len(source))} of {target}{made_from} "
                f"{'is' if len(plan.gone) == 1 else 'are'} not in {root}, and their features "
                "would be dropped. Nothing was changed.",
                hint="Write to another cache (`output`), keep these rows with `keep_missing=True`, or drop them with "
                "`drop_missing=True`.",
            )


def other_folder(source: KnownRows, root: Location) -> str:
    """Return the folder that rows were made from, if it is known and another one than now; else nothing."""
    known = str(source.info.get(SOURCE, ""))
    return "" if known in ("", source_of(root)) else printable(known)


def assemble(
    refs: ImageRefs, plan: Plan, new: Sequence[KnownRows], *, n_sources: int, failures: Sequence[Failure]
) -> tuple[MergedRows, tuple[Failure, ...]]:
    """Return the rows of the new cache in the order of the scan, and the failures of copies of images that failed.

    ``new`` are the computed shards, numbered after the ``n_sources`` of the plan; ``failures`` are those of computed images.
    """
    missing = np.flatnonzero(plan.sources < 0)
    if not len(missing):
        return MergedRows(plan.sources, plan.rows, refs), ()
    index = PathIndex([source.rows.path for source in new])
    numbers, rows = index.split(index.find([plan.copies.get(path, path) for path in refs.paths.take(missing)]))
    all_sources, all_rows = plan.sources.copy(), plan.rows.copy()
    all_sources[missing], all_rows[missing] = np.where(numbers < 0, -1, numbers + n_sources), rows
    reasons = {failure.ref.path: failure.reason for failure in failures}
    without = refs.taken(missing[numbers < 0])
    copies = tuple(Failure(ref, reasons[plan.copies[ref.path]]) for ref in without if ref.path in plan.copies)
    kept = all_sources >= 0
    return MergedRows(all_sources[kept], all_rows[kept], refs.taken(np.flatnonzero(kept))), copies


def with_missing(rows: MergedRows, old: FeatureCache, gone: NDArray[np.int64]) -> MergedRows:
    """Return the rows and the ``gone`` ones of the old cache, the first source, sorted by path."""
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
    """Return whether the old cache, the first source, already has these rows and descriptions."""
    return (
        old.n_images == len(rows)
        and old.class_names == class_names
        and old.layout == layout
        and not rows.sources.any()
        and np.array_equal(rows.rows, np.arange(len(rows)))
        and has_descriptions(old, rows.refs)
        and list(map(_key_of, old.failures)) == list(map(_key_of, failures))
    )


def _key_of(failure: Failure) -> tuple[str | None, ...]:
    """Return what a cache stores of an unreadable image, except its times."""
    ref = failure.ref
    return ref.path, ref.label, ref.split, ref.group, failure.reason
