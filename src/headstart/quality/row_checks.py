"""Duplicates and near-duplicates among images, and probable label errors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.evaluate.folds import units_per_class
from headstart.evaluate.near_duplicates import SAME_SCENE_COSINE, cosine_range, group_by_cosine, unit_rows
from headstart.evaluate.splits import connected_units, majority_class
from headstart.heads.catalogue import default_spec, make_head
from headstart.quality.file_checks import Columns
from headstart.report.html_pages import Check, Example, Finding
from headstart.texts import counted

# fmt: off
IDENTICAL = Check("identical-files", "Identical files", "info",
                  "The same bytes under several names. They weigh more than others in a fit; keep one of each.", "groups")
IDENTICAL_LABELS = Check("identical-files-different-labels", "Identical files with different labels", "error",
                         "At least one label is wrong. Keep the file in the class that it belongs to.", "groups")
IDENTICAL_SPLITS = Check("identical-files-across-splits", "Identical files in different splits", "error",
                         "A score on such an image means nothing. Keep it in one split; until then, fit-head leaves it out "
                         "of training.", "groups")
NEAR = Check("near-duplicates", "Near-duplicates", "info", "The same picture saved again, resized or cropped, or shots in a "
             "row. Keep one, or give them a common group.", "groups")
NEAR_LABELS = Check("near-duplicates-different-labels", "Near-duplicates with different labels", "warning",
                    "Either the small difference distinguishes the classes, or one of the labels is wrong. Look at them.",
                    "groups")
NEAR_SPLITS = Check("near-duplicates-across-splits", "Near-duplicates in different splits", "warning",
                    "Scores on such images are too good. Put each group into one split, e.g. by the manifest's column group.",
                    "groups")
LABELS = Check("probable-label-errors", "Probable label errors", "warning", "A head fitted without the image is sure of "
               "another class. Some images are difficult rather than wrong: look at them.")
# fmt: on


def identical_files(columns: Columns) -> Iterator[Finding]:
    """Yield the groups of identical files, and those with different labels and in different splits."""
    by_digest: dict[str, list[int]] = {}
    prefixes = columns.rows.sha256.array[:, :8].copy().view(np.uint64)[:, 0]  # compared before the whole digests
    _, which, counts = np.unique(prefixes, return_inverse=True, return_counts=True)
    for row in np.flatnonzero(counts[which] > 1).tolist():
        by_digest.setdefault(columns.rows.sha256[row], []).append(row)
    groups = sorted((rows for rows in by_digest.values() if len(rows) > 1), key=len, reverse=True)

    def example(rows: Sequence[int]) -> Example:
        return columns.example(rows, counted(len(rows), "file"), {"sha256": columns.rows.sha256[rows[0]]})

    checks = (IDENTICAL, IDENTICAL_LABELS, IDENTICAL_SPLITS)
    yield from _three_findings(columns, groups, checks, example)


def _three_findings(
    columns: Columns,
    groups: Sequence[Sequence[int]],
    checks: tuple[Check, Check, Check],
    example: Callable[[Sequence[int]], Example],
    threshold: str = "",
) -> Iterator[Finding]:
    """Yield all groups, those with different labels, and those in different splits."""
    labels, splits = columns.labels, columns.rows.split
    of_labels = [_one_of_each(rows, labels) for rows in groups if len({labels[row] for row in rows} - {-1}) > 1]
    of_splits = [_one_of_each(rows, splits) for rows in groups if len({splits[row] for row in rows} - {""}) > 1]
    for check, found in zip(checks, (groups, of_labels, of_splits), strict=True):
        yield Finding(
            check, len(found), tuple(example(rows) for rows in found[: columns.max_examples]), threshold=threshold
        )


def _one_of_each(rows: Sequence[int], values: Sequence[Any] | NDArray[Any]) -> list[int]:
    """Return rows with the first of each value before the others, since only the first are listed."""
    first = list({values[row]: row for row in reversed(rows)}.values())[::-1]
    chosen = set(first)
    return first + [row for row in rows if row not in chosen]


def near_duplicates(
    columns: Columns, features: NDArray[np.float32], rows: NDArray[np.int64], cosine: float
) -> Iterator[Finding]:
    """Yield the groups of near-duplicates, and those with different labels and in different splits.

    ``features`` are finite averages of the stored layer, shape (n_rows, n_features), of these ``rows`` of the cache;
    ``cosine`` is the least cosine of near-duplicates, after subtracting the mean.
    """
    _, first, copy_of = np.unique([columns.rows.sha256[row] for row in rows], return_index=True, return_inverse=True)
    unit = unit_rows(features[first])
    component = group_by_cosine(unit, cosine)
    members: dict[int, list[int]] = {}
    for position, number in enumerate(component[copy_of]):
        members.setdefault(int(number), []).append(position)
    groups = [m for m in members.values() if len({int(copy_of[position]) for position in m}) > 1]
    groups.sort(key=len, reverse=True)
    digest_of = {int(rows[position]): int(copy_of[position]) for m in groups for position in m}

    def example(found: Sequence[int]) -> Example:
        low, high = cosine_range(unit[sorted({digest_of[row] for row in found})])
        shown = f"{low:.3f}" if len(found) == 2 else f"{low:.3f}–{high:.3f}"
        return columns.example(found, f"{counted(len(found))}, cosine {shown}", {"cosine": [low, high]})

    threshold = f"cosine of the averaged features ≥ {cosine:g} with their mean subtracted, or ≥ {SAME_SCENE_COSINE:g}"
    found = [[int(rows[position]) for position in m] for m in groups]
    yield from _three_findings(columns, found, (NEAR, NEAR_LABELS, NEAR_SPLITS), example, threshold)


N_FOLDS = 5

#: Largest number of images times classes that is checked: some minutes on two cores.
MAX_IMAGES_TIMES_CLASSES = 20_000_000


def why_not(columns: Columns, rows: NDArray[np.int64]) -> str:
    """Return why labels cannot be checked; empty if they can."""
    labels = columns.labels[rows]
    kept, _ = _usable(columns, rows)
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


def _usable(columns: Columns, rows: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the positions in ``rows`` of images whose class has enough units for every fold, and their units."""
    positions = np.flatnonzero(columns.labels[rows] >= 0)
    if not len(positions):
        return positions, positions
    units = connected_units(rows[positions], columns.rows.sha256, columns.rows.group)
    labels = columns.labels[rows[positions]]
    keep = (units_per_class(units, labels, len(columns.class_names)) >= N_FOLDS)[labels]
    return positions[keep], np.unique(units[keep], return_inverse=True)[1]


def label_errors(
    columns: Columns, features: NDArray[np.float32], rows: NDArray[np.int64], random_state: int = 0
) -> Finding:
    """Return the images whose label is probably wrong, the clearest first; features and rows as for :func:`near_duplicates`.

    An image is listed if another class gets a higher probability than its label, and at least the mean probability that
    images of that class get for it (the thresholds of confident learning).
    """
    kept, units = _usable(columns, rows)
    classes, given = np.unique(columns.labels[rows[kept]], return_inverse=True)
    probabilities = _out_of_fold(features[kept], given, _folds_of(units, given, random_state), len(classes))
    everyone = np.arange(len(given))
    own = probabilities[everyone, given]
    thresholds = np.bincount(given, weights=own) / np.bincount(given)
    confident = np.where(probabilities >= thresholds, probabilities, 0.0)
    other = confident.argmax(axis=1)
    others = confident[everyone, other]
    listed = np.flatnonzero((other != given) & (others > own))
    listed = listed[np.argsort(own[listed] - others[listed], kind="stable")]
    names = [columns.class_names[c] for c in classes]

    def example(i: int) -> Example:
        label, likely, p_label, p_likely = names[given[i]], names[other[i]], float(own[i]), float(others[i])
        values = {"given": label, "probability_given": round(p_label, 4)}
        values |= {"other": likely, "probability_other": round(p_likely, 4)}
        detail = f"labelled {label} ({p_label:.2f}), more like {likely} ({p_likely:.2f})"
        return columns.example([int(rows[kept[i]])], detail, values)

    right = float(np.mean(probabilities.argmax(axis=1) == given))
    return Finding(
        LABELS,
        len(listed),
        tuple(example(i) for i in listed.tolist()),
        threshold=f"{N_FOLDS} logistic heads, each fitted without the images that it judges ({right:.1%} of {len(given):,} "
        "as labelled); another class at least as probable as for its own images on average",
    )


def _folds_of(units: NDArray[np.intp], given: NDArray[np.intp], random_state: int) -> NDArray[np.intp]:
    """Return the fold of each image: whole units, classes spread evenly."""
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


def _out_of_fold(
    features: NDArray[np.float32], given: NDArray[np.intp], folds: NDArray[np.intp], n_classes: int
) -> NDArray[np.float64]:
    """Return probabilities of shape (n_images, n_classes), each row by a head fitted on the other folds."""
    probabilities = np.zeros((len(given), n_classes))
    for fold in np.unique(folds):
        inside = folds == fold
        head = make_head(default_spec("logistic"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # convergence does not matter for the ranking
            head.fit(features[~inside], given[~inside])
        probabilities[np.ix_(np.flatnonzero(inside), head.classes_)] = head.predict_proba(features[inside])
    return probabilities
