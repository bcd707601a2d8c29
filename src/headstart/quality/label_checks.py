"""Labels that are probably wrong, by what a head says of images that it was not fitted on.

Confident learning in its simple form: Northcutt, Jiang & Chuang, "Confident Learning: Estimating Uncertainty in Dataset
Labels", Journal of Artificial Intelligence Research 70, 2021, section 3.1.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from headstart.evaluate.splits import connected_units, majority_class
from headstart.heads.catalogue import default_spec, make_head
from headstart.quality.file_checks import Columns
from headstart.report.html_pages import Check, Example, Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Parts of which each is predicted by a head that was fitted on the others.
N_FOLDS = 5

#: Images times classes up to which the heads are fitted: some minutes on two cores.
MAX_IMAGES_TIMES_CLASSES = 20_000_000

LABELS = Check(
    "probable-label-errors",
    "Labels that are probably wrong",
    "warning",
    "A head that was fitted without the image is sure of another class. Some will be hard, not wrong: look at them.",
)


def why_not(columns: Columns, rows: NDArray[np.int64]) -> str:
    """Return why labels cannot be checked; empty where they can."""
    labels = columns.labels[rows]
    kept, _ = usable(columns, rows)
    n_classes = len(np.unique(labels[kept]))
    if not (labels >= 0).any():
        return "the images have no labels"
    if len(np.unique(labels[labels >= 0])) < 2:
        return "all images are of one class"
    if n_classes < 2:
        return f"it needs two classes with at least {N_FOLDS} different images (or groups) each"
    if len(kept) * n_classes > MAX_IMAGES_TIMES_CLASSES:
        return f"{len(kept):,} images of {n_classes:,} classes would take too long"
    return ""


def usable(columns: Columns, rows: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the positions among ``rows`` of images whose class has enough units for every fold, and their units."""
    positions = np.flatnonzero(columns.labels[rows] >= 0)
    if not len(positions):
        return positions, positions
    units = connected_units(rows[positions], columns.sha256, columns.groups)
    labels = columns.labels[rows[positions]]
    pairs = np.unique(np.stack([labels, units]), axis=1)
    enough = np.bincount(pairs[0], minlength=len(columns.class_names)) >= N_FOLDS
    keep = enough[labels]
    return positions[keep], np.unique(units[keep], return_inverse=True)[1]


def label_errors(
    columns: Columns, features: NDArray[np.float32], rows: NDArray[np.int64], random_state: int = 0
) -> Finding:
    """Return the images whose label is probably wrong, the surest first.

    An image is listed where another class gets a higher probability than the given one, and at least the probability
    that images of that class get on average (the thresholds of confident learning).

    Parameters
    ----------
    columns : Columns
        What the cache says of its rows.
    features : ndarray of shape (n_rows, n_features), float32
        Averages of the stored layer, finite.
    rows : ndarray of shape (n_rows,), int64
        The row of the cache of each.
    random_state : int
        Seeds the folds.
    """
    kept, units = usable(columns, rows)
    classes, given = np.unique(columns.labels[rows[kept]], return_inverse=True)
    probabilities = out_of_fold(features[kept], given, folds_of(units, given, random_state), len(classes))
    everyone = np.arange(len(given))
    own = probabilities[everyone, given]
    thresholds = np.bincount(given, weights=own) / np.bincount(given)
    confident = np.where(probabilities >= thresholds, probabilities, 0.0)
    other = confident.argmax(axis=1)
    others = confident[everyone, other]
    listed = np.flatnonzero((other != given) & (others > own))
    listed = listed[np.argsort(own[listed] - others[listed], kind="stable")]
    names = [columns.class_names[c] for c in classes]
    examples = tuple(
        example(columns, int(rows[kept[i]]), names[given[i]], names[other[i]], float(own[i]), float(others[i]))
        for i in listed
    )
    right = float(np.mean(probabilities.argmax(axis=1) == given))
    return Finding(
        LABELS,
        len(listed),
        examples,
        threshold=f"{N_FOLDS} logistic heads, each fitted without the images that it judges ({right:.1%} of {len(given):,} "
        "as labelled); another class at least as probable as it is for its own images on average",
    )


def example(columns: Columns, row: int, given: str, other: str, own: float, others: float) -> Example:
    """Return one image with what the head says."""
    values = {"given": given, "probability_given": round(own, 4), "other": other, "probability_other": round(others, 4)}
    return columns.example([row], f"labelled {given} ({own:.2f}), more like {other} ({others:.2f})", values)


def folds_of(units: NDArray[np.intp], given: NDArray[np.intp], random_state: int) -> NDArray[np.intp]:
    """Return the fold of each image: whole units, each class spread evenly."""
    rng = np.random.default_rng(random_state)
    unit_class = majority_class(units, given)
    fold = np.empty(len(unit_class), np.intp)
    start = 0
    for label in np.unique(unit_class):
        members = rng.permutation(np.flatnonzero(unit_class == label))
        fold[members] = (start + np.arange(len(members))) % N_FOLDS
        start += len(members)
    folds: NDArray[np.intp] = fold[units]
    return folds


def out_of_fold(
    features: NDArray[np.float32], given: NDArray[np.intp], folds: NDArray[np.intp], n_classes: int
) -> NDArray[np.float64]:
    """Return probabilities of shape (n_images, n_classes), each row by a head fitted on the other folds."""
    probabilities = np.zeros((len(given), n_classes))
    for fold in np.unique(folds):
        inside = folds == fold
        head = make_head(default_spec("logistic"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a head that has not converged quite ranks as well
            head.fit(features[~inside], given[~inside])
        probabilities[np.ix_(np.flatnonzero(inside), head.classes_)] = head.predict_proba(features[inside])
    return probabilities
