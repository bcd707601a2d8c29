"""The time and the disk space that a run would need."""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.registry import spec_of
from headstart.cache.columns import stored_bytes
from headstart.cache.merge import MergedRows
from headstart.cache.reader import FeatureCache
from headstart.extract.engine import devices_of
from headstart.extract.network import PROOF_IMAGES, Network, draw_sample, first_images
from headstart.extract.options import ExtractOptions
from headstart.extract.plan import KnownRows, Plan, is_current, with_missing
from headstart.extract.run import Run, make_run
from headstart.images.discovery.scan import classes_of
from headstart.runtime import per_second
from headstart.storage.bucket import Location
from headstart.types import Backbone, Progress, Recipe

#: Digest, path, size, time and other columns of a row, bytes, about.
DESCRIPTION_BYTES = 250


def bytes_per_row(
    recipe: Recipe, compression: str, sources: Sequence[KnownRows], rate: Rate | None
) -> tuple[float, str]:
    """Return the disk space of a row, and the origin of this figure."""
    n_rows = sum(map(len, sources))
    if n_rows:
        files = (source.file for source in sources)
        sizes = (file.stat().st_size if isinstance(file, Path) else file.size_bytes for file in files)
        return sum(sizes) / n_rows, f"as the {n_rows:,} rows that exist"
    spec = spec_of(recipe)
    others = 4 * len(spec.column_layers) + DESCRIPTION_BYTES
    if rate is not None:
        return rate.map_bytes + others, f"measured on the first of these images, by {compression}"
    map_bytes = math.prod(spec.map_shape(recipe)) * (2 if recipe.storage == "float16" else 4)
    at_most = "" if compression == "none" else f" at most: {recipe.layer} before {compression}"
    return map_bytes + others, f"{recipe.storage}{at_most}"


def free_disk_bytes(target: Path) -> int:
    """Return the free disk space for a file, whose folder need not exist yet."""
    folder = next(parent for parent in target.absolute().parents if parent.is_dir())
    return shutil.disk_usage(folder).free


#: Seconds for which the rate of the compiled network is measured: some batches on a CPU.
MEASURED_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast images would be computed."""

    start_seconds: float  # weights read, network built, compiled and, if requested, its precision proven
    images_per_second: float  # afterwards
    map_bytes: float  # mean size of a stored map
    reason: str  # origin of the figures


def measured_rate(run: Run, plan: Plan, recipe: Recipe | None) -> tuple[Rate | None, str]:
    """Return the rate of the first images to be computed; or None, and the reason why it is not known."""
    if not plan.compute:
        return None, "no image would go through the network"
    if not run.network.is_at_hand():
        spec = spec_of(run.network.wanted(None))
        then = ": the run would download them first" if spec.can_download else ""
        return None, f"the weights of {spec.name} are not on this machine{then} (headstart backbones)"
    started = time.perf_counter()
    images = first_images(plan.compute, run.network.wanted(None), run.job, run.options.batch_size or PROOF_IMAGES)
    decode_seconds = time.perf_counter() - started
    if not len(images):
        return None, "none of the images that would be computed can be read"
    backbone, precision_reason = run.network.backbone(
        recipe, images, lambda: draw_sample(plan.compute, run.network.wanted(None), run.job)
    )
    batch = images[: backbone.batch_size]
    features = backbone.forward(batch).features  # compiles
    start_seconds = time.perf_counter() - started
    forward, decode = seconds_per_image(backbone, batch), decode_seconds / len(images)
    n_gpus = max(1, sum(name.startswith("gpu") for name in devices_of(run.options, recipe)))
    per_image = seconds_with_decoding(forward / n_gpus, decode, on_cpu=backbone.device == "cpu")
    of_several = f", on one of {n_gpus} GPUs" if n_gpus > 1 else ""
    reason = f"measured now, on the first {len(images)} of these images{of_several}; precision {precision_reason}"
    map_bytes = stored_bytes(features, backbone.recipe, run.options.compression)
    return Rate(start_seconds, 1 / per_image, map_bytes, reason), ""


def seconds_with_decoding(forward: float, decode: float, *, on_cpu: bool) -> float:
    """Return the seconds an image takes: a CPU's cores are shared by both steps; a GPU computes while the CPU decodes."""
    return forward + decode if on_cpu else max(forward, decode)


def seconds_per_image(backbone: Backbone, images: NDArray[np.uint8]) -> float:
    """Return the time that the compiled network needs for an image of a full batch."""
    full = (
        images if len(images) == backbone.batch_size else images.repeat(backbone.batch_size, 0)[: backbone.batch_size]
    )
    return 1 / per_second(lambda: backbone.forward(full), len(full), MEASURED_SECONDS)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would do, and the time and disk space it would need."""

    output: Location  # the cache
    layout: str
    class_names: tuple[str, ...]
    n_images: int  # images found
    compute: Counter[str]  # images that would go through the network, per reason (extract/plan.py)
    reused: Counter[str]  # images that would not, per reason
    n_gone: int  # rows of the cache whose images are gone
    keeps_gone: bool  # whether these would stay
    up_to_date: bool  # whether nothing at all would be done
    rate: Rate | None  # None if nothing would be computed, or it could not be measured
    no_rate_reason: str  # why it could not
    row_bytes: float  # disk space of a row
    row_bytes_reason: str  # origin of that figure
    final_bytes: int  # size of the cache afterwards
    peak_bytes: int  # free space needed: shards and the new file lie beside the old one until it is replaced
    free_bytes: int  # free space on the disk of the cache
    ignored: tuple[str, ...] = ()

    @property
    def n_compute(self) -> int:
        """Images that would go through the network."""
        return self.compute.total()

    @property
    def seconds(self) -> float | None:
        """Duration of the run; None if it is not known."""
        if not self.n_compute:
            return 0.0
        if self.rate is None:
            return None
        return self.rate.start_seconds + self.n_compute / self.rate.images_per_second

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
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
    """Return what :func:`headstart.extract_features` would do with the same arguments; raises the same errors.

    The plan is the real one. If images would be computed, the first batch of them is decoded and sent through the network
    for some seconds to measure the rate, unless the network would have to be downloaded first.
    """
    run = make_run(data, output, manifest, replace(options or ExtractOptions(), **overrides), progress, network)
    with ExitStack() as stack:
        return forecast(run, stack)


def forecast(run: Run, stack: ExitStack) -> Forecast:
    """Return what a run would do; caches that are opened for it are closed by the stack."""
    images, options = run.images, run.options
    old = run.open_old(stack)
    sources, plan, recipe = run.prepare(old, keep_unusable=True)
    kept = rows_that_stay(run, plan, old)
    rate, no_rate_reason = measured_rate(run, plan, recipe)
    row_bytes, row_bytes_reason = bytes_per_row(recipe or run.network.wanted(None), options.compression, sources, rate)
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
    """Return whether the old cache would stay as it is, if nothing has to be computed."""
    class_names = classes_of(rows.refs) if run.options.keep_missing else run.images.class_names
    return is_current(old, rows, (), class_names, run.images.layout)
