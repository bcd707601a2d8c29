"""Extract features from a folder of images into one cache: plan, compute what is new, merge."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from headstart.cache.merge import MergedRows
from headstart.cache.reader import FeatureCache, open_cache
from headstart.errors import DataError, RecipeMismatchError
from headstart.evaluate.random_crops import crops_folder
from headstart.extract.engine import Engine, check_engine, make_engine
from headstart.extract.network import Network, find_intensity
from headstart.extract.options import ExtractOptions
from headstart.extract.output import Destination, default_output, destination, device_of, first_number, left_shards
from headstart.extract.plan import (
    SOURCE,
    KnownRows,
    Plan,
    assemble,
    check_missing,
    is_current,
    make_plan,
    source_of,
    with_missing,
)
from headstart.extract.shard_jobs import Shard, ShardJob
from headstart.extract.summary import ExtractionSummary
from headstart.images.discovery.scan import ImageSet, classes_of, discover, training_images
from headstart.images.load import decoded
from headstart.storage.bucket import Location, location
from headstart.texts import counted
from headstart.types import Failure, ImageRef, Progress, Recipe, Silence

#: Sent when a terminal is closed or a connection breaks; not on Windows.
HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)


class Stop(threading.Event):
    """Set when a run is to stop; ``number`` is the first signal that asked for it, or 0."""

    number = 0


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Yield an event that the first SIGINT, SIGTERM or SIGHUP sets.

    A second SIGINT or SIGTERM of the same kind ends the program as usual. SIGHUP never does: shell and system send
    several when a terminal is closed, and SIGTERM with them. If it is ignored (``nohup``), it stays so. Outside the main
    thread Python allows no handlers, and the event is never set.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
        numbers.append(HANGUP)
    before = {number: signal.getsignal(number) for number in numbers}

    def on_signal(number: int, _frame: FrameType | None) -> None:
        stop.number = stop.number or number
        stop.set()
        if number != HANGUP:
            signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Run:
    """One extraction into one cache that is locked for it."""

    def __init__(
        self, images: ImageSet, place: Destination, options: ExtractOptions, progress: Progress, network: Network
    ) -> None:
        self.images, self.destination, self.options = images, place, options
        self.progress, self.network = progress, network
        self.target = place.target
        self.device = device_of(images.root)
        compression = None if options.overwrite else self.destination.compression()
        self.job = ShardJob(
            images.root,
            images.class_names,
            compression or options.compression,
            place.shards_at,
            decode_threads=options.decode_threads,
            stop_on_failure=options.stop_on_failure,
        )
        check_engine(options)

    def execute(self) -> ExtractionSummary:
        """Plan, compute what is new, and merge; return what was done."""
        with ExitStack() as stack:
            old = self.open_old(stack)  # may read all images, and is ended by signals as any program
            stop = stack.enter_context(stop_on_signals())
            sources, plan, recipe = self.prepare(old)
            files = [source.file for source in sources]
            summary = ExtractionSummary(self.target, recipe, self.images.layout, self.images.class_names)
            summary.reused = plan.reasons
            summary.precision_reason = str(sources[0].info.get("precision_reason", "")) if sources else ""
            summary.ignored, summary.hidden_count = self.images.ignored, self.images.hidden_count
            del sources  # their columns: a merge needs the memory
            new = self.compute(plan, summary, recipe, stop)
            failed = {failure.ref.path for failure in summary.failures}
            summary.computed = Counter(reason for path, reason in plan.why.items() if path not in failed)
            if summary.interrupted:
                return summary
            computed = [KnownRows.of_file(path) for path in new]
            rows, copies = assemble(self.images.refs, plan, computed, n_sources=len(files), failures=summary.failures)
            summary.failures += copies
            if old is not None:
                rows = self.with_gone(rows, old, plan, summary)
            summary.n_images = len(rows)
            if old is None or not is_current(old, rows, summary.failures, self.images.class_names, self.images.layout):
                self.publish([*files, *new], rows, summary)
        self.destination.clear()
        return summary

    def open_old(self, stack: ExitStack) -> FeatureCache | None:
        """Return the cache to bring up to date; None if there is none, or it is to be replaced.

        Raises RecipeMismatchError if it was made by another recipe.
        """
        if self.options.overwrite or not self.destination.exists():
            self.settle_intensity(None)
            return None
        old = stack.enter_context(open_cache(self.destination.old()))
        self.settle_intensity(old.recipe)
        differences = old.recipe.differences(self.network.wanted(old.recipe))
        if differences:
            raise RecipeMismatchError(
                f"{self.target} was made by another recipe (there ≠ now): {'; '.join(differences)}.",
                hint="Write elsewhere (`output`), or replace it with `overwrite=True`.",
            )
        return old

    def settle_intensity(self, existing: Recipe | None) -> None:
        """Set the intensities of the network's recipe if the options ask for those of the data set."""
        how = self.options.intensity
        if isinstance(how, str) and how != "type":
            found = existing.intensity if existing else None
            if found:
                self.progress.message(
                    f"Intensities {found[0]:g} to {found[1]:g} are black to white, as in {self.target}"
                )
            else:
                found = find_intensity(self.images, self.job, how, self.options.page, self.progress)
            self.network.options = replace(self.options, intensity=found or "type")

    def prepare(
        self, old: FeatureCache | None, *, keep_unusable: bool = False
    ) -> tuple[list[KnownRows], Plan, Recipe | None]:
        """Return the existing rows, the plan and the rows' recipe; raise DataError if rows would be dropped by mistake."""
        options, images, left = self.options, self.images, self.destination.left()
        recipe, wanted = old.recipe if old else None, self.network.wanted
        sources = left_shards(left, recipe, wanted, self.progress, keep_unusable=keep_unusable)
        if old:
            sources.insert(0, KnownRows.of_open(old))
        threads = options.decode_threads
        plan = make_plan(images.root, images.refs, sources, threads=threads, check_bytes=options.check_bytes)
        check_missing(sources, plan, images.root, self.target, options)
        return sources, plan, sources[0].recipe if sources else None

    def compute(self, plan: Plan, summary: ExtractionSummary, recipe: Recipe | None, stop: Stop) -> list[Path]:
        """Compute the images of the plan, shard by shard; return the new files."""
        if not plan.compute:
            return []
        self.progress.start(len(plan.compute))
        with make_engine(self.network, self.job, self.options, recipe) as engine:
            return self._compute_by(engine, plan, summary, recipe, stop)

    def _compute_by(
        self, engine: Engine, plan: Plan, summary: ExtractionSummary, recipe: Recipe | None, stop: Stop
    ) -> list[Path]:
        prepared = engine.prepare(recipe, plan.compute)
        if prepared is None:
            self.check_input()
            results = decoded(plan.compute, self.network.wanted(None), self.job, ahead=self.job.decode_threads)
            summary.failures = tuple(result for result in results if isinstance(result, Failure))
            self.progress.advance(len(plan.compute))
            return []
        summary.recipe, reason = prepared
        summary.precision_reason = summary.precision_reason or reason
        summary.device = engine.device
        self.destination.prepare()
        info = self.provenance(summary)
        new: list[Path] = []
        running = engine.run(
            self.shards(plan.compute), info=info, stop=stop, on_images=self.progress.advance, times=summary.times
        )
        with closing(running) as reports:
            for report in reports:
                self.destination.settle(report.path)
                new.append(report.path)
                if report.failures:
                    self.check_input()
                summary.n_computed += report.n_images
                summary.failures += tuple(report.failures)
                summary.notes += report.notes
        self.destination.settled()
        summary.stop_signal = stop.number if stop.is_set() else None
        summary.worker_statistics = engine.statistics()
        return new

    def shards(self, refs: Sequence[ImageRef]) -> Iterator[Shard]:
        """Yield the shards of a run; their names sort after those that an earlier run has left."""
        first = first_number(self.destination.parts)
        for number, chunk in enumerate(chunks(refs, self.options.file_images), start=first):
            yield Shard(self.destination.parts / f"{number:020d}.h5", chunk)

    def check_input(self) -> None:
        """Raise DataError if the folder of images or its disk is gone: every image would count as unreadable."""
        device = device_of(self.images.root)
        if device is None or device != self.device:
            raise DataError(
                f"{self.images.root} has vanished in the middle of the run, so its images cannot be read. {self.target} "
                "stays as it was, and what was computed is kept: run again when the folder is back."
            )

    def with_gone(self, rows: MergedRows, old: FeatureCache, plan: Plan, summary: ExtractionSummary) -> MergedRows:
        """Return the rows and, on request, those of images that are gone; their classes stay, too."""
        summary.n_gone, summary.keeps_gone = len(plan.gone), self.options.keep_missing
        if not self.options.keep_missing:
            return rows
        kept = with_missing(rows, old, plan.gone)
        if len(plan.gone):
            summary.reused["kept though missing"] = len(plan.gone)
        self.images = replace(self.images, class_names=classes_of(kept.refs))
        summary.class_names = self.images.class_names
        return kept

    def publish(self, sources: Sequence[Path | FeatureCache], rows: MergedRows, summary: ExtractionSummary) -> None:
        """Write the cache; raise DataError if not a single image could be read."""
        if not len(rows):
            examples = "; ".join(f"{f.ref.path}: {f.reason}" for f in summary.failures[:3])
            raise DataError(f"Of {counted(len(summary.failures))} in {self.images.root} none could be read. {examples}")
        self.destination.publish(
            sources,
            rows,
            failures=summary.failures,
            class_names=self.images.class_names,
            layout=self.images.layout,
            info=self.provenance(summary),
        )

    def provenance(self, summary: ExtractionSummary) -> dict[str, str]:
        """Return the provenance that is stored in a file."""
        return {"precision_reason": summary.precision_reason, SOURCE: source_of(self.images.root)}


def chunks(refs: Sequence[ImageRef], size: int) -> Iterator[Sequence[ImageRef]]:
    """Yield consecutive slices of at most ``size`` images."""
    return (refs[start : start + size] for start in range(0, len(refs), size))


def extract_features(
    data: str | Location,
    output: str | Location | None = None,
    *,
    manifest: str | Location | None = None,
    options: ExtractOptions | None = None,
    progress: Progress | None = None,
    network: Network | None = None,
    **overrides: Any,
) -> ExtractionSummary:
    """Create the feature cache of a folder of images, or bring it up to date.

    Only new and changed images go through the network. The cache appears whole or not at all; an interrupted run
    continues where it stopped.

    Parameters
    ----------
    data : str, Path or Address
        A folder of class folders, of ``train``/``val``/``test`` folders of class folders, or of images; or a CSV manifest;
        on a disk or in a bucket, e.g. ``s3://bucket/photos``.
    output : str, Path or Address, optional
        The cache, on a disk or in a bucket; the default is ``features/<name of the folder>.h5``.
    manifest : str, Path or Address, optional
        A CSV with the columns path, label and optionally split and group.
    options : ExtractOptions, optional
        How features are made and stored.
    progress : Progress, optional
        Progress callbacks.
    network : Network, optional
        Source of the backbone.
    **overrides
        Single options by name, e.g. ``precision="float32"``.

    Raises
    ------
    DataError
        If the input holds no images, its layout is ambiguous, or its folder vanishes during the run; or if most images of the
        cache are gone, or any of a cache that was made from another folder, without ``keep_missing`` or ``drop_missing``.
    RecipeMismatchError
        If the cache exists and was made by another recipe.
    CacheError
        If the cache cannot be written, or another process is writing it.
    StorageError
        If a bucket cannot be reached.
    """
    started = time.perf_counter()
    run = make_run(data, output, manifest, replace(options or ExtractOptions(), **overrides), progress, network)
    with run.destination.held():
        summary = run.execute()
    summary.notices = run.images.notices
    summary.seconds = time.perf_counter() - started
    return summary


def make_run(
    data: str | Location,
    output: str | Location | None,
    manifest: str | Location | None,
    options: ExtractOptions,
    progress: Progress | None,
    network: Network | None,
) -> Run:
    """Return an extraction after the scan of its images, for a run or a dry run."""
    progress = progress or Silence()
    images = discover(location(data), manifest=location(manifest) if manifest else None)
    for notice in images.notices:
        progress.message(notice)
    target = location(output) if output else default_output(location(data), options.cache_layout)
    images = training_images(images) if options.random_crop else images
    return Run(images, destination(target, options.cache_layout), options, progress, network or Network(options))


def extract_crops(
    data: str | Location,
    cache: Location,
    n_crops: int,
    *,
    manifest: str | Location | None = None,
    options: ExtractOptions | None = None,
    progress: Progress | None = None,
    network: Callable[[ExtractOptions], Network] | None = None,
    **overrides: Any,
) -> Iterator[ExtractionSummary]:
    """Bring the caches of random crops of the training images up to date, one after the other, and yield what was done.

    Each is a cache like any other, with the recipe of ``cache`` but for the number of the crop, which together with the bytes
    of an image determines the crop (images/resize.py). Images of the splits validation and test have none. Crops are used by
    fits alone (``fit_head(..., crops=FOLDER)``); whatever scores or describes images refuses a cache of them.

    Parameters
    ----------
    cache : Path
        The cache of the images themselves, up to date; the crops go to :func:`crops_folder`.
    n_crops : int
        Crops of each image.
    network : callable, optional
        Returns the source of the backbone for the options of a cache.
    data, manifest, options, progress, **overrides
        As of :func:`headstart.extract_features`, for the cache.

    Raises
    ------
    DataError
        If the cache lies in a bucket, its precision is int8 (its network is quantised on a sample of its images), or there is
        no training image; and as of :func:`headstart.extract_features`.
    """
    folder, options = crops_folder(cache), replace(options or ExtractOptions(), **overrides)
    with open_cache(cache) as opened:
        recipe = opened.recipe
    if recipe.precision == "int8":
        raise DataError("There are no crops of a cache with the precision int8.", hint="Use another `precision`.")
    options = replace(options, precision=recipe.precision, intensity=recipe.intensity or "type")
    for number in range(1, n_crops + 1):
        own, name = replace(options, random_crop=number), str(number)
        output = folder / (name if options.cache_layout == "shards" else f"{name}.h5")
        done = extract_features(
            data, output, manifest=manifest, options=own, progress=progress, network=(network or Network)(own)
        )
        yield done
        if done.interrupted:
            return
