"""The dense head against the Keras tutorial's own training, on the same rows of the same caches.

python benchmarks/dense_head.py CACHE [CACHE ...]      accuracy over seeds, and seconds of a fit measured by turns

Three ways: the tutorial's ``model.fit`` on raw maps; our dense head with the same settings on the same raw maps; our
dense head as ``fit-head --type dense`` has it unless told otherwise.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.cache.reader import open_cache
from headstart.evaluate.splits import divide
from headstart.heads.catalogue import default_spec, make_head
from headstart.heads.dense import DenseHead
from headstart.runtime import import_keras
from headstart.selection.search import read_features
from machine import median, write_result

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Runs:
    """Seconds, accuracy and log-loss of the fits of one way, a value for each seed."""

    seconds: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    log_loss: list[float] = field(default_factory=list)

    def add(self, seconds: float, probabilities: NDArray[np.float32], y: NDArray[np.int64]) -> None:
        """Keep one fit, scored on held-out rows."""
        self.seconds.append(seconds)
        self.accuracy.append(float((probabilities.argmax(axis=1) == y).mean()))
        of_label = probabilities[np.arange(len(y)), y]
        self.log_loss.append(float(-np.log(np.maximum(of_label, 1e-7)).mean()))

    def to_dict(self) -> dict[str, Any]:
        """Return every value, and means with the spread over seeds."""
        return {
            "seconds": self.seconds,
            "accuracy": self.accuracy,
            "accuracy_mean": statistics.fmean(self.accuracy),
            "accuracy_spread": statistics.stdev(self.accuracy),
            "log_loss_mean": statistics.fmean(self.log_loss),
        }


def train_tutorial(X: NDArray[np.float32], y: NDArray[np.int64], seed: int, epochs: int = 10) -> Any:
    """Return the tutorial's network, trained as it trains: Flatten, Dense 256, softmax; ``model.fit`` on arrays.

    It gets its maps with shape (n, 7, 7, 512) and its one-hot labels as the tutorial has them. Where a seed is set,
    Keras takes the rows in the same order in every epoch, and where none is, in another; ours always in another.
    """
    keras = import_keras()
    keras.utils.set_random_seed(seed)
    one_hot = keras.utils.to_categorical(y)
    model = keras.Sequential(
        [
            keras.Input(X.shape[1:]),
            keras.layers.Flatten(),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dense(one_hot.shape[1], activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    model.fit(X, one_hot, epochs=epochs, batch_size=32, verbose=0)
    return model


def compare(path: Path, n_seeds: int) -> dict[str, Any]:
    """Fit both ways by turns on one cache: its own split, or three quarters of it."""
    spec, raw = default_spec("dense"), default_spec("dense", scaling="none")
    with open_cache(path) as cache:
        split = divide(cache).split
        X, X_test = (read_features(cache, raw.features, rows) for rows in (split.train, split.validation))
        pooled, pooled_test = (read_features(cache, spec.features, rows) for rows in (split.train, split.validation))
        y, y_test = cache.labels[split.train], cache.labels[split.validation]
    maps, maps_test = X.reshape(-1, 7, 7, 512), X_test.reshape(-1, 7, 7, 512)
    few = np.arange(64) % 2
    train_tutorial(maps[:64], few, seed=0, epochs=1)  # what a process does once belongs to no fit
    DenseHead(epochs=1, random_state=0).fit(X[:64], few)
    theirs, same, default = Runs(), Runs(), Runs()
    for seed in range(n_seeds):
        start = time.perf_counter()
        model = train_tutorial(maps, y, seed)
        theirs.add(time.perf_counter() - start, model.predict(maps_test, verbose=0), y_test)
        for runs, settings, rows, rows_test in (same, raw, X, X_test), (default, spec, pooled, pooled_test):
            start = time.perf_counter()
            head = make_head(replace(settings, random_state=seed)).fit(rows, y)
            runs.add(time.perf_counter() - start, head.predict_proba(rows_test), y_test)
    return {
        "split": split.description,
        "n_train": len(y),
        "n_test": len(y_test),
        "baseline": theirs.to_dict(),
        "same_settings": {**same.to_dict(), **against(same, theirs)},
        "default": {
            "features": list(spec.features),
            "scaling": spec.scaling,
            **default.to_dict(),
            **against(default, theirs),
        },
    }


def against(ours: Runs, theirs: Runs) -> dict[str, float]:
    """Return how much better and how many times faster our runs are."""
    return {
        "accuracy_gain": statistics.fmean(ours.accuracy) - statistics.fmean(theirs.accuracy),
        "accuracy_gain_standard_error": standard_error(ours.accuracy, theirs.accuracy),
        "times_faster": median(theirs.seconds) / median(ours.seconds),
    }


def standard_error(ours: list[float], theirs: list[float]) -> float:
    """Return the standard error, over seeds, of the difference of two means; the same seed makes no pair of them."""
    return float(np.sqrt(statistics.variance(ours) / len(ours) + statistics.variance(theirs) / len(theirs)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare on every cache that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("caches", type=Path, nargs="+", metavar="CACHE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--brief", action="store_true", help="results are printed only, in one line")
    options = parser.parse_args(arguments)
    if options.seeds < 2:
        parser.error("a spread needs at least two seeds")
    write_result(
        "dense-head",
        {
            "baseline": "Flatten → Dense 256 → softmax on raw maps, Adam, 10 epochs of 32, model.fit on arrays, same run",
            "caches": {path.stem: compare(path, options.seeds) for path in options.caches},
        },
        keep=not options.brief,
    )


if __name__ == "__main__":
    main()
