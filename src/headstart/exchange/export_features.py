"""Convert a cache to a NumPy archive, Parquet, CSV or plain HDF5."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from headstart.cache.other_hdf5 import write_portable
from headstart.cache.reader import FeatureCache, open_cache
from headstart.errors import DataError, MissingExtraError
from headstart.exchange import FORMAT, FORMAT_VERSION, check_new_file
from headstart.heads.transforms import design_matrix
from headstart.storage.publishing import published_bytes
from headstart.texts import csv_cell, with_escapes
from headstart.types import FeatureBatch

#: Rows in memory at a time.
BATCH_ROWS = 64

#: Strings converted to an array at a time.
TEXT_BLOCK = 4096

#: Fixed time of all members, so that equal content gives equal bytes.
NO_TIME = (1980, 1, 1, 0, 0, 0)

#: Columns before the features; names as in a manifest.
COLUMNS = ("path", "label", "y", "split", "group", "sha256")

#: Columns of numbers after those: the weights of images in a fit, only written if there are any but 1; and the numbers to
#: predict, NaN for none, only written if there are any.
WEIGHT, TARGET = "weight", "target"

#: Key of the table's metadata.
METADATA = b"headstart"

#: Values of X in a row group: 64 MiB of float32.
GROUP_VALUES = 2**24


@dataclass(frozen=True, slots=True)
class Contents:
    """The content of a cache to be converted."""

    n_samples: int  # rows
    features: tuple[str, ...]  # features in X, named as for a head: ``avg``, ``flatten``, ``block4_conv3`` …
    feature_names: tuple[str, ...]  # name of each column of X: ``avg_0``, ``avg_1`` …
    map_shape: tuple[int, ...]  # height, width and channels if X holds flattened maps; otherwise empty
    class_names: tuple[str, ...]  # names indexed by ``y``
    y: NDArray[np.int64]  # class index, −1 if unlabelled; shape (n_samples,)
    numbers: Mapping[str, NDArray[np.float64]]  # :data:`WEIGHT` and :data:`TARGET`, if any; shape (n_samples,)
    #: ``path``, ``label``, ``split``, ``group`` and ``sha256``; each call returns one string per row
    texts: Mapping[str, Callable[[], Iterable[str]]]
    recipe: str  # recipe of the features, JSON
    #: Each call yields X in blocks of shape (≤ 64, n_features), float32
    blocks: Callable[[], Iterator[NDArray[np.float32]]]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a table before the features."""
        return (*COLUMNS, *self.numbers)


def _contents_of(cache: FeatureCache, features: Sequence[str]) -> Contents:
    """Return the content of an open cache; X is read on demand."""
    if not cache.n_images:
        raise DataError(f"{cache.path} holds no image: there is nothing to convert.")
    rows, names = cache.rows, (*cache.class_names, "")
    return Contents(
        n_samples=cache.n_images,
        features=tuple(features),
        feature_names=feature_names(cache, features),
        map_shape=cache.map_shape if tuple(features) == ("flatten",) else (),
        class_names=cache.class_names,
        y=cache.labels,
        numbers={
            name: values for name, values in ((WEIGHT, cache.weights), (TARGET, cache.targets)) if values is not None
        },
        texts={
            "path": lambda: rows.path,
            "label": lambda: (names[label] for label in rows.label.tolist()),
            "split": lambda: rows.split,
            "group": lambda: rows.group,
            "sha256": lambda: rows.sha256,
        },
        recipe=cache.recipe.to_json(),
        blocks=lambda: (design_matrix([batch], features) for batch in cache.batches(batch_rows=BATCH_ROWS)),
    )


def feature_names(cache: FeatureCache, features: Sequence[str]) -> tuple[str, ...]:
    """Return one name per column: the feature's name and a number from 0."""
    maps, averages = np.zeros((1, *cache.map_shape), np.float32), np.zeros((1, cache.n_pooled), np.float32)
    empty = FeatureBatch(maps, averages, cache.pooled_column_layer)
    widths = {name: design_matrix([empty], [name]).shape[1] for name in dict.fromkeys(features)}
    if len(widths) < len(features):
        raise DataError(f"A feature is listed twice: {', '.join(features)}. List each once.")
    return tuple(f"{name}_{number}" for name, width in widths.items() for number in range(width))


def write_npz(path: Path, contents: Contents) -> None:
    """Write a file for ``np.load(path, allow_pickle=False)``."""
    n = contents.n_samples
    with published_bytes(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        _write_text(archive, "format", lambda: [f"{FORMAT}-{FORMAT_VERSION}"])
        _write_text(archive, "recipe", lambda: [contents.recipe])
        _write_array(archive, "X", np.dtype("<f4"), (n, len(contents.feature_names)), contents.blocks())
        _write_array(archive, "y", np.dtype("<i8"), (n,), [contents.y])
        for name, values in contents.numbers.items():
            _write_array(archive, name, np.dtype("<f8"), (n,), [values])
        for name, texts in contents.texts.items():
            _write_text(archive, _plural(name), texts, n)
        for name in ("class_names", "features", "feature_names"):
            _write_text(archive, name, lambda name=name: getattr(contents, name), len(getattr(contents, name)))  # type: ignore[misc]
        if contents.map_shape:
            _write_array(archive, "map_shape", np.dtype("<i8"), (3,), [np.array(contents.map_shape)])


def _plural(column: str) -> str:
    return {"path": "paths", "label": "labels"}.get(column, column)


def _write_text(
    archive: zipfile.ZipFile, name: str, texts: Callable[[], Iterable[str]], n_rows: int | None = None
) -> None:
    """Write strings as an array of fixed-length Unicode; without ``n_rows`` a single one as a scalar."""
    dtype = np.dtype(f"<U{max(map(len, texts()), default=1) or 1}")
    _write_array(archive, name, dtype, () if n_rows is None else (n_rows,), _text_blocks(texts(), dtype))


def _text_blocks(texts: Iterable[str], dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    remaining = iter(texts)
    while part := list(islice(remaining, TEXT_BLOCK)):
        yield np.array(part, dtype)


def _write_array(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], blocks: Iterable[NDArray[Any]]
) -> None:
    """Write one array from blocks along its first axis."""
    member = zipfile.ZipInfo(f"{name}.npy", NO_TIME)
    member.compress_type = zipfile.ZIP_DEFLATED
    header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(member, "w", force_zip64=True) as stream:
        npy.write_array_header_1_0(stream, header)
        for block in blocks:
            stream.write(np.ascontiguousarray(block, dtype).tobytes())


def write_csv(path: Path, contents: Contents, *, raw: bool = False) -> None:
    """Write UTF-8 with a header; numbers have the fewest digits that round-trip float32.

    Undecodable bytes of paths are kept. Text that a spreadsheet would take for a formula gets a leading ``'``, unless
    ``raw``.
    """
    with published_bytes(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*contents.columns, *contents.feature_names])
        for columns, block in _described_blocks(contents):
            described = zip(
                *([csv_cell(cell, raw=raw) for cell in columns[name]] for name in contents.columns), strict=True
            )
            writer.writerows([*row, *map(str, values)] for row, values in zip(described, block, strict=True))
        text.flush()
        text.detach()


def write_parquet(path: Path, contents: Contents) -> None:
    r"""Write a Parquet table with snappy compression; empty texts become nulls, undecodable bytes of paths ``\xff``."""
    pa, parquet = import_pyarrow()
    kinds = {"y": pa.int32(), WEIGHT: pa.float64(), TARGET: pa.float64()}
    fields = [(name, kinds.get(name, pa.string())) for name in contents.columns]
    fields += [(name, pa.float32()) for name in contents.feature_names]
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "recipe": json.loads(contents.recipe),
        "class_names": contents.class_names,
        "features": contents.features,
        "map_shape": contents.map_shape,
    }
    schema = pa.schema(fields, metadata={METADATA: json.dumps(metadata)})
    options = {
        "compression": "snappy",
        "use_dictionary": list(contents.columns),  # feature values rarely repeat, and there may be thousands of columns
        "write_statistics": list(contents.columns),
        "write_page_checksum": True,
    }
    with published_bytes(path) as file, parquet.ParquetWriter(file, schema, **options) as writer:
        for columns, matrix in _groups(contents):
            described = [
                columns[name] if name in kinds else list(map(valid, columns[name])) for name in contents.columns
            ]
            arrays = [pa.array(values, field[1]) for values, field in zip(described, fields, strict=False)]
            arrays += [pa.array(column) for column in matrix]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _groups(contents: Contents) -> Iterator[tuple[dict[str, list[Any]], NDArray[np.float32]]]:
    """Yield the columns that describe some rows, and their X transposed, about 64 MiB at a time."""
    n_rows = max(1, GROUP_VALUES // len(contents.feature_names))
    waiting: list[NDArray[np.float32]] = []
    described: dict[str, list[Any]] = {name: [] for name in contents.columns}
    left = contents.n_samples
    for columns, block in _described_blocks(contents):
        waiting.append(block)
        for name, values in columns.items():
            described[name] += values
        left -= len(block)
        if sum(map(len, waiting)) >= n_rows or not left:
            yield described, np.concatenate([one.T for one in waiting], axis=1)
            waiting, described = [], {name: [] for name in contents.columns}


def _described_blocks(contents: Contents) -> Iterator[tuple[dict[str, list[Any]], NDArray[np.float32]]]:
    """Yield the columns that describe some rows, and their X."""
    texts, start = {name: iter(values()) for name, values in contents.texts.items()}, 0
    for block in contents.blocks():
        columns: dict[str, list[Any]] = {name: list(islice(values, len(block))) for name, values in texts.items()}
        columns["y"] = contents.y[start : start + len(block)].tolist()
        for name, values in contents.numbers.items():
            columns[name] = values[start : start + len(block)].tolist()
        start += len(block)
        yield columns, block


def valid(text: str) -> str | None:
    """Return text as valid UTF-8; None if empty."""
    return with_escapes(text) if text else None


def import_pyarrow() -> tuple[Any, Any]:
    """Return pyarrow and its Parquet module; raise MissingExtraError if not installed."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError(
            'Parquet needs pyarrow, which is not installed: pip install "headstart[parquet]"'
        ) from error
    return pa, parquet


@dataclass(frozen=True, slots=True)
class Conversion:
    """The result of a conversion."""

    output: Path
    n_samples: int  # rows and columns of X
    n_features: int
    features: tuple[str, ...]  # in X
    size_bytes: int


def write_h5(path: Path, contents: Contents) -> None:
    """Write plain HDF5: gzip, float32, fixed-length UTF-8, readable without plug-ins."""
    n = contents.n_samples
    texts = {_plural(name): (n, values) for name, values in contents.texts.items()}
    for name in ("class_names", "feature_names"):
        values = getattr(contents, name)
        texts[name] = (len(values), lambda values=values: values)  # type: ignore[misc]
    attributes = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "recipe": contents.recipe,
        "features": json.dumps(contents.features),
        "map_shape": json.dumps(contents.map_shape),
    }
    shape = (n, len(contents.feature_names))
    numbers = {"y": contents.y.astype("<i4"), **contents.numbers}
    write_portable(path, blocks=contents.blocks(), shape=shape, numbers=numbers, texts=texts, attributes=attributes)


#: Suffix → writer.
WRITERS: dict[str, Callable[[Path, Contents], None]] = {
    ".npz": write_npz,
    ".h5": write_h5,
    ".parquet": write_parquet,
    ".csv": write_csv,
}


def convert(
    cache: str | Path,
    output: str | Path,
    *,
    features: Sequence[str] = ("avg",),
    raw: bool = False,
    overwrite: bool = False,
) -> Conversion:
    """Convert the features of a cache and their description to another format; memory does not grow with the features.

    Parameters
    ----------
    cache, output : str or Path
        The cache, and the file to write; its suffix gives the format: ``.npz``, ``.h5`` (plain HDF5), ``.parquet`` or
        ``.csv``.
    features : sequence of str
        Columns of X: ``avg``, ``max``, ``gem``, ``crops`` or ``flatten`` of the stored layer, or pooled layers.
    raw : bool
        Write text to ``.csv`` unchanged. By default text that a spreadsheet would take for a formula, e.g. ``=1+1``,
        gets a leading ``'``; other formats are never changed.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    DataError, HeadstartError
        If the file exists, its suffix is unknown, there is nothing to convert, or no such feature.
    CacheError, MissingExtraError
        If the cache cannot be read, the file cannot be written, or pyarrow is needed and not installed.

    Examples
    --------
    >>> convert("features/data.h5", "data.npz", features=("avg", "block4_conv3"))     # doctest: +SKIP
    """
    target = Path(output)
    _check_target(Path(cache), target, raw, overwrite)
    with open_cache(cache) as opened:
        contents = _contents_of(opened, features)
        write = partial(write_csv, raw=True) if raw else WRITERS[target.suffix]
        write(target, contents)
    width = len(contents.feature_names)
    return Conversion(target, contents.n_samples, width, contents.features, target.stat().st_size)


def _check_target(cache: Path, target: Path, raw: bool, overwrite: bool) -> None:
    """Raise DataError if the file may not be written."""
    if target.suffix not in WRITERS:
        raise DataError(f"The end of the name says what is written: {', '.join(WRITERS)}. Received: {target}.")
    if target.exists() and cache.exists() and target.samefile(cache):
        raise DataError(f"{target} is the cache itself. Give the new file another name.")
    check_new_file(target, overwrite)
    if raw and target.suffix != ".csv":
        raise DataError(f"`raw=True` is for .csv; other files hold text as it is. Received: {target}.")
    if target.suffix == ".parquet":
        import_pyarrow()
