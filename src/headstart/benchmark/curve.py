"""Accuracy against the number of images per class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from headstart.benchmark.nested import by_source, probabilities_of
from headstart.heads.catalogue import make_head
from headstart.report.comparison import CurvePoint
from headstart.scores import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.benchmark.nested import Tables, TablesOf
    from headstart.evaluate.folds import Fold, Folds
    from headstart.schema import HeadSpec
    from headstart.search.trials import Trial

#: Images per class of the points; those with fewer than two are no training, and the last point is all there are.
STEPS = (2, 5, 10, 20, 50, 100, 200, 500, 1000)


def learning_curve(
    tables: TablesOf, chosen: Sequence[Trial], labels: NDArray[np.int64], folds: Folds, random_state: int
) -> tuple[CurvePoint, ...]:
    """Return accuracy on the folds' test images, fitted on some images of each class of their training rows.

    Parameters
    ----------
    tables : callable
        Returns the rows of a cache (benchmark/nested.py).
    chosen : sequence of Trial
        Setting and cache that each fold chose with all of its images.
    labels : ndarray of shape (n_samples,), int64
        Of the tables' rows.
    folds : Folds
        Of the tables' rows.
    random_state : int
        Seeds which images are taken; those of fewer are among those of more.

    Returns
    -------
    tuple of CurvePoint
        Ascending. The interval is that of the mean over the folds (Student's t), which knows nothing of their common images.
    """
    largest = int(np.bincount(labels[folds.splits[0].train]).max())
    steps = [*(step for step in STEPS if step < largest), largest]
    accuracy, sizes = np.zeros((len(steps), len(chosen))), np.zeros((len(steps), len(chosen)))
    for source, of_source in by_source(chosen).items():
        own = tables(source)
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
    train = draw(labels, split.train, per_class, random_state)
    X = tables[spec.features, spec.scaling].raw
    with warnings.catch_warnings():
        # Few images end few solvers early; the whole fits have said what there is to say.
        warnings.simplefilter("ignore")
        head = make_head(spec).fit(X[train], labels[train])
        predicted = probabilities_of(head, X[split.test], int(labels.max()) + 1).argmax(axis=1)
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
