"""One extraction into one cache: plan, compute what is new, and merge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.cache.merge import MergedRows
from headstart.cache.store import FeatureCache, open_cache
from headstart.errors import DataError, RecipeMismatchError
from headstart.extract.assembly import assemble, is_current, with_missing
from headstart.extract.destination import Destination, first_number
from headstart.extract.engine import Engine, check_engine, make_engine
from headstart.extract.intensity import find_intensity
from headstart.extract.known import KnownRows
from headstart.extract.missing import SOURCE, check_missing, source_of
from headstart.extract.network import Network
from headstart.extract.options import ExtractionSummary, ExtractOptions, Progress
from headstart.extract.plan import Plan, make_plan
from headstart.extract.reading import decoded
from headstart.extract.shard import Shard, ShardJob
from headstart.extract.shards import left_shards
from headstart.extract.stopping import Stop, stop_on_signals
from headstart.images.discover import ImageSet, classes_of
from headstart.schema import Failure
from headstart.storage import bucket
from headstart.storage.address import Address, Location
from headstart.texts import counted

if TYPE_CHECKING:
    from headstart.schema import ImageRef, Recipe


class Run:
    """One extraction into one cache that is locked for it."""

    def __init__(
        self, images: ImageSet, place: Destination, options: ExtractOptions, progress: Progress, network: Network
    ) -> None:
        self.images, self.destination, self.options, self.progress, self.network = (
            images, place, options, progress, network,
        )  # fmt: skip
        self.target = place.target
        self.device = device_of(images.root)
        compression = None if options.overwrite else self.destination.compression()
        self.job = ShardJob(
            images.root, images.class_names, compression or options.compression, options.decode_threads,
            options.stop_on_failure, place.shards_at,
        )  # fmt: skip
        check_engine(options)

    def execute(self) -> ExtractionSummary:
        """Plan, compute what is new, and merge; return what was done."""
        with ExitStack() as stack:
            old = self.open_old(stack)  # may read all images, and is ended by signals as any program
            stop = stack.enter_context(stop_on_signals())
            recipe = old.recipe if old else None
            shards = left_shards(self.destination.left(), recipe, self.network.wanted, self.progress)
            sources = [KnownRows.of_open(old), *shards] if old else shards
            recipe = sources[0].recipe if sources else None
            plan, files = self.plan(sources), [source.file for source in sources]
            summary = ExtractionSummary(self.target, recipe, self.images.layout, self.images.class_names)
            summary.reused = plan.reasons
            summary.precision_reason = str(sources[0].info.get("precision_reason", "")) if sources else ""
            summary.ignored, summary.hidden_count = self.images.ignored, self.images.hidden_count
            del shards, sources  # their columns: a merge needs the memory
            new = self.compute(plan, summary, recipe, stop)
            failed = {failure.ref.path for failure in summary.failures}
            summary.computed = Counter(reason for path, reason in plan.why.items() if path not in failed)
            if summary.interrupted:
                return summary
            computed = [KnownRows.of_file(path) for path in new]
            rows = assemble(self.images.refs, plan, computed, n_sources=len(files), summary=summary)
            if old is not None:
                rows = self.with_gone(rows, old, plan, summary)
            summary.n_images = len(rows)
            if old is None or not is_current(old, rows, summary.failures, self.images.class_names, self.images.layout):
                self.publish([*files, *new], rows, summary)
        self.destination.clear()
        return summary

    def open_old(self, stack: ExitStack) -> FeatureCache | None:
        """Return the cache that is to be brought up to date; None where there is none, or it is to be made anew.

        Raises
        ------
        RecipeMismatchError
            If it was made by another recipe.
        """
        if self.options.overwrite or not self.destination.exists():
            self.settle_intensity(None)
            return None
        old = stack.enter_context(open_cache(self.destination.old()))
        self.settle_intensity(old.recipe)
        differences = old.recipe.differences(self.network.wanted(old.recipe))
        if differences:
            raise RecipeMismatchError(
                f"{self.target} was made by another recipe (there ≠ now): {'; '.join(differences)}. "
                "Write elsewhere with -o, or replace it with --overwrite."
            )
        return old

    def settle_intensity(self, existing: Recipe | None) -> None:
        """Let the network's recipe have two sample values where the options ask for those of the data set."""
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

    def plan(self, sources: Sequence[KnownRows]) -> Plan:
        """Return what has to be computed.

        Raises
        ------
        DataError
            If rows would be dropped by mistake.
        """
        options, images = self.options, self.images
        threads = options.decode_threads
        plan = make_plan(images.root, images.refs, sources, threads=threads, check_bytes=options.check_bytes)
        check_missing(sources, plan, images.root, self.target, options)
        return plan

    def compute(self, plan: Plan, summary: ExtractionSummary, recipe: Recipe | None, stop: Stop) -> list[Path]:
        """Run the network over what the plan leaves, shard by shard; return the new files."""
        if not plan.compute:
            return []
        self.progress.start(len(plan.compute))
        with make_engine(self.network, self.job, self.options, recipe) as engine:
            return self.compute_by(engine, plan, summary, recipe, stop)

    def compute_by(
        self, engine: Engine, plan: Plan, summary: ExtractionSummary, recipe: Recipe | None, stop: Stop
    ) -> list[Path]:
        """Compute with an engine that has started."""
        prepared = engine.prepare(recipe, plan.compute)
        if prepared is None:
            self.check_input()
            summary.failures = tuple(self.failures_of(plan.compute))
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
        summary.shares = engine.shares()
        return new

    def shards(self, refs: Sequence[ImageRef]) -> Iterator[Shard]:
        """Yield the shards of a run, whose names sort behind those that an earlier run has left."""
        start = first_number(self.destination.parts)
        for number, chunk in enumerate(chunks(refs, self.options.file_images)):
            yield Shard(self.destination.parts / f"{start + number:020d}.h5", chunk)

    def check_input(self) -> None:
        """Raise DataError where the folder of images is gone, or its disk is: else every image of it would count as bad."""
        device = device_of(self.images.root)
        if device is None or device != self.device:
            raise DataError(
                f"{self.images.root} has vanished in the middle of the run, so its images cannot be read. {self.target} "
                "stays as it was, and what was computed is kept: run again when the folder is back."
            )

    def failures_of(self, refs: Sequence[ImageRef]) -> Iterator[Failure]:
        """Yield why each of these images cannot be read."""
        results = decoded(refs, self.network.wanted(None), self.job, ahead=self.job.decode_threads)
        return (result for result in results if isinstance(result, Failure))

    def with_gone(self, rows: MergedRows, old: FeatureCache, plan: Plan, summary: ExtractionSummary) -> MergedRows:
        """Return the rows and, if that is asked for, those of images that are gone; their classes stay too."""
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
        """Write the cache.

        Raises
        ------
        DataError
            If not one image could be read.
        """
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
        """Return what is kept in a file of where it comes from."""
        return {"precision_reason": summary.precision_reason, SOURCE: source_of(self.images.root)}


def device_of(folder: Location) -> int | None:
    """Return the number of the disk that a folder lies on, which another one has once it is unmounted; None without one.

    Not the inode: file systems over a network may give a folder another one while it stays the same. A bucket that can be
    listed has 0.
    """
    if isinstance(folder, Address):
        return 0 if bucket.is_there(folder) else None
    try:
        return folder.stat().st_dev if folder.is_dir() else None
    except OSError:
        return None


def chunks(refs: Sequence[ImageRef], size: int) -> Iterator[Sequence[ImageRef]]:
    """Yield consecutive runs of at most ``size`` images."""
    return (refs[start : start + size] for start in range(0, len(refs), size))
