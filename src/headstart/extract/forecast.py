"""What a run would do, how long it would take and what disk it would need; nothing is written, locked or deleted."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.cache.merge import MergedRows
from headstart.extract.assembly import is_current, with_missing
from headstart.extract.destination import destination
from headstart.extract.disk import bytes_per_row, free_disk_bytes
from headstart.extract.known import KnownRows
from headstart.extract.local import default_output
from headstart.extract.network import Network
from headstart.extract.options import ExtractOptions, Progress, Silence
from headstart.extract.plan import Plan
from headstart.extract.rate import Rate, measured_rate
from headstart.extract.run import Run
from headstart.extract.shards import left_shards
from headstart.images.discover import classes_of, discover
from headstart.storage.address import Location, location

if TYPE_CHECKING:
    from headstart.cache.store import FeatureCache


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would do.

    Attributes
    ----------
    output : Path or Address
        The cache.
    layout : str
        How the input is laid out (images/discover.py).
    class_names : tuple of str
        Classes found.
    n_images : int
        Images found.
    compute, reused : Counter
        How many would go through the network, and how many would not, per reason (extract/plan.py).
    n_gone : int
        Rows of the cache whose images are gone.
    keeps_gone : bool
        Whether they would stay.
    up_to_date : bool
        Whether nothing at all would be done.
    rate : Rate or None
        None where nothing would be computed, or it could not be measured.
    no_rate_reason : str
        Why it could not.
    row_bytes : float
        Disk that a row needs.
    row_bytes_reason : str
        Where that figure comes from.
    final_bytes : int
        Size of the cache afterwards.
    peak_bytes : int
        Disk that must be free: shards and the new file lie beside the old one until it is replaced.
    free_bytes : int
        Disk that is free where the cache lies.
    """

    output: Location
    layout: str
    class_names: tuple[str, ...]
    n_images: int
    compute: Counter[str]
    reused: Counter[str]
    n_gone: int
    keeps_gone: bool
    up_to_date: bool
    rate: Rate | None
    no_rate_reason: str
    row_bytes: float
    row_bytes_reason: str
    final_bytes: int
    peak_bytes: int
    free_bytes: int
    ignored: tuple[str, ...] = field(default=())

    @property
    def n_compute(self) -> int:
        """Images that would go through the network."""
        return self.compute.total()

    @property
    def seconds(self) -> float | None:
        """What the run would take; None where that is not known."""
        if not self.n_compute:
            return 0.0
        if self.rate is None:
            return None
        return self.rate.start_seconds + self.n_compute / self.rate.images_per_second

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        rate = self.rate
        return {
            "output": str(self.output),
            "layout": self.layout,
            "class_names": list(self.class_names),
            "n_images": self.n_images,
            "n_compute": self.n_compute,
            "compute": dict(self.compute),
            "reused": dict(self.reused),
            "n_gone": self.n_gone,
            "keeps_gone": self.keeps_gone,
            "up_to_date": self.up_to_date,
            "seconds": self.seconds,
            "start_seconds": rate.start_seconds if rate else None,
            "images_per_second": rate.images_per_second if rate else None,
            "rate_reason": rate.reason if rate else self.no_rate_reason,
            "row_bytes": self.row_bytes,
            "row_bytes_reason": self.row_bytes_reason,
            "final_bytes": self.final_bytes,
            "peak_bytes": self.peak_bytes,
            "free_bytes": self.free_bytes,
        }


def forecast_extraction(
    data: str | Location,
    output: str | Location | None = None,
    *,
    manifest: str | Location | None = None,
    options: ExtractOptions | None = None,
    progress: Progress | None = None,
    network: Network | None = None,
    **overrides: Any,
) -> Forecast:
    """Return what :func:`headstart.extract_features` would do with the same arguments.

    The plan is the real one. Where images would be computed, the first batch of them is decoded and sent through the network
    for some seconds, which is how the rate is known; a network that would have to be downloaded first is left alone.

    Raises
    ------
    DataError, RecipeMismatchError, CacheError, WeightsError
        Where the run itself would end so before its first image.
    """
    options, progress = replace(options or ExtractOptions(), **overrides), progress or Silence()
    images = discover(location(data), manifest=location(manifest) if manifest else None)
    for notice in images.notices:
        progress.message(notice)
    target = location(output) if output else default_output(location(data), options.cache_layout)
    run = Run(images, destination(target, options.cache_layout), options, progress, network or Network(options))
    with ExitStack() as stack:
        return forecast(run, stack)


def forecast(run: Run, stack: ExitStack) -> Forecast:
    """Return what a run would do; caches that are opened for it are closed by the stack."""
    images, options = run.images, run.options
    old = run.open_old(stack)
    shards = left_shards(
        run.destination.left(), old.recipe if old else None, run.network.wanted, run.progress, keep_unusable=True
    )
    sources = [KnownRows.of_open(old), *shards] if old else shards
    recipe = sources[0].recipe if sources else None
    plan = run.plan(sources)
    kept = rows_that_stay(run, plan, old)
    rate, no_rate_reason = measured_rate(run, plan, recipe)
    row_bytes, row_bytes_reason = bytes_per_row(recipe or run.network.wanted(None), options.compression, sources)
    up_to_date = not plan.compute and old is not None and unchanged(run, old, kept)
    n_rows = len(kept) + len(plan.compute) + len(plan.copies)
    final_bytes = old.size_bytes if up_to_date and old else round(n_rows * row_bytes)
    return Forecast(
        output=run.target,
        layout=images.layout,
        class_names=images.class_names,
        n_images=len(images.refs),
        compute=Counter(plan.why.values()),
        reused=Counter(plan.reasons),
        n_gone=len(plan.gone) if old else 0,
        keeps_gone=options.keep_missing,
        up_to_date=up_to_date,
        rate=rate,
        no_rate_reason=no_rate_reason,
        row_bytes=row_bytes,
        row_bytes_reason=row_bytes_reason,
        final_bytes=final_bytes,
        peak_bytes=0 if up_to_date else final_bytes * run.destination.moves_rows + round(len(plan.compute) * row_bytes),
        free_bytes=free_disk_bytes(run.destination.parts),
        ignored=images.ignored,
    )


def rows_that_stay(run: Run, plan: Plan, old: FeatureCache | None) -> MergedRows:
    """Return the rows of finished files that the new cache would take."""
    known = np.flatnonzero(plan.sources >= 0)
    rows = MergedRows(plan.sources[known], plan.rows[known], run.images.refs.taken(known))
    return with_missing(rows, old, plan.gone) if old and run.options.keep_missing else rows


def unchanged(run: Run, old: FeatureCache, rows: MergedRows) -> bool:
    """Return whether the old cache would be left alone, where nothing has to be computed."""
    class_names = classes_of(rows.refs) if run.options.keep_missing else run.images.class_names
    return is_current(old, rows, (), class_names, run.images.layout)
