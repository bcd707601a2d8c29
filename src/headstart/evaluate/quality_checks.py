"""Checks of a data set: unreadable images, notes, sizes, classes; duplicates, near-duplicates and probable label errors."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.columns import Rows
from headstart.evaluate.folds import units_per_class
from headstart.evaluate.leakage import SAME_SCENE_COSINE, cosine_range, group_by_cosine, unit_rows
from headstart.evaluate.splits import connected_units, majority_class
from headstart.heads.catalogue import default_spec, make_head
from headstart.report.html_pages import Check, Example, Finding, ListedImage
from headstart.texts import counted
from headstart.types import Failure

#: Images listed of a large group.
MAX_MEMBERS = 12


@dataclass(frozen=True, slots=True)
class Columns:
    """Metadata of a cache: one value per row, and the failures."""

    rows: Rows  # usable after the file is closed
    labels: NDArray[np.int64]  # shape (n_images,): index into ``class_names``, −1 if unlabelled
    class_names: tuple[str, ...]
    input_size_px: int  # side of the network's input
    failures: Sequence[Failure]
    max_examples: int  # examples per finding; all are counted

    def image(self, row: int) -> ListedImage:
        """Return one row for a report."""
        label = int(self.labels[row])
        return ListedImage(
            self.rows.path[row], self.class_names[label] if label >= 0 else None, self.rows.split[row] or None
        )

    def example(self, rows: Iterable[int], detail: str = "", values: Mapping[str, Any] | None = None) -> Example:
        """Return one case; only the first rows of many are listed."""
        members = [int(row) for row in rows]
        counted = {"n_images": len(members)} if len(members) > 1 else {}
        return Example(tuple(self.image(row) for row in members[:MAX_MEMBERS]), detail, counted | dict(values or {}))


#: Images with a shorter side are tiny: the network sees mostly interpolated pixels.
MIN_SIDE_PX = 32

#: Largest ratio of the sides that can be squeezed to a square.
MAX_ASPECT_RATIO = 4.0

#: Ratio of largest to smallest class from which on accuracy is misleading.
MAX_IMBALANCE = 10.0

# fmt: off
UNREADABLE = Check("unreadable", "Images that could not be read", "warning",
                   "They have no features and are not used. Replace or delete them.")
TINY = Check("tiny", "Tiny images", "warning",
             "Enlarged to the network's input they show little detail. Find larger originals.")
ASPECT = Check("extreme-aspect-ratio", "Extreme aspect ratio", "warning",
               "The network sees them squeezed to a square. Crop them, or leave them out.")
FEW = Check("few-images", "Classes with few images", "warning",
            "A head learns such a class badly, and its score is unreliable. Collect more, or merge classes.", "classes")
IMBALANCE = Check("imbalance", "Strong class imbalance", "warning",
                  "Judge heads by balanced accuracy, and try balanced class weights.", "data sets")
OLD_SCALE = Check("scaled-from-range", "Brightness scaled image by image", "warning",
                  "An older version scaled each image by its own range, so that brightness cannot be compared between them. "
                  "Run extract-features again: it decodes them by one rule.")

#: Prefix of a note of images/decode.py → check; the first match counts, and the last takes the rest.
NOTE_CHECKS = {
    "named-": Check("wrong-extension", "Suffix of another format than the content", "info",
                    "They were read by their content. Other programs may refuse them: rename them."),
    "exif-unreadable": Check("exif-unreadable", "Damaged metadata", "warning",
                             "Their orientation is not known: they were read as stored."),
    "exif-": Check("exif-rotated", "Turned by their EXIF orientation", "info",
                   "Programs that ignore EXIF show them otherwise. If some look wrong, their orientation is wrong."),
    "alpha-": Check("alpha", "Transparency", "info",
                    "Transparent pixels became white. If only one class has them, a head may learn the white."),
    "scaled-from-range": OLD_SCALE,
    "from-I": OLD_SCALE,
    "from-F": OLD_SCALE,
    "low-range": Check("low-range", "Little of the range is used", "warning",
                       "Their values span little of the range of their type: few of the 256 levels are used. Run "
                       "extract-features with the intensity range, percentiles or LOW:HIGH."),
    "clipped": Check("clipped", "Values outside the range", "warning", "Values below black or above white were clipped. Run "
                     "extract-features with the intensity range or LOW:HIGH."),
    "upper-bits": Check("upper-bits", "Only the upper 8 bits were read", "info",
                        "Their reader gives no more, and the intensity has no effect on them: convert them to PNG or TIFF."),
    "pages-are-colours": Check("pages-are-colours", "Three pages are one colour picture", "info",
                               "According to their description."),
    "first-": Check("first-frame", "Several frames or pages", "info", "Only the first of each was read. extract-features "
                    "can read another page, or the largest or mean value of all."),
    "from-": Check("converted", "Colours converted to RGB", "info",
                   "Harmless unless only one class is of another kind: a head may then learn the kind."),
    "": Check("other-notes", "Other changes while decoding", "info", "As noted by the decoder."),
}
# fmt: on


def file_findings(columns: Columns, min_images_per_class: int) -> Iterator[Finding]:
    """Yield the findings that need no features, including those without cases."""
    yield _unreadable(columns)
    yield _tiny(columns)
    yield _extreme_aspect_ratio(columns)
    yield from _noted(columns)
    if columns.class_names:
        yield from _class_sizes(columns, min_images_per_class)


def _unreadable(columns: Columns) -> Finding:
    kinds = Counter(_kind_of_reason(failure.reason) for failure in columns.failures)
    by_kind = sorted(columns.failures, key=lambda f: (-kinds[_kind_of_reason(f.reason)], f.reason))
    examples = tuple(
        Example((ListedImage(f.ref.path, f.ref.label, f.ref.split),), f.reason, {"reason": f.reason})
        for f in by_kind[: columns.max_examples]
    )
    return Finding(UNREADABLE, len(columns.failures), examples, _ordered(kinds))


def _kind_of_reason(reason: str) -> str:
    return re.split(r"[:(]", reason, maxsplit=1)[0].strip() or reason


def _tiny(columns: Columns) -> Finding:
    """Return the images that are enlarged too much, the smallest first."""
    least = max(MIN_SIDE_PX, columns.input_size_px / 4)
    shorter = np.minimum(columns.rows.width_px, columns.rows.height_px)
    rows = np.flatnonzero((shorter < least) & (shorter > 0))  # 0 means unknown
    rows = rows[np.argsort(shorter[rows], kind="stable")]
    return Finding(TINY, len(rows), _sized(columns, rows), threshold=f"shorter side below {least:.0f} pixels")


def _extreme_aspect_ratio(columns: Columns) -> Finding:
    """Return the images that are squeezed most, the longest first."""
    sides = np.stack([columns.rows.width_px, columns.rows.height_px]).astype(np.float64)
    ratio = sides.max(axis=0) / np.maximum(sides.min(axis=0), 1)
    rows = np.flatnonzero(ratio > MAX_ASPECT_RATIO)
    rows = rows[np.argsort(-ratio[rows], kind="stable")]
    return Finding(ASPECT, len(rows), _sized(columns, rows), threshold=f"above {MAX_ASPECT_RATIO:g} : 1")


def _sized(columns: Columns, rows: NDArray[np.intp]) -> tuple[Example, ...]:
    shown = rows[: columns.max_examples].tolist()
    sizes = [(int(columns.rows.width_px[row]), int(columns.rows.height_px[row])) for row in shown]
    return tuple(
        columns.example([row], f"{w:,} × {h:,} pixels", {"width_px": w, "height_px": h})
        for row, (w, h) in zip(shown, sizes, strict=True)
    )


def _noted(columns: Columns) -> Iterator[Finding]:
    counts: Counter[str] = Counter()
    kinds: dict[str, Counter[str]] = {check.name: Counter() for check in NOTE_CHECKS.values()}
    examples: dict[str, list[Example]] = {check.name: [] for check in NOTE_CHECKS.values()}
    for row, notes in enumerate(columns.rows.notes):
        of_row: dict[str, list[str]] = {}
        for note in notes:
            check = next(check for prefix, check in NOTE_CHECKS.items() if note.startswith(prefix))
            of_row.setdefault(check.name, []).append(note)
        for name, some in of_row.items():
            counts[name] += 1
            kinds[name].update(some)
            if len(examples[name]) < columns.max_examples:
                examples[name].append(columns.example([row], ", ".join(some), {"notes": some}))
    for check in dict.fromkeys(NOTE_CHECKS.values()):
        yield Finding(check, counts[check.name], tuple(examples[check.name]), _ordered(kinds[check.name]))


def _class_sizes(columns: Columns, least: int) -> Iterator[Finding]:
    """Yield the classes with few images, and the imbalance; of the training images if there is such a split."""
    labelled = columns.labels >= 0
    train = np.fromiter((split == "train" for split in columns.rows.split), bool, len(columns.rows.split)) & labelled
    chosen, where = (train, "training images") if train.any() else (labelled, "images")
    counts = np.bincount(columns.labels[chosen], minlength=len(columns.class_names))
    order = np.argsort(counts, kind="stable")
    few = [
        Example((), f"{columns.class_names[c]}: {counts[c]:,}", {"class": columns.class_names[c], "n": int(counts[c])})
        for c in order
        if counts[c] < least
    ]
    yield Finding(FEW, len(few), tuple(few), threshold=f"fewer than {least:,} {where}")
    smallest = order[counts[order] > 0][:1]
    if len(counts) < 2 or not len(smallest):
        return
    low, high = int(smallest[0]), int(order[-1])
    ratio = float(counts[high] / counts[low])
    detail = f"{columns.class_names[high]}: {counts[high]:,} {where}; {columns.class_names[low]}: {counts[low]:,}"
    values = {"largest": columns.class_names[high], "smallest": columns.class_names[low], "ratio": ratio}
    found = ratio >= MAX_IMBALANCE
    yield Finding(
        IMBALANCE,
        int(found),
        (Example((), detail, values),) if found else (),
        threshold=f"largest to smallest class {MAX_IMBALANCE:g} : 1 or more",
    )


def _ordered(kinds: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0])))


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
