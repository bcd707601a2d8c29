"""Read features from a Parquet table: one row per image, every floating column a feature."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import DataError, HeadstartError
from headstart.exchange.export_features import COLUMNS, METADATA, import_pyarrow
from headstart.exchange.given_columns import GivenFeatures, shape_from
from headstart.exchange.untrusted_arrays import check_unique

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Values of X, or rows of a text, that are in memory at a time.
BLOCK_VALUES = 2**24


@contextmanager
def open_parquet(path: Path) -> Iterator[GivenFeatures]:
    """Yield what a Parquet table says; X is read when it is asked for, inside of the block.

    Raises
    ------
    DataError
        If it is no such table, or has columns of which it is not clear what they are.
    MissingExtraError
        If pyarrow is not installed.
    """
    pa, parquet = import_pyarrow()
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            yield given_of(pa, file, path)
    except HeadstartError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as a Parquet table: {str(error).splitlines()[0]}.") from error


def given_of(pa: Any, file: Any, path: Path) -> GivenFeatures:
    """Return what a table says."""
    schema = file.schema_arrow
    features = [column.name for column in schema if pa.types.is_floating(column.type) and column.name not in COLUMNS]
    others = sorted(set(schema.names) - set(features) - set(COLUMNS))
    if others or "path" not in schema.names or not features or len(set(schema.names)) < len(schema.names):
        raise DataError(
            f"{path} must have the column path, may have {', '.join(COLUMNS[1:])}, and has otherwise features, each name "
            f"once, float16, float32 or float64. Received besides features: {', '.join(others) or 'no path'}."
        )
    facts = json.loads((schema.metadata or {}).get(METADATA, b"{}"))
    paths: list[str] = []
    seen: set[str] = set()
    for part in column_blocks(file, "path"):
        check_unique(part, seen)
        paths += part
    labels = column(file, "label")
    return GivenFeatures(
        shape=(file.metadata.num_rows, len(features)),
        blocks=lambda: matrix_blocks(file, features),
        paths=paths,
        y=labels if labels is not None else numbers(file, "y"),
        class_names=[str(name) for name in facts.get("class_names", ())] or None,
        split=column(file, "split"),
        group=column(file, "group"),
        sha256=column(file, "sha256"),
        map_shape=shape_from(facts.get("map_shape", [])),
        recipe=json.dumps(facts["recipe"], sort_keys=True) if "recipe" in facts else "",
    )


def matrix_blocks(file: Any, features: list[str]) -> Iterator[NDArray[Any]]:
    """Yield X from the top; a value that is missing is NaN."""
    for batch in file.iter_batches(max(1, BLOCK_VALUES // len(features)), columns=features):
        by_name = [batch.column(name).to_numpy(zero_copy_only=False) for name in features]
        yield np.stack(by_name, axis=1)


def column_blocks(file: Any, name: str) -> Iterator[list[str]]:
    """Yield the texts of a column in blocks; null is the empty text."""
    for batch in file.iter_batches(BLOCK_VALUES, columns=[name]):
        values = batch.column(0).to_pylist()
        if not all(value is None or isinstance(value, str) for value in values):
            raise DataError(f"The column {name} must hold text.")
        yield [value or "" for value in values]


def column(file: Any, name: str) -> list[str] | None:
    """Return the texts of a column, None where there is none."""
    if name not in file.schema_arrow.names:
        return None
    return [value for block in column_blocks(file, name) for value in block]


def numbers(file: Any, name: str) -> list[int] | None:
    """Return the whole numbers of a column, −1 for null, or None where there is none."""
    if name not in file.schema_arrow.names:
        return None
    values = [value for batch in file.iter_batches(columns=[name]) for value in batch.column(0).to_pylist()]
    if not all(value is None or type(value) is int for value in values):
        raise DataError(f"The column {name} must hold whole numbers.")
    return [-1 if value is None else value for value in values]
