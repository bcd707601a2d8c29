"""The search of fit-head against scikit-learn's GridSearchCV: same rows, same folds, same eight values of C.

    python benchmarks/head_search.py features/flowers17.h5 [--rounds 3] [--brief]

Logistic regression on the flattened map, every row of length 1, C from 1e-3 to 1e4, 5 stratified folds of the training
split. Three ways by turns, each in a process of its own: ours (two threads), ``GridSearchCV(n_jobs=2)`` and
``GridSearchCV(n_jobs=1)`` of ``LogisticRegression`` on the same dense float32 matrix, read before the clock starts. Printed:
seconds (median), ratios, and the chosen C with its cross-validated accuracy.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from machine import median, write_result

CS = [10.0**k for k in range(-3, 5)]
N_SPLITS = 5

#: Seconds after which one way is given up.
LONGEST = 900


def read(cache: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.preprocessing import normalize

    from headstart.cache.reader import open_cache
    from headstart.heads.transforms import design_matrix

    with open_cache(cache) as opened:
        splits = np.array(opened.splits)
        rows = np.flatnonzero((splits == "train") if "train" in opened.splits else opened.labels >= 0)
        X = design_matrix(opened.batches(rows), ("flatten",), n_samples=len(rows))
        return normalize(X), opened.labels[rows]


def ours(X: np.ndarray, y: np.ndarray, folds: list[Any], _n_jobs: int) -> dict[float, float]:
    from headstart.evaluate.folds import Fold
    from headstart.heads.catalogue import default_spec
    from headstart.heads.grid_predictions import Table
    from headstart.selection.cross_validation import LocalPool, cross_validate

    specs = [default_spec("logistic", features=("flatten",), scaling="l2", params={"C": C}) for C in CS]
    tables = {(("flatten",), "l2"): Table(X, ("flatten",), "l2")}
    trials = cross_validate(specs, tables, y, [Fold(train, test) for train, test in folds], pool=LocalPool())
    return {trial.spec.params["C"]: trial.score for trial in trials}


def grid_search(X: np.ndarray, y: np.ndarray, folds: list[Any], n_jobs: int) -> dict[float, float]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(LogisticRegression(max_iter=1000), {"C": CS}, cv=folds, n_jobs=n_jobs, refit=False)
    search.fit(X, y)
    return dict(zip(CS, search.cv_results_["mean_test_score"].tolist(), strict=True))


WAYS = {"ours": (ours, 2), "GridSearchCV(n_jobs=2)": (grid_search, 2), "GridSearchCV(n_jobs=1)": (grid_search, 1)}


def measure(cache: str, way: str) -> None:
    """Run one way and print what came of it; this is what a child process runs."""
    from sklearn.model_selection import StratifiedKFold

    warnings.simplefilter("ignore")
    X, y = read(cache)
    folds = list(StratifiedKFold(N_SPLITS, shuffle=True, random_state=0).split(X, y))
    search, n_jobs = WAYS[way]
    start = time.perf_counter()
    accuracy = search(X, y, folds, n_jobs)
    print(json.dumps([time.perf_counter() - start, list(accuracy.items()), X.shape]))


def in_a_process(cache: str, way: str) -> tuple[float, dict[float, float], tuple[int, int]]:
    """Return seconds, accuracy at each C, and the shape of the matrix."""
    command = [sys.executable, __file__, cache, "--one", way]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=LONGEST)
    seconds, accuracy, shape = json.loads(run.stdout.splitlines()[-1])
    return seconds, dict(accuracy), tuple(shape)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--brief", action="store_true", help="ours and two processes alone; results are printed only")
    options = parser.parse_args(arguments)
    if options.one:
        measure(options.cache, options.one)
        return
    seconds: dict[str, list[float]] = {way: [] for way in list(WAYS)[: 2 if options.brief else None]}
    accuracy, shape = {}, (0, 0)
    for number in range(options.rounds):
        for way, of_way in seconds.items():
            taken, accuracy[way], shape = in_a_process(options.cache, way)
            of_way.append(taken)
            print(f"round {number + 1}: {way} {taken:.2f} s", flush=True)
    medians = {way: median(taken) for way, taken in seconds.items()}
    print(f"\n{shape[0]:,} × {shape[1]:,}, {len(CS)} values of C × {N_SPLITS} folds; median of {options.rounds}")
    rows = {}
    for way, found in accuracy.items():
        best = max(found, key=lambda C: (round(found[C], 9), -C))
        rows[way] = {
            "seconds": seconds[way],
            "median_seconds": medians[way],
            "times_ours": medians[way] / medians["ours"],
            "C": best,
            "accuracy_at_C": {str(C): value for C, value in found.items()},
        }
        print(
            f"{way:24s} {medians[way]:7.2f} s  {medians[way] / medians['ours']:6.2f} × ours   C={best:g} ({found[best]:.4f})"
        )
    write_result(
        "head-search", {"cache": Path(options.cache).name, "shape": shape, "ways": rows}, keep=not options.brief
    )


if __name__ == "__main__":
    main()
