"""Import features computed by other software as a cache."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.writer import ShardWriter
from headstart.errors import DataError
from headstart.exchange import check_new_cache
from headstart.exchange.given_columns import GivenFeatures, open_h5, open_npz, open_parquet
from headstart.images.discovery.classes_and_splits import questions, split_of
from headstart.texts import class_name
from headstart.types import FeatureBatch, ImageRef, ImageRow, Recipe, is_weight

#: ``Recipe.decode`` of imported features: docs/cache-format.md.
FOREIGN_RULES = "foreign-1"

#: Prefix of the hashed bytes if the digest of the image file is not given.
IDENTITY = FOREIGN_RULES.encode() + b"\0"

#: Valid names of feature extractors.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

#: Longer recipes are not kept as provenance.
MAX_RECIPE_BYTES = 4096


def check_lengths(given: GivenFeatures) -> None:
    """Raise DataError if a column does not have one value per row."""
    for name in ("paths", "y", "split", "group", "weight", "target", "sha256"):
        values: Sequence[Any] | None = getattr(given, name)
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
        return [None] * n, tuple(dict.fromkeys(names))
    y: list[Any] = list(given.y)
    if all(isinstance(label, str) for label in y):
        kept = {label: class_name(label.strip()) for label in set(y)}
        names = names or sorted(set(kept.values()) - {""})
        unknown = sorted(set(kept.values()) - set(names) - {""})
        if unknown:
            raise DataError(f"y has labels that are not among the class names: {', '.join(unknown[:5])}.")
        return [kept[label] or None for label in y], tuple(dict.fromkeys(names))
    labels = _numbered(y, names)
    return labels, tuple(dict.fromkeys(names or [str(number) for number in sorted(set(y) - {-1})]))


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


def _make_refs(given: GivenFeatures, labels: Sequence[str | None]) -> list[ImageRef]:
    n = given.shape[0]
    split, group, weights = given.split or [""] * n, given.group or [""] * n, given.weight or [1.0] * n
    unknown = sorted({name for name in split if name and split_of(name) is None})
    if unknown:
        raise DataError(f"A split is train, validation or test. Received: {', '.join(map(repr, unknown[:5]))}.")
    targets = [None if math.isnan(one) else one for one in given.target] if given.target else [None] * n
    infinite = next((one for one in targets if one is not None and math.isinf(one)), None)
    if infinite is not None:
        raise DataError(f"A number to predict is finite, or NaN for none. Received: {infinite}.")
    wrong = next((weight for weight in weights if not is_weight(weight)), None)
    if wrong is not None:
        raise DataError(f"A weight is a finite number, 0 or more. Received: {wrong}.")
    for path in given.paths:
        _check_path(path)
    for digest in given.sha256 or ():
        if not re.fullmatch("[0-9a-fA-F]{64}", digest):
            raise DataError(f"A SHA-256 has 64 hexadecimal digits. Received: {digest[:80]!r}.")
    return [
        ImageRef(path, label, split_of(one), other or None, 0, 0, weight=weight, target=target)
        for path, label, one, other, weight, target in zip(
            given.paths, labels, split, group, weights, targets, strict=True
        )
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
    """The result of an import."""

    output: Path  # the cache
    n_images: int
    n_unlabelled: int
    class_names: tuple[str, ...]
    map_shape: tuple[int, ...]  # height, width and channels of a row
    identity: str  # meaning of a row's ``sha256``
    notices: tuple[str, ...] = ()  # sentences on renamed arrays and doubtful classes


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
        ``class_names``, ``split``, ``group``, ``weight``, ``target`` (NaN for none) and ``sha256`` (of the image files);
        other usual names like ``features`` and ``labels`` are accepted. Or an HDF5 file (``.h5``, ``.hdf5``) with such
        datasets. Or an ``.h5`` or ``.parquet`` file written by :func:`convert`, or a Parquet table of the same columns.
    output : str or Path
        The cache to write; with ``overwrite`` it may exist.
    name : str
        Name of the feature extractor, e.g. ``dinov2``; features of different names are never mixed.
    class_names : sequence of str, optional
        Names indexed by the numbers in ``y``; override those in the file.

    Raises
    ------
    DataError
        If the file is damaged or inconsistent: wrong lengths, a label without a name, an absolute path or one with
        ``..``, a value that is not finite …
    CacheError, MissingExtraError
        If a text cannot be stored, the cache cannot be written, an ``.h5`` is damaged, or pyarrow is not installed.

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
    weighted = () if given.weight is None else ("The weights say how much each image counts in a fit.",)
    notices = (*given.notices, *weighted, *questions(Counter(label for label in labels if label is not None)))
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
    if target.exists() and target.samefile(source):
        raise DataError(f"{target} is the file that is imported. Give the cache another name.")
    check_new_cache(target, overwrite)


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
    digest = hashlib.sha256(IDENTITY + ref.path.encode("utf-8", "surrogateescape") + b"\0")
    digest.update(features.data)
    return digest.hexdigest()
