"""Check a cache against its specification and report all problems."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.columns import HexColumn, read_column, row_digest
from headstart.cache.format import (
    CLASS_NAMES,
    FEATURES,
    POOLED,
    POOLED_COLUMN_LAYER,
    ROWS,
    SHARDS_FORMAT,
    Header,
    read_header,
    read_integer_attribute,
)
from headstart.cache.other_hdf5 import check_is_file
from headstart.cache.reader import FeatureCache
from headstart.cache.safe_reads import (
    H5PY_ERRORS,
    REMEDY,
    StoredRows,
    check_labels,
    checked_columns,
    checked_datasets,
    checked_numbers,
    close_file,
    first_line,
    manifest_columns,
    read_rows,
)
from headstart.cache.sandbox import open_hdf5
from headstart.cache.shards import MANIFEST, Manifest, OpenShards, ShardedRows, ShardFolder, read_manifest, shard_folder
from headstart.errors import CacheError
from headstart.texts import TextColumn

Datasets = Mapping[str, StoredRows | ShardedRows]

#: Features in memory at once; a batch has at least one row.
BATCH_BYTES = 16 * 2**20

#: ``Finding.place`` of the file as a whole.
FILE = "file"


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem."""

    place: str  # ``file``, or the dataset, e.g. ``/rows/path``.
    what: str  # description, a clause
    row: int | None = None  # row number, if it concerns one row
    image: str = ""  # path of the row, if known
    expected: str = ""  # values, if two were compared
    received: str = ""

    def __str__(self) -> str:
        where = self.place if self.row is None else f"{self.place}, row {self.row}"
        values = f" Expected: {self.expected}. Received: {self.received}." if self.expected else ""
        return f"{where}{f' ({self.image})' if self.image else ''}: {self.what}.{values}"


def readable_columns(datasets: Mapping[str, StoredRows], found: list[Finding]) -> dict[str, Any]:
    """Return the columns that match their digest; append problems of the others to ``found``."""
    columns: dict[str, Any] = {}
    for name, dataset in datasets.items():
        try:
            columns[name] = read_column(dataset)
        except H5PY_ERRORS as error:
            found.append(Finding(f"/{name}", f"{first_line(error)}{_unreadable_rows(dataset)}"))
    return columns


def _unreadable_rows(dataset: StoredRows) -> str:
    """Return a clause on the rows in unreadable chunks of a column; empty if there are none."""
    bad = []
    for start in range(0, len(dataset), dataset.chunk_rows):
        end = min(start + dataset.chunk_rows, len(dataset))
        try:
            read_rows(dataset, np.arange(start, end))
        except H5PY_ERRORS:
            bad.append(f"{start:,} to {end - 1:,}")
    return f"; the rows {', '.join(bad)} cannot be read" if bad else ""


def contradictions(header: Header, datasets: Datasets, columns: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield inconsistencies between readable parts."""
    names, label, paths = (columns.get(name) for name in (CLASS_NAMES, f"{ROWS}/label", f"{ROWS}/path"))
    if names is not None:
        try:
            check_labels(np.empty(0, np.int32), tuple(names))
        except ValueError as error:
            yield Finding(f"/{CLASS_NAMES}", str(error))
        outside = np.flatnonzero((label < -1) | (label >= len(names))) if label is not None else np.empty(0, np.int64)
        for row in outside.tolist():
            expected, received = f"-1 to {len(names) - 1}", str(columns[f"{ROWS}/label"][row])
            yield Finding(f"/{ROWS}/label", "there is no such class", row, _image_of(columns, row), expected, received)
    for name in (f"{ROWS}/weight", f"{ROWS}/target"):
        try:
            checked_numbers(name, columns.get(name))
        except ValueError as error:
            yield Finding(f"/{name}", str(error))
    for row, path in enumerate(paths or ()):
        if not path:
            yield Finding(f"/{ROWS}/path", "the path is empty", row)
    layers = columns.get(POOLED_COLUMN_LAYER)
    if POOLED in datasets and datasets[POOLED].shape[1] and layers is not None:
        yield from _layer_findings(header, list(layers))


def _layer_findings(header: Header, layers: list[str]) -> Iterator[Finding]:
    place = f"/{POOLED_COLUMN_LAYER}"
    expected = iter(header.recipe.pooled_layers)
    wanted = next(expected, "none")
    for number, received in enumerate(layers):
        if received != wanted and (number == 0 or next(expected, None) != received):
            yield Finding(place, f"column {number} is of another layer", None, "", wanted, received)
            return
        wanted = received
    missing = list(expected)
    if missing:
        yield Finding(place, f"it has no column of {', '.join(missing)}")


def _row_findings(
    datasets: Datasets, columns: Mapping[str, Any], wanted: NDArray[np.int64], advance: Callable[[int], None]
) -> Iterator[Finding]:
    """Yield rows that cannot be read, are not finite, or do not match their digest."""
    present = {name: datasets[name] for name in (FEATURES, POOLED) if name in datasets}
    row_bytes = sum(dataset.chunk_bytes for dataset in present.values())
    step = max(1, min(256, BATCH_BYTES // max(1, row_bytes)))
    digests: HexColumn | None = None
    if len(present) == 2 and (array := columns.get(f"{ROWS}/features_sha256")) is not None:
        digests = HexColumn(array)
    for start in range(0, len(wanted), step):
        rows = wanted[start : start + step]
        parts: dict[str, NDArray[Any]] = {}
        for name, dataset in present.items():
            with suppress(*H5PY_ERRORS):  # then row by row
                parts[name] = read_rows(dataset, rows)
        for position, row in enumerate(rows.tolist()):
            values: dict[str, NDArray[Any]] = {}
            image = _image_of(columns, row)
            for name, dataset in present.items():
                try:
                    value = parts[name][position] if name in parts else read_rows(dataset, rows[[position]])[0]
                except H5PY_ERRORS as error:
                    yield Finding(f"/{name}", f"it cannot be read: {first_line(error)}", row, image)
                    continue
                values[name] = value
                if n_bad := int(np.count_nonzero(~np.isfinite(value))):
                    yield Finding(f"/{name}", f"{n_bad:,} values are not finite", row, image)
            if digests is None or len(values) < 2:
                continue
            received = row_digest(values[FEATURES], values[POOLED]).hex()
            if received != digests[row]:
                what = "features and averages are not those that were written (SHA-256)"
                yield Finding(f"/{FEATURES}", what, row, image, digests[row], received)
        advance(len(rows))


def _image_of(columns: Mapping[str, Any], row: int) -> str:
    paths: TextColumn | None = columns.get(f"{ROWS}/path")
    return paths[row] if paths is not None else ""


def _findings_in_folder(
    file: Any, folder: ShardFolder, start: Callable[[int], None], advance: Callable[[int], None]
) -> Iterator[Finding]:
    columns, found = columns_of(file, folder)
    yield from found
    try:
        manifest = read_manifest(file, folder.path / MANIFEST)
    except H5PY_ERRORS as error:
        if not any(finding.what.startswith(first_line(error)) for finding in found):
            yield Finding(FILE, first_line(error))
        return
    yield from _findings_by(folder, manifest, columns, start, advance)


def columns_of(file: Any, folder: ShardFolder) -> tuple[dict[str, Any], list[Finding]]:
    """Return the readable columns of a manifest, and problems of the others; raise CacheError if it is no manifest."""
    found: list[Finding] = []
    try:
        header = read_header(file, folder.path / MANIFEST, SHARDS_FORMAT)
        n_shards = read_integer_attribute(file, "n_shards")
    except CacheError:
        raise
    except H5PY_ERRORS as error:
        what = f"the attributes of its manifest cannot be read, and without them nothing else: {first_line(error)}"
        return {}, [Finding(FILE, what)]
    expected = manifest_columns(file, header.n_images, header.n_failures, n_shards)
    return readable_columns(checked_columns(file, expected, _adder(found)), found), found


def _adder(found: list[Finding]) -> Callable[[str, Exception], None]:
    """Return what adds a finding on a dataset of wrong structure."""
    return lambda name, error: found.append(Finding(f"/{name}", first_line(error)))


def _findings_by(
    folder: ShardFolder,
    manifest: Manifest,
    columns: dict[str, Any],
    start: Callable[[int], None],
    advance: Callable[[int], None],
) -> Iterator[Finding]:
    """Yield problems of the rows and shards of a readable manifest."""
    shards, rows = manifest.opened(folder)
    try:
        yield from contradictions(manifest.header, rows, columns)
        start(manifest.header.n_images)
        closed = np.zeros(len(manifest.places.table), np.bool_)
        for number in range(len(closed)):
            finding, closed[number] = _shard_finding(folder, shards, number)
            if finding is not None:
                yield finding
        unreadable = closed[manifest.places.shard]
        advance(int(unreadable.sum()))
        yield from _row_findings(rows, columns, np.flatnonzero(~unreadable), advance)
    finally:
        shards.close()


def _shard_finding(folder: ShardFolder, shards: OpenShards, number: int) -> tuple[Finding | None, bool]:
    """Return the problem of a shard file, if any, and whether it makes all of its rows unreadable."""
    name = shards.table.names[number]
    try:
        with shards.at(number, FEATURES):
            pass
    except H5PY_ERRORS as error:
        return Finding(name, f"{first_line(error).removeprefix(f'shard {name}: ')}; none of its rows can be read"), True
    try:
        expected, received = shards.table.sha256[number].tobytes(), folder.digest(name)
    except OSError as error:
        return Finding(name, f"it cannot be read: {error.strerror}"), False
    if expected == received:
        return None, False
    what = "it is not the file that the manifest names (SHA-256)"
    return Finding(name, what, None, "", expected.hex(), received.hex()), False


def verify_file(
    path: str | Path, *, start: Callable[[int], None] = lambda _: None, advance: Callable[[int], None] = lambda _: None
) -> Iterator[Finding]:
    """Yield all problems of a cache.

    Every structure and every row is read and checked: checksums, digests, shapes, types, labels, finite values. Memory
    does not grow with the features. ``start`` is called with the number of rows before they are read, ``advance`` with
    the number of rows read since the last call. Raises CacheError if there is no such file, no permission to read it, or it
    is no cache or of another format version.
    """
    path = Path(path)
    folder = shard_folder(path)
    if folder is None:
        check_is_file(path)
    try:
        file = folder.open(MANIFEST) if folder else open_hdf5(path)
    except PermissionError as error:
        raise CacheError(f"{folder.path if folder else path} cannot be read: {error.strerror}.") from error
    except H5PY_ERRORS as error:
        yield Finding(FILE, f"{'its manifest' if folder else 'it'} cannot be opened: {first_line(error)}")
        return
    try:
        if folder:
            yield from _findings_in_folder(file, folder, start, advance)
        else:
            yield from _findings_in(file, path, start, advance)
    finally:
        close_file(file)


def verify(cache: FeatureCache) -> None:
    """Check the whole file of an open cache; raise CacheError at the first problem."""
    for finding in verify_file(cache.file):
        raise CacheError(f"{cache.path} is damaged: {finding} {REMEDY}")


def _findings_in(
    file: Any, path: Path, start: Callable[[int], None], advance: Callable[[int], None]
) -> Iterator[Finding]:
    try:
        header = read_header(file, path)
    except CacheError:
        raise
    except H5PY_ERRORS as error:
        yield Finding(FILE, f"its attributes cannot be read, and without them nothing else: {first_line(error)}")
        return
    datasets, columns, found = read_described(file, header)
    yield from found
    start(header.n_images)
    yield from _row_findings(datasets, columns, np.arange(header.n_images), advance)


def read_described(file: Any, header: Header) -> tuple[dict[str, StoredRows], dict[str, Any], list[Finding]]:
    """Return the datasets of correct structure and the columns that match their digest, by name, and all other problems."""
    found: list[Finding] = []
    datasets = checked_datasets(file, header, _adder(found))
    described = {name: rows for name, rows in datasets.items() if name not in (FEATURES, POOLED)}
    columns = readable_columns(described, found)
    return datasets, columns, [*found, *contradictions(header, datasets, columns)]
