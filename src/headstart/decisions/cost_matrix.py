"""The costs of every mistake, and the decisions with the lowest expected cost."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.decisions.cutoffs import number
from headstart.errors import DataError
from headstart.scores import Z_95, Estimate
from headstart.texts import class_name, listed, reason_of

Floats = NDArray[np.floating[Any]]

#: A thousand classes with numbers of fifteen digits.
MAX_BYTES = 16 * 1024**2

#: Largest cost: sums of these times probabilities stay finite.
MAX_COST = 1e300

#: Classes named in a message.
MAX_LISTED = 10


@dataclass(frozen=True, slots=True)
class CostMatrix:
    """What each decision costs for an image of each class.

    Attributes
    ----------
    costs : tuple of tuples of float
        A row for each true class, and in it a column for each decision, both in the order of the head's class names; finite
        and 0 or more.
    """

    costs: tuple[tuple[float, ...], ...]

    def decide(self, probabilities: Floats) -> NDArray[np.intp]:
        """Return the class with the lowest expected cost of each image, the first of equal ones."""
        expected = probabilities @ np.array(self.costs)
        best: NDArray[np.intp] = expected.argmin(axis=1)
        return best

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"costs": [list(row) for row in self.costs]}


def read_cost_matrix(path: str | Path, class_names: Sequence[str]) -> CostMatrix:
    """Return the costs in a CSV file: a row for each true class, a column for each decision, with their names.

    The first row holds the names of the decisions, the first column those of the true classes; rows and columns may be in
    any order. Raises DataError if the file cannot be read, a class is missing, unknown or named twice, or a cost is not a
    number from 0.
    """
    header, *rows = read_rows(Path(path))
    columns = order_of(header[1:], class_names, f"{path}: the first row")
    order = order_of([row[0] for row in rows], class_names, f"{path}: the first column")
    table = []
    for row in order:
        name, *cells = rows[row]
        if len(cells) != len(class_names):
            raise DataError(f"{path}: the row {name!r} has {len(cells)} costs. Expected: {len(class_names)}.")
        costs = [number(cells[column]) for column in columns]
        if not all(0 <= cost <= MAX_COST for cost in costs):
            raise DataError(
                f"{path}: a cost in the row {name!r} is no number from 0 to {MAX_COST:g}. Received: {', '.join(cells)}."
            )
        table.append(tuple(costs))
    return CostMatrix(tuple(table))


def read_rows(path: Path) -> list[list[str]]:
    """Return the rows of a CSV file that hold something; raise DataError if it cannot be read, or is empty."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than the {MAX_BYTES:,} bytes allowed for a cost matrix.")
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"The cost matrix {path} cannot be read: {reason_of(error)}.") from error
    if not rows:
        raise DataError(f"The cost matrix {path} is empty. Expected: a row and a column for each class.")
    return rows


def order_of(found: Sequence[str], class_names: Sequence[str], where: str) -> list[int]:
    """Return the place in ``found`` of each class; raise DataError unless every class is there once, and nothing else."""
    names = [class_name(name) for name in found]
    wanted = [class_name(name) for name in class_names]
    missing, unknown = set(wanted) - set(names), set(names) - set(wanted)
    if missing or unknown or len(names) != len(wanted):
        parts = [
            f"missing: {listed(sorted(missing), MAX_LISTED)}" if missing else "",
            f"unknown: {listed(sorted(unknown), MAX_LISTED)}" if unknown else "",
            "" if missing or unknown else "one is there twice",
        ]
        raise DataError(
            f"{where} of a cost matrix names each class of the head once. {'; '.join(filter(None, parts)).capitalize()}. "
            f"Expected: {listed(class_names, MAX_LISTED)}."
        )
    return [names.index(name) for name in wanted]


@dataclass(frozen=True, slots=True)
class CostScore:
    """Mean costs of the decisions on images that the head was not fitted on."""

    mean_cost: Estimate  # with the 95 % interval of a mean (normal)
    mean_cost_of_most_probable: float  # where the most probable class is decided for


def score_costs(matrix: CostMatrix, y: NDArray[np.int64], probabilities: Floats) -> CostScore:
    """Return the mean costs on some images."""
    table = np.array(matrix.costs)
    costs = table[y, matrix.decide(probabilities)]
    mean, half = float(costs.mean()), 0.0
    half = Z_95 * float(costs.std(ddof=1)) / math.sqrt(len(costs)) if len(costs) > 1 else math.nan
    most_probable = float(table[y, probabilities.argmax(axis=1)].mean())
    return CostScore(Estimate(mean, max(0.0, mean - half), mean + half), most_probable)
