"""Checks on the files of a data set: unreadable images, notes of the decoder, sizes, images per class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.columns import Rows
from headstart.cache.reader import FeatureCache
from headstart.report.html_pages import Check, Example, Finding, ListedImage
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


def read_columns(cache: FeatureCache, max_examples: int) -> Columns:
    """Return the metadata that the checks need; no features are read."""
    rows = cache.rows.kept("path", "split", "group", "sha256", "notes", "width_px", "height_px")
    size = cache.recipe.input_size_px
    return Columns(rows, cache.labels, cache.class_names, size, cache.failures, max_examples)


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
