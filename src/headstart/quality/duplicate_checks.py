"""Images that are there twice: the same bytes, or nearly the same features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.evaluate.near_duplicates import SAME_SCENE_COSINE, cosine_range, group_by_cosine, unit_rows
from headstart.quality.file_checks import Columns
from headstart.report.html_pages import Check, Example, Finding
from headstart.texts import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

IDENTICAL = Check(
    "identical-files",
    "Identical files",
    "info",
    "The same bytes under several names. They weigh more than others when a head is fitted; keep one of each.",
    unit="groups",
)
IDENTICAL_LABELS = Check(
    "identical-files-different-labels",
    "Identical files with different labels",
    "error",
    "At least one of the labels is wrong. Keep the file in the class that it belongs to.",
    unit="groups",
)
IDENTICAL_SPLITS = Check(
    "identical-files-across-splits",
    "Identical files in different splits",
    "error",
    "A score on such an image says nothing. Keep it in one split; fit-head leaves it out of training until then.",
    unit="groups",
)
NEAR = Check(
    "near-duplicates",
    "Near-duplicates",
    "info",
    "The same picture saved again, resized or cropped, or shots in a row. Keep one, or give them a common group.",
    unit="groups",
)
NEAR_LABELS = Check(
    "near-duplicates-different-labels",
    "Near-duplicates with different labels",
    "warning",
    "Either they differ in just what counts, or one of the labels is wrong. Look at them.",
    unit="groups",
)
NEAR_SPLITS = Check(
    "near-duplicates-across-splits",
    "Near-duplicates in different splits",
    "warning",
    "Scores on such images are too good. Put each group into one split, as by the manifest's column group.",
    unit="groups",
)


def identical_files(columns: Columns) -> Iterator[Finding]:
    """Yield the groups of files with the same bytes, and those of different labels and in different splits."""
    by_digest: dict[str, list[int]] = {}
    heads = columns.sha256.array[:, :8].copy().view(np.uint64)[:, 0]  # where they differ, the digests do
    _, which, counts = np.unique(heads, return_inverse=True, return_counts=True)
    for row in np.flatnonzero(counts[which] > 1).tolist():
        by_digest.setdefault(columns.sha256[row], []).append(row)
    groups = sorted((rows for rows in by_digest.values() if len(rows) > 1), key=len, reverse=True)

    def example(rows: Sequence[int]) -> Example:
        return columns.example(rows, counted(len(rows), "file"), {"sha256": columns.sha256[rows[0]]})

    checks = (IDENTICAL, IDENTICAL_LABELS, IDENTICAL_SPLITS)
    yield from three_findings(columns, groups, checks, example)


def three_findings(
    columns: Columns,
    groups: Sequence[Sequence[int]],
    checks: tuple[Check, Check, Check],
    example: Callable[[Sequence[int]], Example],
    threshold: str = "",
) -> Iterator[Finding]:
    """Yield all groups, those of different labels, and those in different splits."""
    of_labels = [one_of_each(rows, columns.labels) for rows in groups if columns.n_labels(rows) > 1]
    of_splits = [one_of_each(rows, columns.splits) for rows in groups if columns.n_splits(rows) > 1]
    for check, found in zip(checks, (groups, of_labels, of_splits), strict=True):
        yield Finding(
            check, len(found), tuple(example(rows) for rows in found[: columns.max_examples]), threshold=threshold
        )


def one_of_each(rows: Sequence[int], values: Sequence[Any] | NDArray[Any]) -> list[int]:
    """Return rows so that the first one of each value comes before the others: of many, the first are shown."""
    first = list({values[row]: row for row in reversed(rows)}.values())[::-1]
    chosen = set(first)
    return first + [row for row in rows if row not in chosen]


def near_duplicates(
    columns: Columns, features: NDArray[np.float32], rows: NDArray[np.int64], cosine: float
) -> Iterator[Finding]:
    """Yield the groups of images with nearly the same features, and those of different labels and in different splits.

    Parameters
    ----------
    columns : Columns
        What the cache says of its rows.
    features : ndarray of shape (n_rows, n_features), float32
        Averages of the stored layer, finite.
    rows : ndarray of shape (n_rows,), int64
        The row of the cache of each.
    cosine : float
        From where on two images are nearly the same, the mean subtracted.
    """
    _, first, copy_of = np.unique([columns.sha256[row] for row in rows], return_index=True, return_inverse=True)
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
    yield from three_findings(columns, found, (NEAR, NEAR_LABELS, NEAR_SPLITS), example, threshold)
