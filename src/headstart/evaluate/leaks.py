"""Images that are on both sides of a split that was given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from headstart.evaluate.folds import check_lengths
from headstart.evaluate.neighbours import SAME_PICTURE_COSINE, near_units
from headstart.evaluate.splits import coded
from headstart.schema import SPLITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["identical", "group", "near"]

#: What two images have in common, in words.
IN_COMMON: dict[Kind, str] = {
    "identical": "have the same bytes as",
    "group": "are of one group with",
    "near": "look nearly the same as",
}


@dataclass(frozen=True, slots=True)
class Leak:
    """Images of one split that have a relative in another.

    Attributes
    ----------
    kind : str
        ``identical`` bytes, one ``group``, or ``near``: features of nearly the same picture, of different bytes.
    fitted, scored : str
        Names of the two splits; the first is the one nearer to training.
    fitted_rows, scored_rows : ndarray of int64
        Rows of each that have a relative in the other, ascending.
    n_scored : int
        Labelled images of the split ``scored``, with a relative or without.
    """

    kind: Kind
    fitted: str
    scored: str
    fitted_rows: NDArray[np.int64]
    scored_rows: NDArray[np.int64]
    n_scored: int

    @property
    def count(self) -> int:
        """Images scored that have a relative."""
        return len(self.scored_rows)

    @property
    def sentence(self) -> str:
        """The leak, for a person."""
        images = "images" if len(self.fitted_rows) > 1 else "image"
        return (
            f"{self.count:,} of the {self.n_scored:,} {self.scored} images ({self.count / self.n_scored:.1%}) "
            f"{IN_COMMON[self.kind]} {len(self.fitted_rows):,} {self.fitted} {images}."
        )


def find_leaks(
    labels: NDArray[np.integer[Any]],
    splits: Sequence[str],
    *,
    sha256: Sequence[str],
    groups: Sequence[str] | None = None,
    pooled: NDArray[np.floating[Any]] | None = None,
    near_threshold: float = SAME_PICTURE_COSINE,
) -> list[Leak]:
    """Return what is on both sides of given splits, for each two of them and each kind; empty where nothing is.

    Parameters
    ----------
    labels : ndarray of shape (n_rows,), int
        −1 means unlabelled; such rows neither train nor score, so they leak nothing.
    splits : sequence of str
        Of each row; empty for none.
    sha256, groups : sequence of str
        Digest, and group (empty for none), of each row.
    pooled : ndarray of shape (n_rows, n_features), optional
        Averages of features (evaluate/neighbours.py); without them, near-duplicates are not sought.
    near_threshold : float
        Cosine from which on two images look nearly the same.

    Raises
    ------
    DataError
        If the columns are not of one length, or the threshold is not between 0 and 1.
    """
    labels = np.asarray(labels)
    check_lengths(len(labels), splits=splits, sha256=sha256, groups=groups, pooled=pooled)
    names = np.array(
        [split if label >= 0 else "" for split, label in zip(splits, labels.tolist(), strict=True)], object
    )
    rows = np.flatnonzero(names != "")
    ordered = sorted(set(names[rows].tolist()), key=lambda name: (*SPLITS, name).index(name))
    if len(ordered) < 2:
        return []
    units: dict[Kind, NDArray[np.intp]] = {"identical": coded(sha256)}
    if groups is not None:
        units["group"] = coded(group or None for group in groups)
    if pooled is not None:
        units["near"] = np.full(len(labels), -1, np.intp)
        units["near"][rows] = near_units(pooled[rows], cosine=near_threshold)
    found = (
        leak(kind, names, fitted, scored, own, units["identical"])
        for fitted, scored in combinations(ordered, 2)
        for kind, own in units.items()
    )
    return [one for one in found if one.count]


def leak(
    kind: Kind,
    names: NDArray[np.object_],
    fitted: str,
    scored: str,
    units: NDArray[np.intp],
    identical: NDArray[np.intp],
) -> Leak:
    """Return the rows of two splits that share a unit; of near ones, those that do not share their bytes as well."""
    sides = [np.flatnonzero((names == name) & (units >= 0)) for name in (fitted, scored)]
    if kind == "near":
        same = np.intersect1d(identical[sides[0]], identical[sides[1]])
        sides = [side[~np.isin(identical[side], same)] for side in sides]
    common = np.intersect1d(units[sides[0]], units[sides[1]])
    first, second = (side[np.isin(units[side], common)].astype(np.int64) for side in sides)
    return Leak(kind, fitted, scored, first, second, int((names == scored).sum()))
