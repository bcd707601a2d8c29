"""What can be wrong with the parts of a cache, found without stopping at the first fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.check import check_labels
from headstart.cache.columns import HexColumn, read_column
from headstart.cache.features import row_digest
from headstart.cache.format import CLASS_NAMES, DIGEST, FEATURES, POOLED, POOLED_COLUMN_LAYER, ROWS, column_layers
from headstart.cache.header import Header, read_text_attribute
from headstart.cache.reading import H5PY_ERRORS, StoredRows, first_line
from headstart.cache.sharded import ShardedRows
from headstart.errors import CacheError
from headstart.texts import TextColumn

Datasets = Mapping[str, StoredRows | ShardedRows]

#: Bytes of features that are in memory at once; a batch has one row at least.
BATCH_BYTES = 16 * 2**20

#: Place of a finding that concerns the file as a whole.
FILE = "file"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be.

    Attributes
    ----------
    place : str
        ``file``, or the dataset, as ``/rows/path``.
    what : str
        What is wrong, half a sentence.
    row : int or None
        Number of the row, where it concerns one.
    image : str
        Its path, where that is known.
    expected, received : str
        Values, where there are two to compare.
    """

    place: str
    what: str
    row: int | None = None
    image: str = ""
    expected: str = ""
    received: str = ""

    def __str__(self) -> str:
        where = self.place if self.row is None else f"{self.place}, row {self.row}"
        values = f" Expected: {self.expected}. Received: {self.received}." if self.expected else ""
        return f"{where}{f' ({self.image})' if self.image else ''}: {self.what}.{values}"


def readable_columns(datasets: Mapping[str, StoredRows], found: list[Finding]) -> dict[str, Any]:
    """Return the columns whose values are those that were written; what is wrong with the others goes to ``found``."""
    columns: dict[str, Any] = {}
    for name, dataset in datasets.items():
        try:
            columns[name] = read_column(dataset, read_text_attribute(dataset, DIGEST))
        except H5PY_ERRORS as error:
            found.append(Finding(f"/{name}", f"{first_line(error)}{unreadable_rows(dataset)}"))
    return columns


def unreadable_rows(dataset: StoredRows) -> str:
    """Return which rows of a column lie in chunks that cannot be read, in words; empty where all can."""
    bad = []
    for start in range(0, len(dataset), dataset.chunk_rows):
        end = min(start + dataset.chunk_rows, len(dataset))
        try:
            dataset.read(np.arange(start, end), np.empty((end - start, *dataset.shape[1:]), dataset.dtype))
        except H5PY_ERRORS:
            bad.append(f"{start:,} to {end - 1:,}")
    return f"; the rows {', '.join(bad)} cannot be read" if bad else ""


def contradictions(header: Header, datasets: Datasets, columns: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield where readable parts do not fit each other."""
    names, label, paths = (columns.get(name) for name in (CLASS_NAMES, f"{ROWS}/label", f"{ROWS}/path"))
    if names is not None:
        try:
            check_labels(np.empty(0, np.int32), tuple(names))
        except ValueError as error:
            yield Finding(f"/{CLASS_NAMES}", str(error))
        outside = np.flatnonzero((label < -1) | (label >= len(names))) if label is not None else np.empty(0, np.int64)
        for row in outside.tolist():
            expected, received = f"-1 to {len(names) - 1}", str(columns[f"{ROWS}/label"][row])
            yield Finding(f"/{ROWS}/label", "there is no such class", row, image_of(columns, row), expected, received)
    for row, path in enumerate(paths or ()):
        if not path:
            yield Finding(f"/{ROWS}/path", "the path is empty", row)
    layers = columns.get(POOLED_COLUMN_LAYER)
    if POOLED in datasets and datasets[POOLED].shape[1] and layers is not None:
        yield from layer_findings(header, list(layers))


def layer_findings(header: Header, layers: list[str]) -> Iterator[Finding]:
    """Yield where the columns of ``/pooled`` are not those of the recipe."""
    place = f"/{POOLED_COLUMN_LAYER}"
    try:
        expected = column_layers(header.recipe.pooled_layers, len(layers))
    except CacheError as error:
        yield Finding(place, f"it does not fit the recipe: {str(error).rstrip('.')}")
        return
    for number, (wanted, received) in enumerate(zip(expected, layers, strict=True)):
        if wanted != received:
            yield Finding(place, f"column {number} is of another layer", None, "", wanted, received)
            return


def row_findings(
    datasets: Datasets, columns: Mapping[str, Any], wanted: NDArray[np.int64], advance: Callable[[int], None]
) -> Iterator[Finding]:
    """Yield which of some rows of ``/features`` and ``/pooled`` cannot be read, are not finite, or not their digest's."""
    present = {name: datasets[name] for name in (FEATURES, POOLED) if name in datasets}
    row_bytes = sum(dataset.chunk_bytes for dataset in present.values())
    step = max(1, min(256, BATCH_BYTES // max(1, row_bytes)))
    digests: HexColumn | None = None
    if len(present) == 2 and (array := columns.get(f"{ROWS}/features_sha256")) is not None:
        digests = HexColumn(array)
    for start in range(0, len(wanted), step):
        rows = wanted[start : start + step]
        parts = {name: rows_or_none(dataset, rows) for name, dataset in present.items()}
        for position, row in enumerate(rows.tolist()):
            values: dict[str, NDArray[Any]] = {}
            for finding in one_row(row, position, present, parts, values):
                yield with_image(finding, columns)
            if digests is not None and len(values) == 2:
                received = row_digest(values[FEATURES], values[POOLED]).hex()
                if received != digests[row]:
                    what = "features and averages are not those that were written (SHA-256)"
                    finding = Finding(f"/{FEATURES}", what, row, "", digests[row], received)
                    yield with_image(finding, columns)
        advance(len(rows))


def one_row(
    row: int,
    position: int,
    present: Datasets,
    parts: Mapping[str, NDArray[Any] | None],
    values: dict[str, NDArray[Any]],
) -> Iterator[Finding]:
    """Yield what is wrong with one row; put what could be read of it into ``values``."""
    for name, dataset in present.items():
        batch = parts[name]
        try:
            value = read_one(dataset, row) if batch is None else batch[position]
        except H5PY_ERRORS as error:
            yield Finding(f"/{name}", f"it cannot be read: {first_line(error)}", row)
            continue
        values[name] = value
        n_bad = int(np.count_nonzero(~np.isfinite(value)))
        if n_bad:
            yield Finding(f"/{name}", f"{n_bad:,} values are not finite", row)


def rows_or_none(dataset: StoredRows | ShardedRows, rows: NDArray[np.int64]) -> NDArray[Any] | None:
    """Return consecutive rows; None where one of them cannot be read."""
    values = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    with suppress(*H5PY_ERRORS):
        if values.size:
            dataset.read(rows, values)
        return values
    return None


def read_one(dataset: StoredRows | ShardedRows, row: int) -> NDArray[Any]:
    """Return one row."""
    value = np.empty((1, *dataset.shape[1:]), dataset.dtype)
    dataset.read(np.array([row]), value)
    one: NDArray[Any] = value[0]
    return one


def with_image(finding: Finding, columns: Mapping[str, Any]) -> Finding:
    """Return the finding with the path of its row."""
    return finding if finding.row is None else replace(finding, image=image_of(columns, finding.row))


def image_of(columns: Mapping[str, Any], row: int) -> str:
    """Return the path of a row; empty where the paths cannot be read."""
    paths: TextColumn | None = columns.get(f"{ROWS}/path")
    return paths[row] if paths is not None else ""
