"""How often stated intervals hold, where the truth is known.

    python benchmarks/intervals.py [REPETITIONS]

Classes are Gaussian clouds of equal, known spread; a head is the softmax of distances to the class means of its training
images, on four columns of its own, so that several heads are equally good and err independently. As in ``benchmark-heads``,
probabilities are out of five folds; intervals, tests and the correction for the choice are those of the program. The truth is
the score of the head fitted on all images, on 5,000 new ones (10,000 where classes are nearly separable). Kept of each
setting: how often the interval of every score holds it; and of the best of some heads, by every score that a choice may go
by, how often the interval of what to expect of it holds its truth, the mean of the measured and of the corrected figure less
that truth, and less that of heads of as many images as a fold trains on, how often any two of these equal heads are told
apart, and how often interval and p-value disagree. Printed are the figures that stand in docs/adr/0008, and the whole at the
end.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from headstart.evaluate.folds import make_folds
from headstart.evaluate.intervals import CV_VARIANCE, Influence, Units, estimates, influences
from headstart.evaluate.significance import corrected, differences
from headstart.evaluate.splits import Split
from headstart.evaluate.target_types.class_target import metric_values
from headstart.scores import ALPHA, CHOICE_METRICS, METRICS, Metric
from machine import write_result

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

#: Distance of two class means in standard deviations, by number of classes.
DISTANCES = {
    "nearly separable": {2: 5.2, 5: 5.8},
    "overlapping": {2: 1.68, 5: 2.2},
    "random labels": {2: 0.0, 5: 0.0},
}
#: New images on which the heads of folds are scored: there are five for each.
FOLD_TRUTH = 2000
SIZES, CLASSES, HEADS, COLUMNS = (60, 150, 500), (2, 5), (1, 2, 6), 4


def class_means(n_classes: int, distance: float) -> Floats:
    """Corners of a simplex, in four columns."""
    corners = np.eye(n_classes) - 1 / n_classes
    axes = np.linalg.svd(corners)[2][: n_classes - 1]
    return np.pad(corners @ axes.T, ((0, 0), (0, COLUMNS - n_classes + 1))) * distance / np.sqrt(2)


def fit_predict(X: Floats, y: Labels, new: Floats, n_classes: int) -> Floats:
    """Probabilities of the nearest class mean."""
    means = np.stack([X[y == label].mean(axis=0) for label in range(n_classes)])
    scores = new @ means.T - (means**2).sum(axis=1) / 2
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Head:
    """Out-of-fold probabilities, the scores of the head fitted on all images, and the mean ones of the heads of the folds."""

    probabilities: Floats
    truth: Mapping[str, float]
    truth_of_folds: Mapping[str, float]


def fitted(
    rng: np.random.Generator, y: Labels, splits: Sequence[Split], means: Floats, new_y: Labels, n_classes: int
) -> Head:
    """Return a head on columns of its own."""
    X, new = (means[labels] + rng.normal(size=(len(labels), COLUMNS)) for labels in (y, new_y))
    probabilities, of_folds = np.zeros((len(y), n_classes)), []
    for split in splits:
        fold = X[split.train], y[split.train]
        probabilities[split.test] = fit_predict(*fold, X[split.test], n_classes)
        of_folds.append(metric_values(new_y[:FOLD_TRUTH], fit_predict(*fold, new[:FOLD_TRUTH], n_classes)))
    truth = metric_values(new_y, fit_predict(X, y, new, n_classes))
    return Head(probabilities, truth, {name: float(np.mean([fold[name] for fold in of_folds])) for name in truth})


def repetition(n: int, n_classes: int, separation: str, seed: int) -> dict[str, Any]:
    """Return whether the intervals of one data set hold, of one head and of the best of several."""
    rng = np.random.default_rng(seed)
    means = class_means(n_classes, DISTANCES[separation][n_classes])
    y = np.arange(n) % n_classes
    new_y = np.arange(10_000 if separation == "nearly separable" else 5_000) % n_classes
    splits = make_folds(y, random_state=seed).splits
    heads = [fitted(rng, y, splits, means, new_y, n_classes) for _ in range(max(HEADS))]
    stated = estimates(y, heads[0].probabilities, variance_factor=CV_VARIANCE)
    row: dict[str, Any] = {name: one.low <= heads[0].truth[name] <= one.high for name, one in stated.items()}
    found = [influences(y, head.probabilities) for head in heads]
    for metric, n_heads in product(METRICS, HEADS):
        if metric.name in CHOICE_METRICS:
            row |= best_of(metric, heads[:n_heads], [one[metric.name] for one in found[:n_heads]], y, seed)
    return row


def best_of(metric: Metric, heads: Sequence[Head], found: Sequence[Influence], y: Labels, seed: int) -> dict[str, Any]:
    """Return whether the interval of the best of some heads holds, its errors, and what the tests say."""
    units = Units(None, len(y))
    number = int(np.argmax([metric.gain(one.value) for one in found]))
    best, truth = heads[number], heads[number].truth[metric.name]
    expected = corrected(metric, found, y, best.probabilities, units, random_state=seed)
    tests = differences({str(other): one for other, one in enumerate(found)}, units, str(number)).values()
    row = {
        "held": expected.low <= truth <= expected.high,
        "measured": found[number].value - truth,
        "corrected": expected.value - truth,
        "corrected, of folds": expected.value - best.truth_of_folds[metric.name],
        "told apart": any(one.p_value < ALPHA for one in tests),
        "disagree": any((one.p_value < ALPHA) == (one.estimate.low <= 0 <= one.estimate.high) for one in tests),
    }
    return {f"best of {len(heads)} by {metric.name}: {name}": value for name, value in row.items()}


def main(repetitions: int) -> None:
    results: list[dict[str, Any]] = []
    for separation, n_classes, n in product(DISTANCES, CLASSES, SIZES):
        seeds = range(1000 * n, 1000 * n + repetitions)
        rows = Parallel(n_jobs=2)(delayed(repetition)(n, n_classes, separation, seed) for seed in seeds)
        means = {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}
        results.append({"separation": separation, "n_classes": n_classes, "n_images": n} | means)
        print(line(results[-1]), flush=True)
    write_result("intervals", {"repetitions": repetitions, "settings": results})


def line(means: Mapping[str, Any]) -> str:
    """Return a setting as a line of a table: per cent that held, and the errors of the best of six heads by accuracy."""
    held = [means[metric.name] for metric in METRICS]
    held += [means[f"best of {n} by {name}: held"] for name in CHOICE_METRICS for n in HEADS[1:]]
    errors = [means[f"best of 6 by accuracy: {name}"] for name in ("corrected", "corrected, of folds", "measured")]
    setting = f"{means['n_classes']}, {means['separation']} | {means['n_images']}"
    return " | ".join([setting, *(f"{100 * share:.0f}" for share in held), *(f"{error:+.3f}" for error in errors)])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
