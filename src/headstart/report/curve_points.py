"""What plots and tables count in true classes and probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Labels = NDArray[np.int64]
    Floats = NDArray[np.floating]

#: Bins of confidence, equally wide: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 5.
BINS = 15

#: Standard normal quantile of 97.5 %.
Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve from left to right, and the number that sums it up.

    Attributes
    ----------
    x, y : ndarray of shape (n_points,), float64
        Its vertices.
    area : float
        Under the curve before any point was left out.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    area: float


@dataclass(frozen=True, slots=True)
class ClassTally:
    """How well one class is told from the others; keys as scikit-learn names them."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """Images of one class that were taken for another."""

    true: str
    predicted: str
    count: int
    support: int


@dataclass(frozen=True, slots=True)
class Bin:
    """Images whose largest probability lies in one bin: its mean, how many were right, and how many there are."""

    confidence: float
    right: int
    count: int

    @property
    def accuracy(self) -> float:
        """Share of right ones."""
        return self.right / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of that share (Wilson, JASA 22, 1927)."""
        share, z2 = self.accuracy, Z_95**2
        centre = share + z2 / (2 * self.count)
        half = Z_95 * math.sqrt(share * (1 - share) / self.count + z2 / (4 * self.count**2))
        scale = 1 + z2 / self.count
        # Rounding must not put the share outside of its own interval.
        return min(share, max(0.0, (centre - half) / scale)), max(share, min(1.0, (centre + half) / scale))


@dataclass(frozen=True, slots=True)
class Mistake:
    """An image that was given the wrong class."""

    path: str
    probability: float
    true_probability: float


@dataclass(frozen=True, slots=True)
class MistakenCell:
    """Images of one class that were given another: how many, and the most confident ones."""

    true: str
    predicted: str
    count: int
    mistakes: tuple[Mistake, ...]


def confusion_matrix(y_true: Labels, probabilities: Floats) -> NDArray[np.int64]:
    """Return counts of shape (n_classes, n_classes): rows are true classes, columns the most probable ones."""
    counts = np.zeros((probabilities.shape[1],) * 2, np.int64)
    np.add.at(counts, (y_true, probabilities.argmax(axis=1)), 1)
    return counts


def class_tallies(counts: NDArray[np.int64], class_names: Sequence[str]) -> list[ClassTally]:
    """Return precision, recall and F1 of each class; 0 where there is nothing to divide by, as scikit-learn has it."""
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
    """Return the pairs of classes that were confused most often, in that order."""
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
    """Return the wrong predictions of each cell of the confusion matrix, the fullest cell first.

    Parameters
    ----------
    y_true, probabilities, class_names, paths
        Of every image.
    per_cell, most : int
        Mistakes listed of a cell, those with the largest probabilities, and in all; cells beyond that are left out.
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


def reliability(y_true: Labels, probabilities: Floats, n_bins: int = BINS) -> list[Bin]:
    """Return the bins of the largest probability that hold any image, from the least confident to the most."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == y_true
    # Bins are closed to the right, as in the paper: a probability of 1 is in the last.
    number = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    rows = [number == index for index in range(n_bins)]
    return [Bin(float(confidence[row].mean()), int(right[row].sum()), int(row.sum())) for row in rows if row.any()]


# Curves


def both_curves(y_true: NDArray[np.bool_], scores: Floats) -> tuple[Curve, Curve]:
    """Return the ROC curve, and precision over recall with average precision as its area.

    Parameters
    ----------
    y_true : ndarray of shape (n,), bool
        At least one of both kinds.
    scores : ndarray of shape (n,)
        Higher for what is held to be true.
    """
    hits, misses = cumulative(y_true, scores)
    recall, precision = hits / hits[-1], hits / (hits + misses)
    x, y = np.r_[0.0, misses / misses[-1]], np.r_[0.0, recall]
    average = float(np.sum(np.diff(recall, prepend=0.0) * precision))
    return Curve(x, y, float(np.trapezoid(y, x))), Curve(y, np.r_[precision[0], precision], average)


def cumulative(y_true: NDArray[np.bool_], scores: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return positives and negatives at or above each threshold, thresholds from high to low, equal scores together."""
    order = np.argsort(-scores)
    sorted_scores, positive = scores[order], y_true[order]
    last = np.r_[np.flatnonzero(np.diff(sorted_scores)), len(scores) - 1]
    hits: NDArray[np.int64] = np.cumsum(positive, dtype=np.int64)[last]
    return hits, last + 1 - hits


def _one_vs_rest(y_true: Labels, probabilities: Floats) -> Iterator[tuple[NDArray[np.bool_], Floats]]:
    """Yield truth and score of each class that has images, and has images that are not of it."""
    for label in range(probabilities.shape[1]):
        positive = y_true == label
        if positive.any() and not positive.all():
            yield positive, probabilities[:, label]


def macro_curves(y_true: Labels, probabilities: Floats) -> tuple[Curve, Curve]:
    """Return the means of every class's two curves, one class against the rest, each class counting the same."""
    pairs = [both_curves(*pair) for pair in _one_vs_rest(y_true, probabilities)]
    return _mean_roc([roc for roc, _ in pairs]), _mean_precision([precision for _, precision in pairs])


def _mean_roc(curves: Sequence[Curve]) -> Curve:
    """Return the mean true positive rate at equal false positive rate."""
    x = _grid(curves)
    # A curve that rises at one of these places has two heights there, so every place is two vertices.
    lower = np.mean([np.interp(-x, -curve.x[::-1], curve.y[::-1]) for curve in curves], axis=0)
    upper = np.mean([np.interp(x, curve.x, curve.y) for curve in curves], axis=0)
    area = float(np.mean([curve.area for curve in curves]))
    return Curve(np.repeat(x, 2), np.stack([lower, upper], axis=1).ravel(), area)


def _mean_precision(curves: Sequence[Curve]) -> Curve:
    """Return the mean precision at equal recall."""
    x = np.linspace(0.0, 1.0, 201)
    # At a recall between two thresholds the next one that reaches it counts.
    steps = [curve.y[np.searchsorted(curve.x, x - 1e-12, side="left")] for curve in curves]
    return Curve(x, np.mean(steps, axis=0), float(np.mean([curve.area for curve in curves])))


def _grid(curves: Sequence[Curve]) -> NDArray[np.float64]:
    """Return at most 2,000 places from 0 to 1, dense where the curves have their vertices."""
    places = np.unique(np.concatenate([curve.x for curve in curves]))
    kept: NDArray[np.float64] = places[np.unique(np.linspace(0, len(places) - 1, 2000).astype(int))]
    return kept


def micro_curves(y_true: Labels, probabilities: Floats) -> tuple[Curve, Curve]:
    """Return both curves over all pairs of image and class, each pair counting the same."""
    truth = np.zeros(probabilities.shape, np.bool_)
    truth[np.arange(len(y_true)), y_true] = True
    return both_curves(truth.ravel(), probabilities.ravel())


def thinned(curve: Curve, most: int = 200) -> Curve:
    """Return at most that many of a curve's own vertices, spread evenly along its length; both ends stay."""
    if len(curve.x) <= most:
        return curve
    length = np.r_[0.0, np.cumsum(np.abs(np.diff(curve.x)) + np.abs(np.diff(curve.y)))]
    kept = np.searchsorted(length, np.linspace(0.0, length[-1], most))
    kept = np.unique(np.r_[0, np.minimum(kept, len(length) - 1), len(length) - 1])[: most - 1]
    kept[-1] = len(length) - 1
    return Curve(curve.x[kept], curve.y[kept], curve.area)
