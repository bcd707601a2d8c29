"""The options of an extraction, its summary, and the images and rate of each worker."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from headstart.errors import DataError
from headstart.images.read_ahead import RunTimes
from headstart.ray_cluster import ClusterOptions
from headstart.runtime import usable_cores

if TYPE_CHECKING:
    from headstart.storage.address import Location
    from headstart.types import Failure, Recipe


class OnImages(Protocol):
    """Callback for finished images, failures included."""

    def __call__(self, n_images: int, place: str = "", /) -> None:
        """Count images done; ``place`` is the device or node, where there are several."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """Images and rate of one device, or of the workers of one node.

    Attributes
    ----------
    place : str
        Name of the device or node.
    n_workers : int
        Its workers at the end of the run; 0 for a node that was lost.
    n_images : int
        Images done, failures included.
    images_per_second : float
        From the first image given to it to the last one done.
    """

    place: str
    n_workers: int
    n_images: int
    images_per_second: float

    def __str__(self) -> str:
        workers = f"{self.n_workers} {'worker' if self.n_workers == 1 else 'workers'}" if self.n_workers else "lost"
        return f"{self.place} ({workers}): {self.n_images:,} images at {self.images_per_second:.1f} images/s"


class StatisticsCollector:
    """Counts images by device or node while they are computed.

    Parameters
    ----------
    now : callable
        Returns the time in seconds.
    """

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


#: What a crash costs at most, in images. Some seconds of work on a CPU.
SHARD_IMAGES = 256


@dataclass(frozen=True, slots=True)
class ExtractOptions:
    """How features are made and stored; the defaults are the command's.

    Attributes
    ----------
    backbone : str
        Name of the network (``headstart.backbones.registry.BACKBONES``).
    weights : str or Path, optional
        Name of published weights, e.g. ``imagenet``, or a weights file; the default is the first published one.
    custom_weights : bool
        Accept a file that does not hold published weights.
    layer, input_size_px : optional
        Layer to store, and height and width of the input; the defaults are the backbone's.
    resize, storage, views, page
        See :class:`headstart.types.Recipe`.
    intensity : str or tuple of float
        Which sample values of more than 8 bits become 0 and 255: ``type``, the limits of each image's type; two values; or
        ``range`` or ``percentiles`` of the data set, found before the extraction (extract/intensity.py). A cache that has
        two values keeps them.
    precision : str
        ``auto``, ``float32``, ``bfloat16``, ``float16`` or ``int8``; ``auto`` takes what is proven equal, never ``int8``.
    compression : str
        ``zstd``, ``gzip`` or ``none``.
    batch_size : int, optional
        Images per forward pass, mirror images included; the default fits the device.
    device : str
        ``auto``, every GPU or else the CPU; ``cpu`` or ``gpu:N``; or several with commas between, as ``gpu:0,gpu:1``.
    decode_threads : int
        Images decoded at the same time.
    stop_on_failure : bool
        Stop at the first image that cannot be read.
    overwrite : bool
        Make the cache anew, whatever is there.
    keep_missing : bool
        Keep the rows of images that are gone, unless they lie under another name now.
    drop_missing : bool
        Drop them even if they are most of the cache, or it was made from another folder (extract/assemble.py).
    check_bytes : bool
        Compare the bytes of every image with the digest in the cache, not only size, times and inode.
    shard_images : int
        Images that a crash costs at most; files of half as many are written on the way.
    cache_layout : str
        ``file``; ``shards``, a folder of files of some images each and a manifest; or ``auto``, what is there already, else
        a file.
    engine : str
        ``local``, this process; or ``ray``, the workers of a cluster (extract/cluster).
    cluster : ClusterOptions
        Where those workers run.
    """

    backbone: str = "vgg16"
    weights: str | Path | None = None
    custom_weights: bool = False
    layer: str | None = None
    input_size_px: int | None = None
    resize: str = "keras-bilinear"
    precision: str = "auto"
    storage: str = "float16"
    views: str = "single"
    page: int | str | None = None
    intensity: str | tuple[float, float] = "type"
    compression: str = "zstd"
    batch_size: int | None = None
    device: str = "auto"
    decode_threads: int = field(default_factory=usable_cores)
    stop_on_failure: bool = False
    overwrite: bool = False
    keep_missing: bool = False
    drop_missing: bool = False
    check_bytes: bool = False
    shard_images: int = SHARD_IMAGES
    cache_layout: str = "auto"
    engine: str = "local"
    cluster: ClusterOptions = field(default_factory=ClusterOptions)

    def __post_init__(self) -> None:
        """Raise DataError where two options contradict each other."""
        if self.keep_missing and self.overwrite:
            raise DataError(
                "`keep_missing=True` keeps rows of the cache that `overwrite=True` replaces. Give one of them."
            )
        if self.keep_missing and self.drop_missing:
            raise DataError("`keep_missing=True` keeps the rows that `drop_missing=True` drops. Give one of them.")

    @property
    def first_device(self) -> str:
        """The first of several devices."""
        return self.device.split(",")[0].strip()

    @property
    def file_images(self) -> int:
        """Images of a shard: half of what a crash may cost, so that one is finished while the network works for the next."""
        return -(-self.shard_images // 2)


@dataclass(slots=True)
class ExtractionSummary:
    """What a run did.

    Attributes
    ----------
    output : Path or Address
        The cache.
    recipe : Recipe or None
        What its features are made by; None where no image could be read.
    layout : str
        How the input was laid out (images/discovery/scan.py).
    class_names : tuple of str
        Classes found.
    n_images, n_computed : int
        Rows of the cache, and those of them that went through the network in this run.
    reused : Counter
        Rows that did not, per reason (extract/plan.py).
    computed : Counter
        Why the others went through it (extract/plan.py).
    n_gone : int
        Rows that the cache had before the run, whose images are gone.
    keeps_gone : bool
        Whether they stay in it; else they are dropped.
    ignored : tuple of str
        Files that are no images (images/discovery/scan.py).
    hidden_count : int
        Hidden files and folders that were passed over.
    notices : tuple of str
        What a person should know of the input, doubtful classes above all (images/discovery/scan.py).
    failures : tuple of Failure
        Images that could not be read.
    notes : Counter
        How many of the images that were computed lost something on the way to 8-bit RGB, per note (images/load.py).
    seconds : float
        Times of the whole run.
    times : RunTimes
        Where the time of the images that were computed went.
    device : str
        What the network ran on, as ``cpu`` or ``gpu:0``; empty where nothing was computed.
    worker_statistics : tuple of WorkerStatistics
        Images and rate per device or node; empty where one device computed all.
    precision_reason : str
        Why the features are computed in that precision.
    stop_signal : int or None
        Number of the signal by which the run was asked to stop (extract/run.py); then the cache is as it was before,
        and what was computed is kept aside.
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
        """Whether the run was asked to stop before its end."""
        return self.stop_signal is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for scripts."""
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
