"""Everything in a cache against the specification: all that is wrong, not only the first thing.

:func:`headstart.cache.store.open_cache` stops at the first fault of a structure and looks at a row when it is read. Here
every row of every dataset is read, and the reading goes on behind a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from headstart.cache.check import checked_column, checked_rows, expected_columns
from headstart.cache.findings import FILE, Finding, contradictions, readable_columns, row_findings
from headstart.cache.folder import shard_folder
from headstart.cache.format import FEATURES, POOLED
from headstart.cache.header import Header, read_header
from headstart.cache.opening import check_is_file
from headstart.cache.reading import H5PY_ERRORS, REMEDY, StoredRows, close_file, first_line
from headstart.cache.sandbox import open_hdf5
from headstart.cache.store import FeatureCache
from headstart.cache.verify_folder import findings_in_folder
from headstart.errors import CacheError


def verify_file(
    path: str | Path, *, start: Callable[[int], None] | None = None, advance: Callable[[int], None] | None = None
) -> Iterator[Finding]:
    """Yield everything that is wrong with a cache; nothing, where it is whole.

    Every structure and every row is read: checksums, digests of columns and rows, shapes, types, labels, finite values.
    Memory does not grow with the features.

    Parameters
    ----------
    path : str or Path
        The cache; it is not changed.
    start : callable, optional
        Is told the number of rows before they are read.
    advance : callable, optional
        Is told how many more rows have been read.

    Raises
    ------
    CacheError
        If there is no such file, it may not be read, it is no cache, or of another format version.
    """
    path = Path(path)
    folder = shard_folder(path)
    if folder:
        yield from findings_in_folder(folder, start or (lambda n: None), advance or (lambda n: None))
        return
    check_is_file(path)
    try:
        file = open_hdf5(path)
    except PermissionError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror}.") from error
    except H5PY_ERRORS as error:
        yield Finding(FILE, f"it cannot be opened: {first_line(error)}")
        return
    try:
        yield from findings_in(file, path, start or (lambda n: None), advance or (lambda n: None))
    finally:
        close_file(file)


def verify(cache: FeatureCache) -> None:
    """Read the whole file of an open cache once and compare it with the specification; stop at the first fault.

    Raises
    ------
    CacheError
        If anything is damaged; the message names it.
    """
    for finding in verify_file(cache.file):
        raise CacheError(f"{cache.path} is damaged: {finding} {REMEDY}")


def findings_in(
    file: Any, path: Path, start: Callable[[int], None], advance: Callable[[int], None]
) -> Iterator[Finding]:
    """Yield everything that is wrong with an open file."""
    try:
        header = read_header(file, path)
    except CacheError:
        raise
    except H5PY_ERRORS as error:
        yield Finding(FILE, f"its attributes cannot be read, and without them nothing else: {first_line(error)}")
        return
    found: list[Finding] = []
    datasets = readable_datasets(file, header, found)
    large = (FEATURES, POOLED)
    columns = readable_columns({name: rows for name, rows in datasets.items() if name not in large}, found)
    yield from found
    yield from contradictions(header, datasets, columns)
    start(header.n_images)
    yield from row_findings(datasets, columns, np.arange(header.n_images), advance)


def readable_datasets(file: Any, header: Header, found: list[Finding]) -> dict[str, StoredRows]:
    """Return the datasets whose structure is right, by name; what is wrong with the others goes to ``found``."""
    datasets: dict[str, StoredRows] = {}

    def look(name: str, check: Callable[[], Any]) -> None:
        try:
            datasets[name] = StoredRows(check())
        except H5PY_ERRORS as error:
            found.append(Finding(f"/{name}", first_line(error)))

    look(FEATURES, partial(checked_rows, file, FEATURES, header.recipe.storage, header.n_images, 4))
    look(POOLED, partial(checked_rows, file, POOLED, "float32", header.n_images, 2))
    n_pooled = datasets[POOLED].shape[1] if POOLED in datasets else None
    for name, column, n_rows in expected_columns(file, header.n_images, header.n_failures, n_pooled):
        look(name, partial(checked_column, file, name, column, n_rows))
    return datasets
