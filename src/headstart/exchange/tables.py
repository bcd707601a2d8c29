"""Tables with one row per image and one column per feature: Parquet and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.cache.publish import published_bytes
from headstart.errors import MissingExtraError
from headstart.exchange import FORMAT, FORMAT_VERSION
from headstart.texts import csv_cell, with_escapes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.exchange.contents import Contents

#: Columns before the features, in this order; names as in a manifest.
COLUMNS = ("path", "label", "y", "split", "group", "sha256")

#: Key of the table's metadata under which everything stands that belongs to no row.
METADATA = b"headstart"

#: Values of X in a row group: 64 MiB of float32.
GROUP_VALUES = 2**24


def write_csv(path: Path, contents: Contents, *, raw: bool = False) -> None:
    """Write UTF-8 with a header; each number in as few digits as give the same float32 again.

    Paths whose bytes are not UTF-8 are written as those bytes. Text that a spreadsheet would take for a formula begins
    with ``'``, unless ``raw``.

    Raises
    ------
    CacheError
        If the file cannot be written, or a row of the cache cannot be read.
    """
    with published_bytes(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*COLUMNS, *contents.feature_names])
        for columns, block in described_blocks(contents):
            described = zip(*([csv_cell(cell, raw=raw) for cell in columns[name]] for name in COLUMNS), strict=True)
            writer.writerows([*row, *map(str, values)] for row, values in zip(described, block, strict=True))
        text.flush()
        text.detach()


def write_parquet(path: Path, contents: Contents) -> None:
    r"""Write a Parquet table, compressed by snappy, which every reader has; empty texts are nulls.

    Parquet holds UTF-8 only: a byte of a path that is not UTF-8 becomes ``\xff``.

    Raises
    ------
    MissingExtraError
        If pyarrow is not installed.
    CacheError
        If the file cannot be written, or a row of the cache cannot be read.
    """
    pa, parquet = import_pyarrow()
    fields = [(name, pa.int32() if name == "y" else pa.string()) for name in COLUMNS]
    fields += [(name, pa.float32()) for name in contents.feature_names]
    schema = pa.schema(fields, metadata={METADATA: json.dumps(table_facts(contents))})
    options = {
        "compression": "snappy",
        "use_dictionary": list(COLUMNS),  # no two features are alike, and there may be thousands of columns of them
        "write_statistics": list(COLUMNS),
        "write_page_checksum": True,
    }
    with published_bytes(path) as file, parquet.ParquetWriter(file, schema, **options) as writer:
        for columns, matrix in groups(contents):
            texts = [columns[name] if name == "y" else list(map(valid, columns[name])) for name in COLUMNS]
            arrays = [pa.array(values, field[1]) for values, field in zip(texts, fields, strict=False)]
            arrays += [pa.array(column) for column in matrix]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def groups(contents: Contents) -> Iterator[tuple[dict[str, list[Any]], NDArray[np.float32]]]:
    """Yield about 64 MiB of X at a time, transposed: shape (n_features, n_rows); and what describes the rows."""
    n_rows = max(1, GROUP_VALUES // len(contents.feature_names))
    waiting: list[NDArray[np.float32]] = []
    described: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    left = contents.n_samples
    for columns, block in described_blocks(contents):
        waiting.append(block)
        for name, values in columns.items():
            described[name] += values
        left -= len(block)
        if sum(map(len, waiting)) >= n_rows or not left:
            yield described, np.concatenate([one.T for one in waiting], axis=1)
            waiting, described = [], {name: [] for name in COLUMNS}


def table_facts(contents: Contents) -> dict[str, Any]:
    """Return what belongs to no row, as plain JSON types."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "recipe": json.loads(contents.recipe),
        "class_names": list(contents.class_names),
        "features": list(contents.features),
        "map_shape": list(contents.map_shape),
    }


def described_blocks(contents: Contents) -> Iterator[tuple[dict[str, list[Any]], NDArray[np.float32]]]:
    """Yield blocks of X, each with the columns that describe its rows."""
    texts, start = {name: iter(values()) for name, values in contents.texts.items()}, 0
    for block in contents.blocks():
        columns: dict[str, list[Any]] = {name: list(islice(values, len(block))) for name, values in texts.items()}
        columns["y"] = contents.y[start : start + len(block)].tolist()
        start += len(block)
        yield columns, block


def valid(text: str) -> str | None:
    """Return text that is UTF-8, and None for none."""
    return with_escapes(text) if text else None


def import_pyarrow() -> tuple[Any, Any]:
    """Return pyarrow and its Parquet module.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError(
            'Parquet needs pyarrow, which is not installed: pip install "headstart[parquet]"'
        ) from error
    return pa, parquet
