"""One row per scored image: what it is, and what a head takes it for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Name of the split where the images were drawn, and belong to none.
HELD_OUT = "held-out"


@dataclass(frozen=True, slots=True)
class ScoredImages:
    """Images that a head was scored on.

    Attributes
    ----------
    paths : sequence of str
        Of the images, relative to their folder.
    y_true : ndarray of shape (n_images,), int64
        Index of the true class.
    probabilities : ndarray of shape (n_images, n_classes), float
        Of each class; the prediction is the largest, the first of equal ones.
    class_names : tuple of str
        Names of the classes.
    splits : sequence of str
        Split or fold of each image; empty for none.
    head : str
        Name of the head, where there are several.
    """

    paths: Sequence[str]
    y_true: NDArray[np.int64]
    probabilities: NDArray[np.floating[Any]]
    class_names: tuple[str, ...]
    splits: Sequence[str]
    head: str = ""

    def __len__(self) -> int:
        return len(self.y_true)

    def columns(self) -> dict[str, Sequence[str]]:
        """Return the columns of text by their names; with ``head`` in front where there are several heads."""
        texts: dict[str, Sequence[str]] = {
            "path": self.paths,
            "truth": [self.class_names[label] for label in self.y_true.tolist()],
            "prediction": [self.class_names[label] for label in self.probabilities.argmax(axis=1).tolist()],
            "split": self.splits,
        }
        return {"head": [self.head] * len(self), **texts} if self.head else texts


def split_names(splits: Sequence[str], rows: NDArray[np.int64]) -> list[str]:
    """Return the split of each held-out row: the one that all of them are of, or ``held-out`` where they were drawn."""
    names = {splits[row] for row in rows.tolist()}
    name = names.pop() if len(names) == 1 else ""
    return [HELD_OUT if name in ("", "train") else name] * len(rows)


def fold_names(tests: Sequence[NDArray[np.int64]], n_splits: int, n_samples: int) -> list[str]:
    """Return the folds that each row is scored in, counted from 1 in each repeat, repeats separated by spaces.

    Parameters
    ----------
    tests : sequence of ndarray of int64
        Rows that each fold scores, those of the first repeat first.
    n_splits : int
        Folds of a repeat.
    n_samples : int
        Rows there are.

    Examples
    --------
    >>> fold_names([np.array([0]), np.array([1]), np.array([0, 1]), np.array([], int)], 2, 2)
    ['1 1', '2 1']
    """
    names: list[list[str]] = [[] for _ in range(n_samples)]
    for number, rows in enumerate(tests):
        for row in rows.tolist():
            names[row].append(str(number % n_splits + 1))
    return [" ".join(folds) for folds in names]
