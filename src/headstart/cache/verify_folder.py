"""Everything in a folder of shards against the specification and its manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from headstart.cache.check import checked_column
from headstart.cache.findings import FILE, Finding, contradictions, readable_columns, row_findings
from headstart.cache.folder import MANIFEST, ShardFolder
from headstart.cache.format import FEATURES, SHARDS_FORMAT
from headstart.cache.header import read_header, read_integer_attribute
from headstart.cache.manifest import Manifest, manifest_columns, read_manifest, sharded_rows
from headstart.cache.reading import H5PY_ERRORS, StoredRows, close_file, first_line
from headstart.cache.sharded import OpenShards
from headstart.errors import CacheError


def findings_in_folder(
    folder: ShardFolder, start: Callable[[int], None], advance: Callable[[int], None]
) -> Iterator[Finding]:
    """Yield everything that is wrong with a folder of shards; arguments as of ``verify_file``."""
    try:
        file = folder.open(MANIFEST)
    except PermissionError as error:
        raise CacheError(f"{folder.path} cannot be read: {error.strerror}.") from error
    except H5PY_ERRORS as error:
        yield Finding(FILE, f"its manifest cannot be opened: {first_line(error)}")
        return
    try:
        columns, found = columns_of(file, folder)
        yield from found
        try:
            manifest = read_manifest(file, folder.path / MANIFEST)
        except H5PY_ERRORS as error:
            if not any(finding.what.startswith(first_line(error)) for finding in found):
                yield Finding(FILE, first_line(error))
            return
        yield from findings_by(folder, manifest, columns, start, advance)
    finally:
        close_file(file)


def columns_of(file: Any, folder: ShardFolder) -> tuple[dict[str, Any], list[Finding]]:
    """Return the readable columns of a manifest, and what is wrong with the others.

    Raises
    ------
    CacheError
        If it is no manifest, or of another version.
    """
    found: list[Finding] = []
    datasets: dict[str, StoredRows] = {}
    try:
        header = read_header(file, folder.path / MANIFEST, SHARDS_FORMAT)
        expected = list(
            manifest_columns(file, header.n_images, header.n_failures, read_integer_attribute(file, "n_shards"))
        )
    except CacheError:
        raise
    except H5PY_ERRORS as error:
        what = f"the attributes of its manifest cannot be read, and without them nothing else: {first_line(error)}"
        return {}, [Finding(FILE, what)]
    for name, column, n_rows in expected:
        try:
            datasets[name] = StoredRows(checked_column(file, name, column, n_rows))
        except H5PY_ERRORS as error:
            found.append(Finding(f"/{name}", first_line(error)))
    return readable_columns(datasets, found), found


def findings_by(
    folder: ShardFolder,
    manifest: Manifest,
    columns: dict[str, Any],
    start: Callable[[int], None],
    advance: Callable[[int], None],
) -> Iterator[Finding]:
    """Yield what is wrong with the rows and the shards of a manifest that says where they are."""
    shards, rows = sharded_rows(folder, manifest)
    try:
        yield from contradictions(manifest.header, rows, columns)
        start(manifest.header.n_images)
        closed = np.zeros(len(manifest.places.table), np.bool_)
        for number in range(len(closed)):
            finding, closed[number] = shard_finding(folder, shards, number)
            if finding is not None:
                yield finding
        unreadable = closed[manifest.places.shard]
        advance(int(unreadable.sum()))
        yield from row_findings(rows, columns, np.flatnonzero(~unreadable), advance)
    finally:
        shards.close()


def shard_finding(folder: ShardFolder, shards: OpenShards, number: int) -> tuple[Finding | None, bool]:
    """Return what is wrong with a shard as a file, and whether none of its rows can be read for that."""
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
