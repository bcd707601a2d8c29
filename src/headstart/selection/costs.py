"""Costs of a head in time, memory and size, and learning curves."""

from __future__ import annotations

import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.base import is_regressor

from headstart.bundles.bundle import Bundle, save_bundle
from headstart.evaluate.folds import Fold
from headstart.evaluate.joined_caches import recipes_of
from headstart.heads.base import outputs_of
from headstart.heads.catalogue import make_head
from headstart.heads.grid_predictions import Table
from headstart.heads.head_specs import fit_weighted
from headstart.report.comparison import Cost, CurvePoint
from headstart.scores import Estimate
from headstart.selection.comparison_setup import Bench
from headstart.selection.cross_validation import CrossValidation, Tables, Trial, by_source
from headstart.selection.sources import Source
from headstart.types import Backbone, HeadSpec

#: Images predicted at a time when latency is measured, how often at most, and after how many seconds no other round begins.
BATCH_IMAGES, ROUNDS, ENOUGH_SECONDS = 256, 5, 1.0

#: Seconds between two looks at the memory of this process.
LOOK_SECONDS = 0.005

#: Number of memory pages of a process on Linux (proc(5)); on other systems memory is not measured.
MEMORY_FILE = Path("/proc/self/statm")


@dataclass(slots=True)
class Peak:
    """Memory at its highest, above what was there at the start; None where it cannot be measured."""

    bytes: int | None = None


@contextmanager
def watched_memory() -> Iterator[Peak]:
    """Measure the resident memory of this process while the block runs."""
    peak = Peak()
    if not MEMORY_FILE.exists():
        yield peak
        return
    start, done = resident_bytes(), threading.Event()
    peak.bytes = 0

    def look() -> None:
        while not done.wait(LOOK_SECONDS):
            peak.bytes = max(peak.bytes or 0, resident_bytes() - start)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        peak.bytes = max(peak.bytes or 0, resident_bytes() - start)
        done.set()
        watcher.join()


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    import resource

    return int(MEMORY_FILE.read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def fit_and_measure(
    bench: Bench, spec: HeadSpec, source: Source, table: Table, search_seconds: float
) -> tuple[Any, Cost]:
    """Return a head fitted on all rows of the folds, and what it costs, with the backbone of its cache."""
    X, labels, weights = table.raw, table.fitted(np.empty(0, np.int64), bench.labels)[1], table.weights
    head = make_head(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said by the folds' fits already
        with watched_memory() as peak:
            start = time.perf_counter()
            fit_weighted(head, X, labels, weights, table.groups_of(np.arange(len(X))))
            fit_seconds = time.perf_counter() - start
    head_ms = head_milliseconds(head, X)
    recipe, *others = recipes_of(source.cache)
    bundle = Bundle(head, spec, recipe, bench.class_names, target=bench.target.name, joined_recipes=tuple(others))
    total_ms = None if source.backbone_ms is None else source.backbone_ms + head_ms
    return head, Cost(fit_seconds, search_seconds, head_ms, total_ms, saved_bytes(bundle), peak.bytes)


def head_milliseconds(head: Any, X: NDArray[np.float32]) -> float:
    """Return milliseconds per image from features to predictions, in batches of 256."""
    batch = X[np.arange(min(BATCH_IMAGES, max(len(X), 1))) % len(X)]
    return 1000.0 * seconds_of(lambda: (head.predict if is_regressor(head) else head.predict_proba)(batch)) / len(batch)


def backbone_milliseconds(backbone: Backbone) -> float:
    """Return milliseconds per image of a frozen backbone, in its own batches."""
    size = backbone.recipe.input_size_px
    images = np.random.default_rng(0).integers(0, 256, (backbone.batch_size, size, size, 3), np.uint8)
    return 1000.0 * seconds_of(lambda: backbone.forward(images)) / len(images)


def seconds_of(call: Callable[[], Any]) -> float:
    """Return the median of the seconds that up to five calls take; a first one is not counted."""
    call()
    taken: list[float] = []
    while len(taken) < ROUNDS and sum(taken) < ENOUGH_SECONDS:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return median(taken)


def saved_bytes(bundle: Bundle) -> int:
    """Return the size of a head as it is saved."""
    with tempfile.TemporaryDirectory() as folder:
        saved = save_bundle(Path(folder) / "head", bundle, metrics={})
        return sum(path.stat().st_size for path in saved.iterdir())


#: Images per class of the points; those with fewer than two are no training, and the last point is all there are.
STEPS = (2, 5, 10, 20, 50, 100, 200, 500, 1000)


def learning_curve(course: CrossValidation, chosen: Sequence[Trial], random_state: int) -> tuple[CurvePoint, ...]:
    """Return accuracy on the folds' test images, fitted on some images of each class of their training rows, ascending.

    ``chosen`` are the setting and cache that each fold chose with all of its images; the images of a smaller fit are
    among those of a larger one. The interval is that of the mean over the folds (Student's t), which knows nothing of
    their common images.
    """
    labels, folds = course.labels, course.folds
    largest = int(np.bincount(labels[folds.splits[0].train]).max())
    steps = [*(step for step in STEPS if step < largest), largest]
    accuracy, sizes = np.zeros((len(steps), len(chosen))), np.zeros((len(steps), len(chosen)))
    for source, of_source in by_source(chosen).items():
        own = course.tables(source)
        for fold in of_source:
            for number, step in enumerate(steps):
                accuracy[number, fold], sizes[number, fold] = fit_some(
                    own, chosen[fold].spec, labels, folds.splits[fold], step, random_state
                )
    return tuple(
        CurvePoint(float(np.median(sizes[number])), t_interval(accuracy[number].tolist()))
        for number in range(len(steps))
    )


def fit_some(
    tables: Tables, spec: HeadSpec, labels: NDArray[np.int64], split: Fold, per_class: int, random_state: int
) -> tuple[float, float]:
    """Return the accuracy on a fold's test images, fitted on some training rows, and how many of a class those were."""
    table = tables[spec.features, spec.scaling]
    weights = table.weights_of(split.train)
    train = draw(labels, split.train if weights is None else split.train[weights > 0], per_class, random_state)
    with warnings.catch_warnings():
        # Few images end few solvers early; the whole fits have said what there is to say.
        warnings.simplefilter("ignore")
        rows, all_labels = table.fitted(train, labels)
        weights, groups = table.weights_of(rows), table.groups_of(rows)
        head = fit_weighted(make_head(spec), table.raw[rows], all_labels[rows], weights, groups)
        predicted = outputs_of(head, table.raw[split.test], int(labels.max()) + 1).argmax(axis=1)
    return float((predicted == labels[split.test]).mean()), len(train) / len(np.unique(labels[train]))


def draw(labels: NDArray[np.int64], train: NDArray[np.int64], per_class: int, random_state: int) -> NDArray[np.int64]:
    """Return the first so many rows of each class, in an order that the seed alone decides."""
    order = np.random.default_rng(random_state).permutation(train)
    return np.sort(np.concatenate([order[labels[order] == label][:per_class] for label in np.unique(labels[train])]))


def t_interval(values: Sequence[float]) -> Estimate:
    """Return the mean and its 95 % interval by Student's t, within 0 and 1."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, 0.0, 1.0)
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half))
