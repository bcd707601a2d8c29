"""Write one file of features, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np

from headstart.cache.format import (
    FAILURE_NUMBERS,
    FAILURE_TEXTS,
    NUMBERS,
    atomic_file,
    create_features,
    write_attributes,
    write_column,
    write_texts,
)
from headstart.errors import CacheError
from headstart.schema import Failure, FeatureBatch, ImageRow, Recipe


class ShardWriter:
    """Writes rows as they come, and publishes the file when the block ends without an error.

    Memory does not grow with the rows, save for what a row knows beside its features.

    Parameters
    ----------
    path : Path
        The file; it appears when it is complete.
    recipe : Recipe
        What the features are made by; its storage type is the file's.
    class_names : sequence of str
        Names that the labels index.
    compression : str
        ``zstd``, ``gzip`` or ``none``.
    layout : str
        How the input was laid out.
    info : mapping of str to str, optional
        Provenance to keep in the file.
    """

    def __init__(
        self,
        path: Path,
        *,
        recipe: Recipe,
        class_names: Sequence[str],
        compression: str = "zstd",
        layout: str = "shard",
        info: Mapping[str, str] | None = None,
    ) -> None:
        self.path, self.recipe, self.class_names = path, recipe, tuple(class_names)
        self.compression, self.layout, self.info = compression, layout, dict(info or {})
        self._rows: list[ImageRow] = []
        self._failures: list[Failure] = []

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._file = self._stack.enter_context(atomic_file(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                write_metadata(self._file, self._rows, self._failures, self.class_names)
                write_attributes(
                    self._file,
                    recipe=self.recipe,
                    layout=self.layout,
                    n_images=len(self._rows),
                    n_failures=len(self._failures),
                    info=self.info,
                )
        except BaseException as own:
            self._stack.__exit__(type(own), own, own.__traceback__)
            raise
        self._stack.__exit__(kind, error, traceback)

    def append(self, batch: FeatureBatch, rows: Sequence[ImageRow]) -> None:
        """Write features and everything else of some images.

        Raises
        ------
        CacheError
            If a feature is not finite in the storage type; the message names the image. Nothing of the batch is kept.
        """
        if not len(batch) == len(batch.pooled) == len(rows):
            raise CacheError(
                f"{len(batch)} features, {len(batch.pooled)} averages and {len(rows)} images do not fit together."
            )
        with np.errstate(over="ignore"):
            features = batch.features.astype({"float16": "<f2", "float32": "<f4"}[self.recipe.storage])
        for row, values, pooled in zip(rows, features, batch.pooled, strict=True):
            if not (np.isfinite(values).all() and np.isfinite(pooled).all()):
                raise CacheError(
                    f"The features of {row.ref.path} are not finite in {self.recipe.storage}. "
                    "Use --storage float32; if they are not finite there either, the weights or the device are at fault."
                )
        if "features" not in self._file:
            create_features(self._file, features.shape[1:], self.recipe, self.compression)
        start = len(self._rows)
        for name, values in (("features", features), ("pooled", batch.pooled)):
            dataset = self._file[name]
            dataset.resize(start + len(rows), axis=0)
            dataset[start:] = values
        self._rows += rows

    def add_failure(self, failure: Failure) -> None:
        """List an image that could not be read."""
        self._failures.append(failure)


def write_metadata(
    file: h5py.File, rows: Sequence[ImageRow], failures: Sequence[Failure], class_names: Sequence[str]
) -> None:
    """Write everything but features and attributes."""
    index = {name: number for number, name in enumerate(class_names)}
    write_texts(file, "class_names", class_names)
    group = file.create_group("rows")
    write_texts(group, "path", [row.ref.path for row in rows])
    write_texts(group, "split", [row.ref.split or "" for row in rows])
    write_texts(group, "group", [row.ref.group or "" for row in rows])
    write_texts(group, "notes", [",".join(row.notes) for row in rows])
    digests = np.frombuffer(bytes.fromhex("".join(row.sha256 for row in rows)), np.uint8).reshape(len(rows), 32)
    write_column(group, "sha256", digests)
    numbers = {
        "label": [-1 if row.ref.label is None else index[row.ref.label] for row in rows],
        "size_bytes": [row.ref.size_bytes for row in rows],
        "mtime_ns": [row.ref.mtime_ns for row in rows],
        "width_px": [row.width_px for row in rows],
        "height_px": [row.height_px for row in rows],
    }
    for name, dtype in NUMBERS.items():
        write_column(group, name, np.array(numbers[name], dtype))
    write_failures(file, failures)


def write_failures(file: h5py.File, failures: Sequence[Failure]) -> None:
    """Write the images that could not be read."""
    group = file.create_group("failures")
    for name in FAILURE_TEXTS:
        texts = [failure.reason if name == "reason" else getattr(failure.ref, name) or "" for failure in failures]
        write_texts(group, name, texts)
    for name, dtype in FAILURE_NUMBERS.items():
        write_column(group, name, np.array([getattr(failure.ref, name) for failure in failures], dtype))
