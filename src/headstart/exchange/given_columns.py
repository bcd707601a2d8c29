"""Read the columns of a file to be imported, before they are checked against each other; X is read on demand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from headstart.cache.format import FORMAT as CACHE_FORMAT
from headstart.cache.format import SHARDS_FORMAT
from headstart.cache.other_hdf5 import OtherFile, PortableFile, open_other, open_portable
from headstart.errors import DataError, HeadstartError
from headstart.exchange import FORMAT, FORMAT_VERSION
from headstart.exchange.export_features import COLUMNS, METADATA, TARGET, WEIGHT, import_pyarrow
from headstart.exchange.untrusted_arrays import (
    Archive,
    Array,
    check_unique,
    digests,
    integers,
    labels,
    open_archive,
    optional_numbers,
    optional_texts,
    texts,
)

Number = TypeVar("Number", int, float)

#: Values of ``format`` in caches.
CACHE_FORMS = (CACHE_FORMAT, SHARDS_FORMAT)

#: Values of X, or rows of a text column, of a Parquet table in memory at a time.
BLOCK_VALUES = 2**24

#: Array → accepted names, in order of preference.
ARRAY_NAMES = {
    "X": ("X", "features", "embeddings", "feats", "feature", "embedding", "vectors", "x"),
    "y": ("y", "labels", "label", "targets", "target", "Y"),
    "paths": ("paths", "path", "filenames", "file_names", "files", "filepaths", "image_paths"),
    "class_names": ("class_names", "label_names", "target_names", "classes"),
    "split": ("split", "splits"),
    "group": ("group", "groups"),
    "weight": ("weight", "sample_weight"),
    "target": ("target",),
    "sha256": ("sha256",),
    "map_shape": ("map_shape",),
    "recipe": ("recipe",),
}

#: Redundant arrays of ``headstart convert``.
REPEATED = {"labels", "format", "features", "feature_names"}


@dataclass(frozen=True, slots=True)
class GivenFeatures:
    """Features and their description as read from a file; None for missing columns."""

    shape: tuple[int, ...]  # shape of X: (n, n_features) or (n, height, width, channels)
    #: Each call yields blocks of consecutive rows of X, of any floating type
    blocks: Callable[[], Iterator[NDArray[Any]]]
    paths: Sequence[str]  # one per row
    #: Labels: numbers from 0, −1 if unlabelled; or names, empty if unlabelled
    y: Sequence[int] | Sequence[str] | None = None
    class_names: Sequence[str] | None = None  # names indexed by numbers; the others one per row
    split: Sequence[str] | None = None
    group: Sequence[str] | None = None
    weight: Sequence[float] | None = None  # of the images in a fit
    target: Sequence[float] | None = None  # numbers to predict, NaN for none
    sha256: Sequence[str] | None = None
    map_shape: tuple[int, ...] = ()  # height, width and channels if X holds flattened maps; otherwise empty
    recipe: str = ""  # JSON, if the file was written by ``headstart convert``; otherwise empty
    notices: tuple[str, ...] = ()  # sentences on how the file was read


def _given_of(arrays: Archive | OtherFile, path: Path) -> GivenFeatures:
    """Return the content of a file of arrays."""
    found = {name: arrays.array(*names) for name, names in ARRAY_NAMES.items()}
    if found["y"] is not None and found["y"].name == "target":
        found["target"] = None  # labels, as it always was
    X, paths, map_shape, recipe = (found[name] for name in ("X", "paths", "map_shape", "recipe"))
    if X is None:
        raise DataError(_without_features(path, arrays.names()))
    if X.dtype.kind != "f" or X.dtype.itemsize > 8 or len(X.shape) not in {2, 4}:
        raise DataError(
            f"{X.name} must be float16, float32 or float64 of shape (n, n_features) or (n, height, width, channels). "
            f"Received: {X.dtype} of shape {X.shape}."
        )
    _refuse_transposed(X, found["y"] or found["paths"])
    n = X.shape[0]
    row_names = (f"row-{number:0{max(6, len(str(n)))}d}" for number in range(1, n + 1))
    return GivenFeatures(
        shape=X.shape,
        blocks=X.blocks,
        paths=texts(paths, n, unique=True) if paths else list(row_names),
        y=labels(found["y"], n),
        class_names=optional_texts(found["class_names"]),
        split=optional_texts(found["split"], n),
        group=optional_texts(found["group"], n),
        weight=optional_numbers(found["weight"], n),
        target=optional_numbers(found["target"], n),
        sha256=digests(found["sha256"], n),
        map_shape=tuple(integers(map_shape, 3)) if map_shape is not None else (),
        recipe=str(recipe.scalar()) if recipe is not None and recipe.shape == () else "",
        notices=(*_notices_of(found, arrays.names()), *_channels_first(X.shape)),
    )


def _without_features(path: Path, names: Sequence[str]) -> str:
    parts = [name for name in names if name.startswith("X_")]
    joined = (
        f" Join {', '.join(parts)}: X=np.concatenate([{', '.join(parts)}]), y likewise, and split with the name of its part "
        "for each row."
        if parts
        else ""
    )
    return (
        f"{path} must hold the features as X (or {', '.join(ARRAY_NAMES['X'][1:4])}), and may hold paths, y, class_names, "
        f"split, group, weight, target and sha256. Received: {', '.join(names) or 'none'}.{joined}"
    )


def _refuse_transposed(X: Array, other: Array | None) -> None:
    """Raise DataError if X has a column, not a row, for each image."""
    if len(X.shape) == 2 and other is not None and other.shape[:1] == X.shape[1:] != X.shape[:1]:
        raise DataError(
            f"{X.name} has {X.shape[0]:,} rows and {X.shape[1]:,} columns, and {other.name} has {other.shape[0]:,} values: "
            f"it seems to be transposed. Save np.ascontiguousarray({X.name}.T), a row for each image."
        )


def _channels_first(shape: tuple[int, ...]) -> list[str]:
    """Return a question if the first axis of a map may be the channels."""
    if len(shape) != 4 or shape[1] == shape[2] or shape[2] != shape[3]:
        return []
    return [
        f"Maps of the shape {shape[1:]} are taken as {shape[1]} × {shape[2]} positions of {shape[3]:,} channels. If the "
        "channels come first, as in PyTorch, save np.moveaxis(X, 1, -1) instead."
    ]


def _notices_of(found: Mapping[str, Array | None], names: Iterable[str]) -> Iterator[str]:
    """Yield sentences on renamed and unused arrays."""
    taken = {array.name: name for name, array in found.items() if array is not None}
    renamed = [f"{theirs} as {ours}" for theirs, ours in taken.items() if theirs not in {ours, f"{ours}s"}]
    if renamed:
        yield f"Taken: {', '.join(renamed)}."
    repeated = REPEATED if "recipe" in taken else set()
    if unused := sorted(set(names) - set(taken) - repeated):
        yield f"Not used: {', '.join(unused)}."
    if found["paths"] is None:
        yield "The file names no images: rows are called row-000001 and so on, in their order."


@contextmanager
def open_npz(path: Path) -> Iterator[GivenFeatures]:
    """Yield the content of a NumPy archive; raise DataError if it is none, or its arrays are not as expected."""
    with open_archive(path) as archive:
        yield _given_of(archive, path)


@contextmanager
def open_h5(path: Path) -> Iterator[GivenFeatures]:
    """Yield the content of an HDF5 file, written by ``headstart convert --portable`` or with similar datasets.

    Raises CacheError or DataError if it is a feature cache, is damaged, or holds something else.
    """
    with open_other(path) as file:
        if file.form in CACHE_FORMS:
            raise DataError(f"{path} is a feature cache already. Give it to fit-head as it is.")
        if file.form != FORMAT:
            yield _given_of(file, path)
            return
    with open_portable(path) as portable:
        yield _given_of_portable(portable, path)


def _given_of_portable(file: PortableFile, path: Path) -> GivenFeatures:
    """Return the content of a file written by ``headstart convert --portable``."""
    if file.attribute("format_version") != str(FORMAT_VERSION):
        raise DataError(f"{path} was written by another version of headstart convert --portable.")
    n = file.shape[0]
    paths = file.column("paths", n)
    check_unique(paths)
    return GivenFeatures(
        shape=file.shape,
        blocks=file.blocks,
        paths=list(paths),
        y=file.column("y", n, "<i4").tolist(),
        class_names=list(file.column("class_names", None)),
        split=list(file.column("split", n)),
        group=list(file.column("group", n)),
        weight=file.column(WEIGHT, n, "<f8").tolist() if file.has(WEIGHT) else None,
        target=file.column(TARGET, n, "<f8").tolist() if file.has(TARGET) else None,
        sha256=list(file.column("sha256", n)),
        map_shape=_shape_from(json.loads(file.attribute("map_shape"))),
        recipe=file.attribute("recipe"),
    )


def _shape_from(values: Any) -> tuple[int, ...]:
    """Return the shape in a JSON list; raise DataError if it is invalid."""
    right = isinstance(values, list) and len(values) in {0, 3} and all(type(value) is int for value in values)
    if not right:
        raise DataError(f"map_shape is a list of height, width and channels. Received: {values!r}.")
    return tuple(values)


@contextmanager
def open_parquet(path: Path) -> Iterator[GivenFeatures]:
    """Yield the content of a Parquet table; raise DataError if it is none, or has unexpected columns."""
    pa, parquet = import_pyarrow()
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            yield _given_of_table(pa, file, path)
    except HeadstartError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as a Parquet table: {str(error).splitlines()[0]}.") from error


def _given_of_table(pa: Any, file: Any, path: Path) -> GivenFeatures:
    schema = file.schema_arrow
    known = {*COLUMNS, WEIGHT, TARGET}
    features = [column.name for column in schema if pa.types.is_floating(column.type) and column.name not in known]
    others = sorted(set(schema.names) - set(features) - known)
    if others or "path" not in schema.names or not features or len(set(schema.names)) < len(schema.names):
        raise DataError(
            f"{path} must have the column path, may have {', '.join((*COLUMNS[1:], WEIGHT, TARGET))}, and has otherwise "
            "features, each name once, float16, float32 or float64. Received besides features: "
            f"{', '.join(others) or 'no path'}."
        )
    metadata = json.loads((schema.metadata or {}).get(METADATA, b"{}"))
    paths: list[str] = []
    seen: set[str] = set()
    for part in _column_blocks(file, "path"):
        check_unique(part, seen)
        paths += part
    names = _column(file, "label")
    return GivenFeatures(
        shape=(file.metadata.num_rows, len(features)),
        blocks=lambda: _matrix_blocks(file, features),
        paths=paths,
        y=names if names is not None else _numbers(file, "y", int, -1),
        class_names=[str(name) for name in metadata.get("class_names", ())] or None,
        split=_column(file, "split"),
        group=_column(file, "group"),
        weight=_numbers(file, WEIGHT, float, 1.0),
        target=_numbers(file, TARGET, float, math.nan),
        sha256=_column(file, "sha256"),
        map_shape=_shape_from(metadata.get("map_shape", [])),
        recipe=json.dumps(metadata["recipe"], sort_keys=True) if "recipe" in metadata else "",
    )


def _matrix_blocks(file: Any, features: list[str]) -> Iterator[NDArray[Any]]:
    """Yield blocks of consecutive rows of X; missing values are NaN."""
    for batch in file.iter_batches(max(1, BLOCK_VALUES // len(features)), columns=features):
        by_name = [batch.column(name).to_numpy(zero_copy_only=False) for name in features]
        yield np.stack(by_name, axis=1)


def _column_blocks(file: Any, name: str) -> Iterator[list[str]]:
    """Yield the texts of a column in blocks; null becomes the empty text."""
    for batch in file.iter_batches(BLOCK_VALUES, columns=[name]):
        values = batch.column(0).to_pylist()
        if not all(value is None or isinstance(value, str) for value in values):
            raise DataError(f"The column {name} must hold text.")
        yield [value or "" for value in values]


def _column(file: Any, name: str) -> list[str] | None:
    """Return the texts of a column, or None if it is missing."""
    if name not in file.schema_arrow.names:
        return None
    return [value for block in _column_blocks(file, name) for value in block]


def _numbers(file: Any, name: str, kind: type[Number], missing: Number) -> list[Number] | None:
    """Return the numbers of a column, with a value for null, or None if it is missing."""
    if name not in file.schema_arrow.names:
        return None
    values = [value for batch in file.iter_batches(columns=[name]) for value in batch.column(0).to_pylist()]
    if not all(value is None or type(value) is kind for value in values):
        raise DataError(f"The column {name} must hold {'whole numbers' if kind is int else 'floating numbers'}.")
    return [missing if value is None else value for value in values]
