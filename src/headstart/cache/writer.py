"""Write a cache row by row, a shard of a run or a whole cache; and the manifest of a folder of shards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from headstart.cache.columns import (
    Texts,
    check_storage,
    create_features,
    encode,
    row_digest,
    stored,
    write_column_layers,
    write_table,
    write_text,
)
from headstart.cache.format import (
    CLASS_NAMES,
    FAILURE_COLUMNS,
    FAILURES,
    FEATURES,
    FORMAT,
    PLACE_COLUMNS,
    POOLED,
    ROW_COLUMNS,
    ROWS,
    SHARD_COLUMNS,
    SHARDS,
    SHARDS_FORMAT,
    Column,
    Header,
    column_layers,
    now,
    versions,
    write_header,
    write_text_attribute,
)
from headstart.cache.sandbox import published
from headstart.cache.shards import Places, ShardFolder
from headstart.errors import CacheError
from headstart.images.discovery.refs import ImageRefs
from headstart.storage.publishing import writing
from headstart.types import Failure, FeatureBatch, ImageRef, ImageRow, Recipe

#: Longer reasons are truncated.
MAX_REASON_CHARACTERS = 1000


class ShardWriter:
    """Writes features and their description row by row; the file appears when the ``with`` block ends without an error.

    Only the description of the rows is kept in memory. Not thread-safe. An existing file stays until the new one is
    complete. ``recipe``, ``layout`` and ``info`` are those of :class:`Header`, and ``compression`` one of
    :data:`COMPRESSIONS`. Raises CacheError if the recipe cannot be stored; on entry and on exit, if the file cannot be
    written.
    """

    def __init__(
        self,
        path: Path,
        *,
        recipe: Recipe,
        class_names: Sequence[str],
        compression: str = "zstd",
        layout: str = "",
        info: Mapping[str, Any] | None = None,
    ) -> None:
        check_storage(recipe, compression)
        self.path, self.recipe, self.class_names = Path(path), recipe, tuple(class_names)
        self.compression, self.layout, self.info = compression, layout, dict(info or {})
        self._labels = label_indices(self.class_names)
        self._rows: list[ImageRow] = []
        self._digests: list[bytes] = []
        self._failures: list[Failure] = []

    def __enter__(self) -> Self:
        self._publication = self._published()
        return self._publication.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._publication.__exit__(*error)

    @contextmanager
    def _published(self) -> Iterator[Self]:
        with published(self.path) as (self._file, self._below):
            yield self
            with writing(self.path):
                self._finish()

    def append(self, batch: FeatureBatch, rows: Sequence[ImageRow]) -> None:
        """Write the features of some images, cast to the recipe's storage type.

        Raises CacheError if the file cannot be written, a value is not finite in the storage type, numbers of rows or
        shapes do not match, or a label is not among the class names; nothing of the batch is written then.
        """
        if not len(batch) == len(batch.pooled) == len(rows):
            raise CacheError(
                f"{len(rows)} images came with {len(batch)} rows of features and {len(batch.pooled)} of averages."
            )
        if not rows:
            return
        for row in rows:
            _check_row(row, self._labels)
        features, pooled = stored(batch.features, self.recipe.storage, rows), stored(batch.pooled, "float32", rows)
        with writing(self.path):
            if not self._rows:
                layers = column_layers(batch, self.recipe.pooled_layers)
                create_features(self._file, self.recipe, features.shape[1:], layers, self.compression)
            self._extend(features, pooled, len(self._rows))
            self._below.check()
        self._digests += map(row_digest, features, pooled)
        self._rows += rows

    def _extend(self, features: NDArray[Any], pooled: NDArray[Any], start: int) -> None:
        targets = [(self._file[name], values) for name, values in ((FEATURES, features), (POOLED, pooled))]
        for target, values in targets:
            if values.shape[1:] != target.shape[1:]:
                raise CacheError(f"{target.name} has rows of shape {target.shape[1:]}. Received: {values.shape[1:]}.")
        for target, values in targets:
            target.resize(start + len(values), axis=0)
            target[start:] = values

    def add_failure(self, failure: Failure) -> None:
        """Add an image for which no features could be computed."""
        self._failures.append(failure)

    def _finish(self) -> None:
        if not self._rows:
            create_features(self._file, self.recipe, (0, 0, 0), (), self.compression)
        refs = [row.ref for row in self._rows]
        values = {
            **ref_columns(refs),
            "notes": texts(self._rows, lambda row: ",".join(row.notes), "note"),
            "label": [self._labels[ref.label] for ref in refs],
            "sha256": _digest_array([bytes.fromhex(row.sha256) for row in self._rows]),
            "features_sha256": _digest_array(self._digests),
            "width_px": [row.width_px for row in self._rows],
            "height_px": [row.height_px for row in self._rows],
        }
        header = Header(
            self.recipe, len(refs), len(self._failures), self.layout, versions(), self.info, created=now()
        )  # fmt: skip
        write_descriptions(self._file, header, values, self._failures, self.class_names)


def write_descriptions(
    file: Any,
    header: Header,
    values: Mapping[str, Any],
    failures: Sequence[Failure],
    class_names: Sequence[str],
    *,
    form: str = FORMAT,
    more_columns: Sequence[Column] = (),
) -> None:
    """Write everything but the features; a manifest has another ``form`` and more columns."""
    write_table(file, ROWS, (*ROW_COLUMNS, *more_columns), values, header.n_images)
    write_table(file, FAILURES, FAILURE_COLUMNS, _failure_columns(failures), header.n_failures)
    write_text(file, CLASS_NAMES, texts(class_names, lambda name: name, "class name"), len(class_names))
    write_header(file, header, form)


def write_manifest(
    folder: ShardFolder,
    header: Header,
    values: Mapping[str, Any],
    places: Places,
    column_layers: Sequence[str],
    failures: Sequence[Failure],
    class_names: Sequence[str],
) -> None:
    """Publish a manifest, which makes the folder this cache; its shards must be complete.

    ``values`` are the columns of ``/rows``. Raises CacheError if the manifest cannot be written.
    """
    table = places.table
    shards = {
        "name": lambda: (encode(name, "name of a shard") for name in table.names),
        "n_images": table.n_images,
        "size_bytes": table.size_bytes,
        "sha256": table.sha256,
    }
    rows = {**values, "shard": places.shard, "shard_row": places.shard_row}
    with folder.published() as (file, _):
        write_column_layers(file, column_layers)
        write_table(file, SHARDS, SHARD_COLUMNS, shards, len(table))
        write_descriptions(file, header, rows, failures, class_names, form=SHARDS_FORMAT, more_columns=PLACE_COLUMNS)
        file.attrs.create("n_shards", len(table), dtype="<i8")
        write_text_attribute(file, "map_shape", json.dumps(list(places.map_shape)))
        write_text_attribute(file, "compression", places.compression)


def label_indices(class_names: Sequence[str]) -> dict[str | None, int]:
    """Return class name → index, and None → −1; raise CacheError if a name is empty or not unique."""
    if len(set(class_names)) < len(class_names) or "" in class_names:
        raise CacheError(f"Class names must be different and not empty. Received: {', '.join(map(repr, class_names))}.")
    return {None: -1, **{name: number for number, name in enumerate(class_names)}}


def _check_row(row: ImageRow, labels: Mapping[str | None, int]) -> None:
    """Raise CacheError if the description of a row cannot be stored."""
    ref = row.ref
    if ref.label not in labels:
        raise CacheError(f"{ref.path} has the label {ref.label!r}, which is not among the {len(labels) - 1} classes.")
    if len(row.sha256) != 64:
        raise CacheError(f"{ref.path}: a SHA-256 has 64 hexadecimal digits. Received: {row.sha256!r}.")
    for what, text in (("path", ref.path), ("split", ref.split), ("group", ref.group), ("note", ",".join(row.notes))):
        encode(text or "", what)


def ref_columns(refs: Sequence[ImageRef]) -> dict[str, Any]:
    """Return the columns of ``/rows`` that come from the scan."""
    columns = ImageRefs.of(refs)
    return {
        "path": texts(columns.paths, str, "path"),
        "split": tag_texts(columns, 1, "split"),
        "group": tag_texts(columns, 2, "group"),
        "size_bytes": columns.sizes,
        "mtime_ns": columns.times,
        "stamp": columns.stamps,
        "weight": columns.weights,
        "target": columns.targets,
    }


def tag_texts(refs: ImageRefs, place: int, what: str) -> Texts:
    """Return one part of each image's tag, encoded."""
    known = [encode(tag[place] or "", what) for tag in refs.tags]
    return lambda: map(known.__getitem__, refs.codes)


def _failure_columns(failures: Sequence[Failure]) -> dict[str, Any]:
    refs = [failure.ref for failure in failures]
    return {
        **ref_columns(refs),
        "label": texts(refs, lambda ref: ref.label, "label"),
        "reason": texts(failures, lambda failure: _storable(failure.reason), "reason"),
    }


def _storable(reason: str) -> str:
    return reason[:MAX_REASON_CHARACTERS].replace("\0", "\ufffd").encode("utf-8", "backslashreplace").decode()


def texts(items: Sequence[Any], get: Callable[[Any], str | None], what: str) -> Texts:
    """Return a text of each item, encoded; None becomes the empty string."""
    return lambda: (encode(get(item) or "", what) for item in items)


def _digest_array(digests: Sequence[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
