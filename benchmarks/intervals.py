"""How often stated intervals hold, where the truth is known.

    python benchmarks/intervals.py [REPETITIONS]

Classes are Gaussian clouds of equal, known spread; a head is the softmax of distances to the class means of its training
images, on four columns of its own, so that several heads are equally good and err independently. As in ``benchmark-heads``,
probabilities are out of five folds; intervals, tests and the correction for the choice are those of the program. The truth is
the score of the head fitted on all images, on 5,000 new ones (10,000 where classes are nearly separable). Printed and kept,
of each setting: how often the interval of every score holds it; how often the interval of what to expect of the recommended
head (by accuracy) holds the truth of that head; the mean of the measured and of the corrected figure less that truth; how
often any two equal heads are told apart; and how often interval and p-value disagree.
"""

from __future__ import annotations

import sys
from itertools import product
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from headstart.criteria import METRICS
from headstart.evaluate.folds import make_folds
from headstart.evaluate.influence import influences
from headstart.evaluate.intervals import CV_VARIANCE, Units, estimates
from headstart.evaluate.metrics import metric_values
from headstart.evaluate.selection import corrected
from headstart.evaluate.significance import ALPHA, differences
from machine import write_result

Floats = NDArray[np.float64]

#: Distance of two class means in standard deviations, by number of classes.
DISTANCES = {
    "nearly separable": {2: 5.2, 5: 5.8},
    "overlapping": {2: 1.68, 5: 2.2},
    "random labels": {2: 0.0, 5: 0.0},
}
SIZES, CLASSES, HEADS, COLUMNS = (60, 150, 500), (2, 5), (1, 2, 6), 4


def class_means(n_classes: int, distance: float) -> Floats:
    """Corners of a simplex, in four columns."""
    corners = np.eye(n_classes) - 1 / n_classes
    axes = np.linalg.svd(corners)[2][: n_classes - 1]
    return np.pad(corners @ axes.T, ((0, 0), (0, COLUMNS - n_classes + 1))) * distance / np.sqrt(2)


def fit_predict(X: Floats, y: NDArray[np.int64], new: Floats, n_classes: int) -> Floats:
    """Probabilities of the nearest class mean."""
    means = np.stack([X[y == label].mean(axis=0) for label in range(n_classes)])
    scores = new @ means.T - (means**2).sum(axis=1) / 2
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def repetition(n: int, n_classes: int, separation: str, seed: int) -> dict[str, Any]:
    """Return whether the intervals of one data set hold, of one head and of the best of several."""
    rng = np.random.default_rng(seed)
    means = class_means(n_classes, DISTANCES[separation][n_classes])
    y = np.arange(n) % n_classes
    new_y = np.arange(10_000 if separation == "nearly separable" else 5_000) % n_classes
    splits = make_folds(y, random_state=seed).splits
    rows, made = [], []
    for _ in range(max(HEADS)):
        X = means[y] + rng.normal(size=(n, COLUMNS))
        probabilities = np.zeros((n, n_classes))
        for split in splits:
            probabilities[split.test] = fit_predict(X[split.train], y[split.train], X[split.test], n_classes)
        rows.append(X)
        made.append(probabilities)

    def truth_of(head: int) -> Floats:
        return fit_predict(rows[head], y, means[new_y] + rng.normal(size=(len(new_y), COLUMNS)), n_classes)

    truth = metric_values(new_y, truth_of(0))
    stated = estimates(y, made[0], variance_factor=CV_VARIANCE)
    row: dict[str, Any] = {name: one.low <= truth[name] <= one.high for name, one in stated.items()}
    found = [influences(y, probabilities)["accuracy"] for probabilities in made]
    for n_heads in HEADS:
        best = int(np.argmax([one.value for one in found[:n_heads]]))
        accuracy = float((truth_of(best).argmax(axis=1) == new_y).mean())
        row |= best_of(best, found[:n_heads], made[best], y, accuracy, seed)
    return row


def best_of(
    best: int, found: list[Any], probabilities: Floats, y: NDArray[np.int64], truth: float, seed: int
) -> dict[str, Any]:
    """Return whether the interval of the best of some heads holds, its errors, and what the tests say."""
    units = Units(None, len(y))
    expected = corrected(METRICS[0], found, y, probabilities, units, random_state=seed)
    tests = differences({str(number): one for number, one in enumerate(found)}, units, str(best)).values()
    return {
        f"best of {len(found)}": expected.low <= truth <= expected.high,
        f"measured of {len(found)}": found[best].value - truth,
        f"corrected of {len(found)}": expected.value - truth,
        f"expected of {len(found)}": expected.value,
        f"told apart of {len(found)}": any(one.p_value < ALPHA for one in tests),
        f"disagree of {len(found)}": any(
            (one.p_value < ALPHA) == (one.estimate.low <= 0 <= one.estimate.high) for one in tests
        ),
    }


def main(repetitions: int) -> None:
    results: list[dict[str, Any]] = []
    for separation, n_classes, n in product(DISTANCES, CLASSES, SIZES):
        seeds = range(1000 * n, 1000 * n + repetitions)
        rows = Parallel(n_jobs=2)(delayed(repetition)(n, n_classes, separation, seed) for seed in seeds)
        means = {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}
        results.append({"separation": separation, "n_classes": n_classes, "n_images": n} | means)
        write_result("intervals", {"repetitions": repetitions, "settings": results})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
