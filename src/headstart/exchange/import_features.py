"""Import features computed by other software as a cache."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.cache.writer import ShardWriter
from headstart.errors import DataError, HeadstartError
from headstart.exchange.export_features import COLUMNS, METADATA, import_pyarrow
from headstart.exchange.given_columns import GivenFeatures, open_h5, open_npz, shape_from
from headstart.exchange.untrusted_arrays import check_unique
from headstart.images.discovery.class_names import questions
from headstart.images.discovery.folder_layout import split_of
from headstart.texts import class_name
from headstart.types import FeatureBatch, ImageRef, ImageRow, Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Values of X, or rows of a text column, in memory at a time.
BLOCK_VALUES = 2**24

#: ``Recipe.decode`` of imported features: docs/cache-format.md.
FOREIGN_RULES = "foreign-1"

#: Prefix of the hashed bytes if the digest of the image file is not given.
IDENTITY = FOREIGN_RULES.encode() + b"\0"

#: Valid names of feature extractors.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

#: Longer recipes are not kept as provenance.
MAX_RECIPE_BYTES = 4096


@contextmanager
def open_parquet(path: Path) -> Iterator[GivenFeatures]:
    """Yield the content of a Parquet table; X is read on demand, inside the block.

    Raises
    ------
    DataError
        If it is no such table, or has unexpected columns.
    MissingExtraError
        If pyarrow is not installed.
    """
    pa, parquet = import_pyarrow()
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            yield _given_of(pa, file, path)
    except HeadstartError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as a Parquet table: {str(error).splitlines()[0]}.") from error


def _given_of(pa: Any, file: Any, path: Path) -> GivenFeatures:
    """Return the content of a table."""
    schema = file.schema_arrow
    features = [column.name for column in schema if pa.types.is_floating(column.type) and column.name not in COLUMNS]
    others = sorted(set(schema.names) - set(features) - set(COLUMNS))
    if others or "path" not in schema.names or not features or len(set(schema.names)) < len(schema.names):
        raise DataError(
            f"{path} must have the column path, may have {', '.join(COLUMNS[1:])}, and has otherwise features, each name "
            f"once, float16, float32 or float64. Received besides features: {', '.join(others) or 'no path'}."
        )
    metadata = json.loads((schema.metadata or {}).get(METADATA, b"{}"))
    paths: list[str] = []
    seen: set[str] = set()
    for part in _column_blocks(file, "path"):
        check_unique(part, seen)
        paths += part
    labels = column(file, "label")
    return GivenFeatures(
        shape=(file.metadata.num_rows, len(features)),
        blocks=lambda: _matrix_blocks(file, features),
        paths=paths,
        y=labels if labels is not None else numbers(file, "y"),
        class_names=[str(name) for name in metadata.get("class_names", ())] or None,
        split=column(file, "split"),
        group=column(file, "group"),
        sha256=column(file, "sha256"),
        map_shape=shape_from(metadata.get("map_shape", [])),
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


def column(file: Any, name: str) -> list[str] | None:
    """Return the texts of a column, or None if it is missing."""
    if name not in file.schema_arrow.names:
        return None
    return [value for block in _column_blocks(file, name) for value in block]


def numbers(file: Any, name: str) -> list[int] | None:
    """Return the integers of a column, −1 for null, or None if it is missing."""
    if name not in file.schema_arrow.names:
        return None
    values = [value for batch in file.iter_batches(columns=[name]) for value in batch.column(0).to_pylist()]
    if not all(value is None or type(value) is int for value in values):
        raise DataError(f"The column {name} must hold whole numbers.")
    return [-1 if value is None else value for value in values]


def check_lengths(given: GivenFeatures) -> None:
    """Raise DataError if a column does not have one value per row."""
    columns = {"paths": given.paths, "y": given.y, "split": given.split, "group": given.group, "sha256": given.sha256}
    for name, values in columns.items():
        if values is not None and len(values) != given.shape[0]:
            raise DataError(f"X has {given.shape[0]:,} rows, and {name} has {len(values):,}. One each is needed.")


def _resolve_labels(
    given: GivenFeatures, class_names: Sequence[str] | None
) -> tuple[list[str | None], tuple[str, ...]]:
    """Return the class of each row (None if unlabelled), and the names of all classes.

    If no names are given, they are the distinct labels, sorted. Names that differ only in their Unicode form or in
    surrounding spaces are one. Raises DataError if a label has no name, two names are equal, or the meaning of −1 is
    ambiguous.
    """
    given_names = [str(name) for name in class_names or given.class_names or ()]
    if len(set(given_names)) < len(given_names):
        raise DataError(f"Class names must be different. Received: {', '.join(map(repr, given_names))}.")
    names = [class_name(name) for name in given_names]
    n = given.shape[0]
    if given.y is None:
        return [None] * n, _unique(names)
    y: list[Any] = list(given.y)
    if all(isinstance(label, str) for label in y):
        kept = {label: class_name(label.strip()) for label in set(y)}
        names = names or sorted(set(kept.values()) - {""})
        unknown = sorted(set(kept.values()) - set(names) - {""})
        if unknown:
            raise DataError(f"y has labels that are not among the class names: {', '.join(unknown[:5])}.")
        return [kept[label] or None for label in y], _unique(names)
    return _numbered(y, names), _unique(names or [str(number) for number in sorted(set(y) - {-1})])


def _numbered(y: Sequence[int], names: Sequence[str]) -> list[str | None]:
    """Return the class of each number, None for −1; without names the number itself."""
    lowest, highest = min(y), max(y)
    if lowest < -1 or (names and highest >= len(names)):
        expected = f"from 0 to {len(names) - 1}" if names else "from 0"
        raise DataError(f"y must hold numbers {expected}, −1 where unlabelled. Received: {lowest} to {highest}.")
    if not names and set(y) == {-1, 1}:
        raise DataError(
            "y holds −1 and 1 alone, and −1 means unlabelled. If these are two classes, write 0 and 1. If they are not, give "
            "the names of the classes (`class_names`)."
        )
    texts = {number: names[number] if names else str(number) for number in set(y) if number >= 0}
    return [texts.get(number) for number in y]


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _make_refs(given: GivenFeatures, labels: Sequence[str | None]) -> list[ImageRef]:
    """Return the checked description of each row."""
    n = given.shape[0]
    split, group = given.split or [""] * n, given.group or [""] * n
    unknown = sorted({name for name in split if name and split_of(name) is None})
    if unknown:
        raise DataError(f"A split is train, validation or test. Received: {', '.join(map(repr, unknown[:5]))}.")
    for path in given.paths:
        _check_path(path)
    for digest in given.sha256 or ():
        if not re.fullmatch("[0-9a-fA-F]{64}", digest):
            raise DataError(f"A SHA-256 has 64 hexadecimal digits. Received: {digest[:80]!r}.")
    return [
        ImageRef(path, label, split_of(one), other or None, 0, 0)
        for path, label, one, other in zip(given.paths, labels, split, group, strict=True)
    ]


def _check_path(path: str) -> None:
    """Raise DataError unless a path is relative, inside the folder of images, and valid text."""
    try:
        path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise DataError(f"The path {path[:200]!r} is not text: {error.reason}.") from error
    inside = bool(path) and not PurePosixPath(path).is_absolute() and not PureWindowsPath(path).anchor
    if not inside or ".." in PurePosixPath(path).parts or "\0" in path:
        raise DataError(f"A path is relative to the folder of images, and inside of it. Received: {path[:200]!r}.")


#: Suffix → reader.
READERS: dict[str, Callable[[Path], AbstractContextManager[GivenFeatures]]] = {
    ".npz": open_npz,
    ".h5": open_h5,
    ".hdf5": open_h5,
    ".parquet": open_parquet,
}


@dataclass(frozen=True, slots=True)
class Import:
    """The result of an import.

    Attributes
    ----------
    output : Path
        The cache.
    n_images, n_unlabelled : int
        Rows, and those without a label.
    class_names : tuple of str
        The classes.
    map_shape : tuple of int
        Height, width and channels of a row.
    identity : str
        Meaning of a row's ``sha256``.
    notices : tuple of str
        Sentences on renamed arrays and doubtful classes.
    """

    output: Path
    n_images: int
    n_unlabelled: int
    class_names: tuple[str, ...]
    map_shape: tuple[int, ...]
    identity: str
    notices: tuple[str, ...] = ()


def import_features(
    source: str | Path,
    output: str | Path,
    *,
    name: str,
    class_names: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Import:
    """Import features computed by other software as a cache, float32, row by row.

    Parameters
    ----------
    source : str or Path
        A NumPy archive (``.npz``) with ``X`` of shape (n, n_features) or (n, height, width, channels), floating; and
        optionally ``paths`` (unique text), ``y`` (integers from 0 with −1 for unlabelled, one-hot rows, or names),
        ``class_names``, ``split``, ``group`` and ``sha256`` (of the image files); other usual names like ``features``
        and ``labels`` are accepted. Or an HDF5 file (``.h5``, ``.hdf5``) with such datasets. Or an ``.h5`` or
        ``.parquet`` file written by :func:`convert`, or a Parquet table of the same columns.
    output : str or Path
        The cache to write.
    name : str
        Name of the feature extractor, e.g. ``dinov2``; features of different names are never mixed.
    class_names : sequence of str, optional
        Names indexed by the numbers in ``y``; override those in the file.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    DataError
        If the file is damaged or inconsistent: wrong lengths, a label without a name, an absolute path or one with
        ``..``, a value that is not finite …
    CacheError
        If a text cannot be stored, the cache cannot be written, or an ``.h5`` is damaged.
    MissingExtraError
        If pyarrow is needed and not installed.

    Examples
    --------
    >>> import_features("dinov2.npz", "features/dinov2.h5", name="dinov2")             # doctest: +SKIP
    """
    path, target = Path(source), Path(output)
    _check_arguments(path, target, name, overwrite)
    with READERS[path.suffix](path) as given:
        check_lengths(given)
        labels, names = _resolve_labels(given, class_names)
        refs = _make_refs(given, labels)
        map_shape = _shape_of_row(given)
        identity = "digest of the image file" if given.sha256 else "digest of path and features"
        info = {"imported_from": path.name, "row_identity": identity}
        if given.recipe and len(given.recipe) <= MAX_RECIPE_BYTES:
            info["source_recipe"] = given.recipe
        with ShardWriter(target, recipe=_foreign_recipe(name), class_names=names, info=info) as writer:
            for features, rows in described(given, refs, map_shape):
                writer.append(FeatureBatch(features, np.empty((len(rows), 0), np.float32)), rows)
    notices = (*given.notices, *questions(Counter(label for label in labels if label is not None)))
    return Import(target, len(refs), labels.count(None), names, map_shape, identity, notices)


def _check_arguments(source: Path, target: Path, name: str, overwrite: bool) -> None:
    """Raise DataError for invalid arguments, before anything is read."""
    if source.suffix not in READERS:
        raise DataError(
            f"Features are imported from a file that ends in {', '.join(READERS)}. Received: {source}. From NumPy, write "
            "np.savez(FILE, X=X, y=y, paths=paths)."
        )
    if not source.is_file():
        raise DataError(f"There is no file at {source}.")
    if not NAME.fullmatch(name):
        raise DataError(f"A name has up to 100 letters, digits, dots, hyphens and underscores. Received: {name!r}.")
    if target.suffix != ".h5":
        raise DataError(f"A cache is written to a file that ends in .h5. Received: {target}.")
    if target.exists() and target.samefile(source):
        raise DataError(f"{target} is the file that is imported. Give the cache another name.")
    if target.exists() and not overwrite:
        raise DataError(f"{target} exists already.", hint="Replace it with `overwrite=True`.")


def _foreign_recipe(name: str) -> Recipe:
    return Recipe(
        backbone=f"foreign:{name}",
        weights="foreign",
        weights_sha256="unknown",
        layer="X",
        pooled_layers=(),
        input_size_px=0,
        decode=FOREIGN_RULES,
        resize="unknown",
        precision="unknown",
        storage="float32",
    )


def _shape_of_row(given: GivenFeatures) -> tuple[int, ...]:
    """Return height, width and channels of a row; a vector is a map of one position."""
    if 0 in given.shape:
        raise DataError(f"X holds nothing: its shape is {given.shape}.")
    if len(given.shape) == 4:
        return given.shape[1:]
    if not given.map_shape:
        return (1, 1, given.shape[1])
    if min(given.map_shape) < 1 or np.prod(given.map_shape, dtype=object) != given.shape[1]:
        raise DataError(f"X has {given.shape[1]} columns, which are no flattened maps of shape {given.map_shape}.")
    return given.map_shape


def described(
    given: GivenFeatures, refs: Sequence[ImageRef], map_shape: tuple[int, ...]
) -> Iterator[tuple[NDArray[np.float32], list[ImageRow]]]:
    """Yield blocks of features in storage type, and their rows."""
    start = 0
    for block in given.blocks():
        rows = refs[start : start + len(block)]
        features = _as_float32(block, rows).reshape(len(block), *map_shape)
        digests = given.sha256[start : start + len(block)] if given.sha256 else map(_identity_of, rows, features)
        yield features, [ImageRow(ref, digest.lower(), 0, 0) for ref, digest in zip(rows, digests, strict=True)]
        start += len(block)
    if start != len(refs):
        raise DataError(f"X has {start:,} rows where {len(refs):,} were announced. The file is damaged.")


def _as_float32(block: NDArray[Any], rows: Sequence[ImageRef]) -> NDArray[np.float32]:
    """Return rows of X as float32; raise DataError, naming the image, if a value is not finite."""
    with np.errstate(over="ignore"):
        features = np.ascontiguousarray(block, "<f4")
    good = np.isfinite(features).reshape(len(features), -1)
    if not good.all():
        row = int(np.argmin(good.all(axis=1)))
        value = block.reshape(len(block), -1)[row][~good[row]][0]
        raise DataError(
            f"{rows[row].path}: a feature is {value}, and a finite float32 is needed. Mend X or leave it out."
        )
    return features


def _identity_of(ref: ImageRef, features: NDArray[np.float32]) -> str:
    """Return the identity of a row without a file digest: the digest of its path and features."""
    digest = hashlib.sha256(IDENTITY + ref.path.encode("utf-8", "surrogateescape") + b"\0")
    digest.update(features.data)
    return digest.hexdigest()
