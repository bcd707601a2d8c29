"""Counts and curves of predictions, for plots and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.scores import ECE_BINS, wilson

Labels = NDArray[np.int64]
Floats = NDArray[np.floating]

#: Vertices of a drawn curve.
MOST_VERTICES = 200


@dataclass(frozen=True, slots=True)
class Curve:
    """The vertices of a curve, from left to right, and the area under it."""

    x: NDArray[np.float64]  # vertices; shape (n_points,)
    y: NDArray[np.float64]
    area: float  # area before thinning


@dataclass(frozen=True, slots=True)
class ClassTally:
    """One-vs-rest metrics of a class; names as in scikit-learn."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """Number of images of one class predicted as another."""

    true: str
    predicted: str
    count: int
    support: int


@dataclass(frozen=True, slots=True)
class Bin:
    """Mean confidence, correct predictions and images of one bin of confidence."""

    confidence: float
    right: int
    count: int

    @property
    def accuracy(self) -> float:
        """Fraction of correct predictions."""
        return self.right / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the accuracy."""
        low, high = wilson(self.accuracy, self.count)
        return min(self.accuracy, low), max(self.accuracy, high)  # rounding errors


@dataclass(frozen=True, slots=True)
class Mistake:
    """A wrongly classified image."""

    path: str
    probability: float
    true_probability: float


@dataclass(frozen=True, slots=True)
class MistakenCell:
    """A cell of the confusion matrix: number of images, and the most confident mistakes."""

    true: str
    predicted: str
    count: int
    mistakes: tuple[Mistake, ...]


def confusion_matrix(y_true: Labels, probabilities: Floats) -> NDArray[np.int64]:
    """Return counts of shape (n_classes, n_classes): rows are true classes, columns predicted ones."""
    counts = np.zeros((probabilities.shape[1],) * 2, np.int64)
    np.add.at(counts, (y_true, probabilities.argmax(axis=1)), 1)
    return counts


def class_tallies(counts: NDArray[np.int64], class_names: Sequence[str]) -> list[ClassTally]:
    """Return precision, recall and F1 of each class; 0 if undefined."""
    right, support, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    shares = (
        right / np.maximum(predicted, 1),
        right / np.maximum(support, 1),
        2 * right / np.maximum(support + predicted, 1),
    )
    return [
        ClassTally(name, float(precision), float(recall), float(f1), int(n))
        for name, precision, recall, f1, n in zip(class_names, *shares, support, strict=True)
    ]


def confusions(counts: NDArray[np.int64], class_names: Sequence[str], most: int) -> list[Confusion]:
    """Return the most frequent confusions between classes, most frequent first."""
    wrong = counts - np.diag(counts.diagonal())
    support = counts.sum(axis=1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        Confusion(class_names[i], class_names[j], int(wrong[i, j]), int(support[i])) for i, j in pairs if wrong[i, j]
    ]


def mistakes_by_cell(
    y_true: Labels,
    probabilities: Floats,
    class_names: Sequence[str],
    paths: Sequence[str],
    *,
    per_cell: int,
    most: int,
) -> list[MistakenCell]:
    """Return the mistakes in each cell of the confusion matrix, the fullest cell first.

    At most ``per_cell`` are listed of each, the most confident ones, and ``most`` in total.
    """
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != y_true)
    pairs, cell, counts = np.unique(
        np.stack([y_true[wrong], predicted[wrong]]), axis=1, return_inverse=True, return_counts=True
    )
    cells: list[MistakenCell] = []
    for number in np.argsort(-counts, kind="stable").tolist():
        rows = wrong[cell.ravel() == number]
        rows = rows[np.argsort(-confidence[rows], kind="stable")][: min(per_cell, most)]
        if not len(rows):
            break
        most -= len(rows)
        true, called = (class_names[label] for label in pairs[:, number])
        listed = [Mistake(paths[row], float(confidence[row]), float(probabilities[row, y_true[row]])) for row in rows]
        cells.append(MistakenCell(true, called, int(counts[number]), tuple(listed)))
    return cells


def reliability(y_true: Labels, probabilities: Floats, n_bins: int = ECE_BINS) -> list[Bin]:
    """Return the non-empty bins of confidence, ascending."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == y_true
    # Bins are closed to the right, as in the paper.
    number = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    rows = [number == index for index in range(n_bins)]
    return [Bin(float(confidence[row].mean()), int(right[row].sum()), int(row.sum())) for row in rows if row.any()]


# Curves


def both_curves(y_true: NDArray[np.bool_], scores: Floats) -> tuple[Curve, Curve]:
    """Return the ROC curve, and the precision-recall curve with average precision as its area.

    ``y_true`` is bool, with at least one of both kinds; ``scores`` are higher for positive.
    """
    hits, misses = cumulative(y_true, scores)
    recall, precision = hits / hits[-1], hits / (hits + misses)
    x, y = np.r_[0.0, misses / misses[-1]], np.r_[0.0, recall]
    average = float(np.sum(np.diff(recall, prepend=0.0) * precision))
    return Curve(x, y, float(np.trapezoid(y, x))), Curve(y, np.r_[precision[0], precision], average)


def cumulative(y_true: NDArray[np.bool_], scores: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return true and false positives at each threshold, from high to low; equal scores are one threshold."""
    order = np.argsort(-scores)
    sorted_scores, positive = scores[order], y_true[order]
    last = np.r_[np.flatnonzero(np.diff(sorted_scores)), len(scores) - 1]
    hits: NDArray[np.int64] = np.cumsum(positive, dtype=np.int64)[last]
    return hits, last + 1 - hits


def _one_vs_rest(y_true: Labels, probabilities: Floats) -> Iterator[tuple[NDArray[np.bool_], Floats]]:
    """Yield truth and score for each class with positive and negative images."""
    for label in range(probabilities.shape[1]):
        positive = y_true == label
        if positive.any() and not positive.all():
            yield positive, probabilities[:, label]


def macro_curves(y_true: Labels, probabilities: Floats) -> tuple[Curve, Curve]:
    """Return the unweighted means of all classes' one-vs-rest curves."""
    pairs = [both_curves(*pair) for pair in _one_vs_rest(y_true, probabilities)]
    return _mean_roc([roc for roc, _ in pairs]), _mean_precision([precision for _, precision in pairs])


def _mean_roc(curves: Sequence[Curve]) -> Curve:
    """Return the mean true positive rate at equal false positive rate."""
    x = _grid(curves)
    # Curves may be vertical at a position, so each position becomes two vertices.
    lower = np.mean([np.interp(-x, -curve.x[::-1], curve.y[::-1]) for curve in curves], axis=0)
    upper = np.mean([np.interp(x, curve.x, curve.y) for curve in curves], axis=0)
    area = float(np.mean([curve.area for curve in curves]))
    return Curve(np.repeat(x, 2), np.stack([lower, upper], axis=1).ravel(), area)


def _mean_precision(curves: Sequence[Curve]) -> Curve:
    """Return the mean precision at equal recall."""
    x = np.linspace(0.0, 1.0, 201)
    # Between two thresholds, use the next one that reaches the recall.
    steps = [curve.y[np.searchsorted(curve.x, x - 1e-12, side="left")] for curve in curves]
    return Curve(x, np.mean(steps, axis=0), float(np.mean([curve.area for curve in curves])))


def _grid(curves: Sequence[Curve]) -> NDArray[np.float64]:
    """Return at most 2,000 positions from 0 to 1, dense where the curves have vertices."""
    places = np.unique(np.concatenate([curve.x for curve in curves]))
    kept: NDArray[np.float64] = places[np.unique(np.linspace(0, len(places) - 1, 2000).astype(int))]
    return kept


def micro_curves(y_true: Labels, probabilities: Floats) -> tuple[Curve, Curve]:
    """Return both curves over all pairs of image and class."""
    truth = np.zeros(probabilities.shape, np.bool_)
    truth[np.arange(len(y_true)), y_true] = True
    return both_curves(truth.ravel(), probabilities.ravel())


def thinned(curve: Curve) -> Curve:
    """Return at most ``MOST_VERTICES`` of a curve, evenly spaced along its length; both ends are kept."""
    if len(curve.x) <= MOST_VERTICES:
        return curve
    length = np.r_[0.0, np.cumsum(np.abs(np.diff(curve.x)) + np.abs(np.diff(curve.y)))]
    kept = np.searchsorted(length, np.linspace(0.0, length[-1], MOST_VERTICES))
    kept = np.unique(np.r_[0, np.minimum(kept, len(length) - 1), len(length) - 1])[: MOST_VERTICES - 1]
    kept[-1] = len(length) - 1
    return Curve(curve.x[kept], curve.y[kept], curve.area)
