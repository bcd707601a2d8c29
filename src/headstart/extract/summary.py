"""The summary of a run: its counts, the images and rate of each worker, and the sentence on what limits the rate."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from headstart.backbones.precision import adds_up_int8, cpu, cpu_flags
from headstart.backbones.registry import (
    ENGINE_NAMES,
    backbone_spec,
    fastest_engine,
    installed_engines,
    spec_of,
    type_to_prove,
)
from headstart.extract.options import ExtractOptions
from headstart.images.load import RunTimes
from headstart.runtime import usable_cores
from headstart.storage.bucket import Location
from headstart.types import Failure, Recipe

#: The rate of a run over fewer images, or a shorter one, consists of its start for the most part.
MIN_IMAGES, MIN_SECONDS = 128, 5.0

#: Stage → its name in sentences.
STAGES = {"decode": "reading and decoding", "forward": "the network", "write": "compressing and writing"}


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """Images and rate of one device, or of the workers of one node."""

    place: str  # name of the device or node
    n_workers: int  # its workers at the end of the run; 0 for a node that was lost
    n_images: int  # images done, failures included
    images_per_second: float  # from the first image given to it to the last one done

    def __str__(self) -> str:
        workers = f"{self.n_workers} {'worker' if self.n_workers == 1 else 'workers'}" if self.n_workers else "lost"
        return f"{self.place} ({workers}): {self.n_images:,} images at {self.images_per_second:.1f} images/s"


class StatisticsCollector:
    """Counts images by device or node while they are computed; ``now`` returns the time in seconds."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._n_images: Counter[str] = Counter()
        self._started: dict[str, float] = {}
        self._done: dict[str, float] = {}

    def start(self, place: str) -> None:
        """Start the clock of a place, unless it runs."""
        if place not in self._started:
            self._started[place] = self._now()

    def add(self, place: str, n_images: int) -> None:
        """Count images done at a place."""
        self._n_images[place] += n_images
        self._done[place] = self._now()

    def collect(self, n_workers: Mapping[str, int]) -> tuple[WorkerStatistics, ...]:
        """Return the statistics of all places, sorted by name; ``n_workers`` are those at each place now."""
        found = []
        for place in sorted(self._n_images.keys() | n_workers.keys()):
            n_images = self._n_images[place]
            seconds = self._done.get(place, 0.0) - self._started.get(place, 0.0)
            found.append(
                WorkerStatistics(place, n_workers.get(place, 0), n_images, n_images / seconds if seconds > 0 else 0.0)
            )
        return tuple(found)


@dataclass(slots=True)
class ExtractionSummary:
    """The result of a run.

    Attributes
    ----------
    output : Location
        The cache.
    recipe : Recipe | None
        None if no image could be read.
    layout : str
        ``class-folders``, ``split-folders``, ``flat`` or ``manifest``.
    class_names : tuple[str, ...]
    n_images : int
        Rows of the cache.
    n_computed : int
        Rows whose images went through the network in this run.
    reused : Counter[str]
        Rows that were not computed, per reason (extract/plan.py).
    computed : Counter[str]
        Rows that were, per reason.
    n_gone : int
        Rows that the cache had before the run, whose images are gone.
    keeps_gone : bool
        Whether these stay in it.
    ignored : tuple[str, ...]
        Files that are not images.
    hidden_count : int
        Hidden files and folders that were skipped.
    notices : tuple[str, ...]
        Doubts about the input, about classes above all.
    failures : tuple[Failure, ...]
    notes : Counter[str]
        Computed images per conversion that is reported (images/load.py).
    seconds : float
        Duration of the whole run.
    times : RunTimes
        Of the images that were computed.
    device : str
        E.g. ``cpu`` or ``gpu:0``; empty if nothing was computed.
    worker_statistics : tuple[WorkerStatistics, ...]
        Per device or node; empty if one device computed all.
    precision_reason : str
        Why the features are computed in their precision.
    stop_signal : int | None
        Number of the signal that stopped the run; the cache is then as before, and what was computed is kept.
    """

    output: Location
    recipe: Recipe | None
    layout: str
    class_names: tuple[str, ...]
    n_images: int = 0
    n_computed: int = 0
    reused: Counter[str] = field(default_factory=Counter)
    computed: Counter[str] = field(default_factory=Counter)
    n_gone: int = 0
    keeps_gone: bool = False
    ignored: tuple[str, ...] = ()
    hidden_count: int = 0
    notices: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    notes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    times: RunTimes = field(default_factory=RunTimes)
    device: str = ""
    worker_statistics: tuple[WorkerStatistics, ...] = ()
    precision_reason: str = ""
    stop_signal: int | None = None

    @property
    def interrupted(self) -> bool:
        """Whether the run was stopped before its end."""
        return self.stop_signal is not None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "output": str(self.output),
            "recipe": None if self.recipe is None else json.loads(self.recipe.to_json()),
            "layout": self.layout,
            "class_names": list(self.class_names),
            "n_images": self.n_images,
            "n_computed": self.n_computed,
            "reused": dict(self.reused),
            "computed": dict(self.computed),
            "n_gone": self.n_gone,
            "keeps_gone": self.keeps_gone,
            "failures": [{"path": failure.ref.path, "reason": failure.reason} for failure in self.failures],
            "notes": dict(self.notes),
            "n_ignored": len(self.ignored),
            "hidden_count": self.hidden_count,
            "notices": list(self.notices),
            "seconds": self.seconds,
            "device": self.device,
            "precision_reason": self.precision_reason,
            "shares": [asdict(one) for one in self.worker_statistics],
            "interrupted": self.interrupted,
        }


def bottleneck(summary: ExtractionSummary, options: ExtractOptions, n_cores: int | None = None) -> str:
    """Return a sentence on the stage that limited the rate, how busy each was, and what would help; empty for a short run."""
    times = summary.times
    if summary.n_computed < MIN_IMAGES or times.seconds < MIN_SECONDS:
        return ""
    bound = times.bound()
    busy = {name: f"{times.share(getattr(times, name)):.0%}" for name in STAGES}
    others = ", ".join(f"{STAGES[name]} {busy[name]}" for name in STAGES if name != bound)
    if bound == "decode":
        remedy = _faster_decoding(options, n_cores or usable_cores())
    else:
        remedy = _faster_network(summary, options) if bound == "forward" else _faster_writing(options)
    return f"Bounded by {STAGES[bound]}, at work {busy[bound]} of the time ({others}). {remedy}"


def _faster_decoding(options: ExtractOptions, n_cores: int) -> str:
    if options.decode_threads < n_cores:
        return f"`decode_threads={n_cores}` would help: there are {n_cores} cores."
    draft = "" if options.resize == "jpeg-draft" else "; for large JPEGs `resize='jpeg-draft'`, in a cache of its own"
    return f"More cores would help; where the files come over a network, more `decode_threads` than cores{draft}."


def _faster_network(summary: ExtractionSummary, options: ExtractOptions) -> str:
    if summary.device.startswith("gpu"):
        return "A faster GPU would help; if its memory is not full, a larger `batch_size`."
    ways = ["A GPU (`device='gpu:0'`) would help"]
    spec = spec_of(summary.recipe) if summary.recipe else backbone_spec(options.backbone)
    engine = fastest_engine(summary.recipe.precision, spec) if summary.recipe else "tensorflow"
    if engine not in installed_engines():
        ways.append(f"so may {ENGINE_NAMES[engine]}, with the same features: pip install 'headstart[{engine}]'")
    if options.precision == "float32" and type_to_prove(cpu(), installed_engines(), spec):
        ways.append("so may `precision='auto'`: it takes a faster type where that gives the same features")
    if options.precision == "auto" and "int8" in spec.precisions and adds_up_int8(cpu_flags()):
        ways.append(
            "or `precision='int8'`, whose features are near these, not equal, in a cache of its own: headstart doctor "
            "says what it would bring, and fit-head with both caches which predicts better"
        )
    return "; ".join(ways) + "."


def _faster_writing(options: ExtractOptions) -> str:
    if options.compression == "gzip":
        return "`compression='zstd'` would help."
    if options.compression == "zstd":
        return "A faster disk (`output`) would help, or, where the processor is what is busy, `compression='none'`."
    return "A faster disk (`output`) would help."
