"""What the dense head does by default, chosen on training images: settings beside the tutorial's, in the same folds.

python benchmarks/dense_defaults.py CACHE [CACHE ...] --repeats N [N ...]      repetitions for each cache

Repeated stratified five-fold cross-validation on the training images of each cache, or all where it names none. Every
setting is fitted on the same folds with the same seed, so differences are paired. Their standard error is over repetitions:
it says how well the mean over divisions and seeds is known on these images, not what other images would give.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold

from headstart.cache.reader import open_cache
from headstart.heads.catalogue import default_spec, make_head
from headstart.heads.transforms import design_matrix
from machine import write_result

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.cache.reader import FeatureCache
    from headstart.types import HeadSpec

#: What was tried, by name: the options of ``default_spec``. The first is what the others are compared with.
SETTINGS: dict[str, dict[str, Any]] = {
    "tutorial: flatten, none": {"scaling": "none"},
    "default": {},
    "avg, epochs 20": {"features": ["avg"], "params": {"epochs": 20}},
    "avg": {"features": ["avg"]},
    "crops in one row": {"params": {"views": 1}},
    "epochs 20": {"params": {"epochs": 20}},
    "epochs 30, learning_rate 0.005": {"params": {"epochs": 30, "learning_rate": 0.005}},
    "constant": {"params": {"schedule": "constant"}},
    "learning_rate 0.001": {"params": {"learning_rate": 0.001}},
    "learning_rate 0.01": {"params": {"learning_rate": 0.01}},
    "dropout 0.5": {"params": {"dropout": 0.5}},
    "sqrt-l2": {"scaling": "sqrt-l2"},
    "flatten": {"features": ["flatten"]},
    "block4_conv3,avg": {"features": ["block4_conv3", "avg"]},
}


def examine(path: Path, n_repeats: int, names: Sequence[str]) -> dict[str, Any]:
    """Return accuracies and log-losses of settings on one cache, a value for each repetition, and their differences."""
    with open_cache(path) as cache:
        rows = np.flatnonzero([split in ("train", "") for split in cache.splits] & (cache.labels >= 0))
        y = cache.labels[rows]
        found = {name: measure(cache, rows, y, SETTINGS[name], n_repeats) for name in names}
    baseline = np.array(found[names[0]]["accuracy"])
    for name, result in found.items():
        accuracy = np.array(result["accuracy"])
        result["accuracy_mean"] = float(accuracy.mean())
        result["gain"] = float((accuracy - baseline).mean())
        result["gain_standard_error"] = standard_error(accuracy - baseline)
        print(
            f"{path.stem:<12}{name:<38}{accuracy.mean():.4f}  {result['gain']:+.4f} ± {result['gain_standard_error']:.4f}  "
            f"log-loss {np.mean(result['log_loss']):.3f}  {result['seconds_per_fit']:.2f} s a fit"
        )
    return {"n_train": len(y), "n_classes": len(np.unique(y)), "n_repeats": n_repeats, "settings": found}


def measure(
    cache: FeatureCache, rows: NDArray[np.int64], y: NDArray[np.int64], options: dict[str, Any], n_repeats: int
) -> dict[str, Any]:
    """Return accuracy and log-loss of one setting in each repetition, and seconds of a fit."""
    spec = default_spec("dense", **options)
    X = design_matrix(cache.batches(rows), spec.features, n_samples=len(rows))
    result: dict[str, Any] = {"accuracy": [], "log_loss": []}
    start = time.perf_counter()
    for repeat in range(n_repeats):
        probabilities = predict_all(X, y, spec, repeat)
        result["accuracy"].append(float(np.mean(probabilities.argmax(axis=1) == y)))
        result["log_loss"].append(float(log_loss(y, probabilities)))
    result["seconds_per_fit"] = (time.perf_counter() - start) / (5 * n_repeats)
    return result


def predict_all(X: NDArray[np.float32], y: NDArray[np.int64], spec: HeadSpec, repeat: int) -> NDArray[np.float64]:
    """Return probabilities of every row by a head that was fitted on the other folds."""
    probabilities = np.zeros((len(y), len(np.unique(y))))
    for train, test in StratifiedKFold(5, shuffle=True, random_state=repeat).split(X, y):
        head = make_head(replace(spec, random_state=repeat)).fit(X[train], y[train])
        probabilities[test] = head.predict_proba(X[test])
    return probabilities / probabilities.sum(axis=1, keepdims=True)  # float32 rows add up to nearly 1


def standard_error(values: NDArray[np.float64]) -> float:
    """Return the standard error of a mean."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each cache and setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("caches", type=Path, nargs="+", metavar="CACHE")
    parser.add_argument(
        "--repeats", type=int, nargs="+", default=[5], help="one number for all caches, or one for each"
    )
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS), metavar="NAME")
    parser.add_argument("--brief", action="store_true", help="results are printed only")
    options = parser.parse_args(arguments)
    repeats = options.repeats * (len(options.caches) if len(options.repeats) == 1 else 1)
    if len(repeats) != len(options.caches) or min(repeats) < 2:
        parser.error("a standard error needs at least two repetitions of each cache")
    write_result(
        "dense-defaults",
        {
            "baseline": f"the dense head with: {options.settings[0]}; same folds, same seeds",
            "caches": {
                path.stem: examine(path, n, options.settings) for path, n in zip(options.caches, repeats, strict=True)
            },
        },
        keep=not options.brief,
    )


if __name__ == "__main__":
    main()
