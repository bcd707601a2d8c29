"""Open a cache and read it, checked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from headstart.cache.format import FAILURE_NUMBERS, FAILURE_TEXTS, FORMAT, FORMAT_VERSION, NUMBERS, TEXTS, read_texts
from headstart.errors import CacheError
from headstart.schema import POOLED_LAYERS, Failure, FeatureBatch, ImageRef, Recipe

#: Identifier of zstd among HDF5's registered filters.
ZSTD_FILTER = "32015"

#: Rows looked at to tell how many values are zero.
SPARSITY_ROWS = 64


def open_cache(path: str | Path) -> FeatureCache:
    """Return a cache, open for reading and checked; use it in a ``with`` block.

    Raises
    ------
    CacheError
        If there is no such file, it is no cache, damaged, or of a newer version.

    Examples
    --------
    >>> with open_cache("features/data.h5") as cache:                                  # doctest: +SKIP
    ...     print(cache.n_images, cache.class_names)
    397 ('ants', 'bees')
    """
    path = Path(path)
    if not path.is_file():
        raise CacheError(f"There is no cache at {path}. Expected: a file that extract-features wrote.")
    with damage(path, "it cannot be opened"):
        file = h5py.File(path, "r", locking=False)
    try:
        return FeatureCache(path, file)
    except BaseException:
        file.close()
        raise


@contextmanager
def damage(path: Path, what: str) -> Iterator[None]:
    """Turn HDF5's errors into a CacheError that says what could not be read."""
    try:
        yield
    except CacheError:
        raise
    except (
        OSError,
        RuntimeError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CacheError(
            f"{path} is damaged or no feature cache: {what} ({detail}). Make it anew with extract-features --overwrite."
        ) from error


class Rows:
    """What a cache knows of its rows beside the features, column by column, read when it is asked for.

    Each column has one entry per row: texts are lists of str, numbers arrays of shape (n_images,).
    """

    def __init__(self, path: Path, group: h5py.Group) -> None:
        self._path, self._group = path, group

    def _read(self, name: str) -> NDArray[Any]:
        with damage(self._path, f"the column {name} cannot be read"):
            values: NDArray[Any] = self._group[name][()]
        return values

    @cached_property
    def path(self) -> list[str]:
        """Path, relative to the root of the scan."""
        return read_texts(self._read("path"))

    @cached_property
    def split(self) -> list[str]:
        """Split; empty where there is none."""
        return read_texts(self._read("split"))

    @cached_property
    def group(self) -> list[str]:
        """Group; empty where there is none."""
        return read_texts(self._read("group"))

    @cached_property
    def notes(self) -> list[tuple[str, ...]]:
        """What was done to the image."""
        return [tuple(text.split(",")) if text else () for text in read_texts(self._read("notes"))]

    @cached_property
    def sha256(self) -> list[str]:
        """Digest of the image's bytes, 64 hexadecimal digits."""
        return [row.tobytes().hex() for row in self._read("sha256")]

    @cached_property
    def label(self) -> NDArray[np.int32]:
        """Index into the class names, −1 where unlabelled; int32."""
        return self._read("label")

    @cached_property
    def size_bytes(self) -> NDArray[np.int64]:
        """Size of the image's file; int64."""
        return self._read("size_bytes")

    @cached_property
    def mtime_ns(self) -> NDArray[np.int64]:
        """Time of its last change; int64."""
        return self._read("mtime_ns")

    @cached_property
    def width_px(self) -> NDArray[np.int32]:
        """Width of the image as it is seen; int32."""
        return self._read("width_px")

    @cached_property
    def height_px(self) -> NDArray[np.int32]:
        """Height of the image as it is seen; int32."""
        return self._read("height_px")


class FeatureCache:
    """A feature cache, open for reading.

    Attributes
    ----------
    path : Path
        The file.
    recipe : Recipe
        What the features are made by.
    class_names : tuple of str
        Names that the labels index.
    n_images : int
        Rows.
    map_shape : tuple of int
        Height, width and channels of a row of ``features``.
    layout, created : str
        How the input was laid out, and when the file was written (ISO 8601, UTC).
    compression : str
        ``zstd``, ``gzip`` or ``none``.
    info, versions : dict
        Provenance, and the versions of what made the file.
    rows : Rows
        The columns beside the features.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path, self._file = path, file
        with damage(path, "its head cannot be read"):
            self._read_head()
        self.rows = Rows(path, file["rows"])

    def _read_head(self) -> None:
        attributes, file = self._file.attrs, self._file
        if attributes.get("format") != FORMAT:
            raise CacheError(f"{self.path} is no feature cache. Expected: a file that extract-features wrote.")
        version = int(attributes["format_version"])
        if version > FORMAT_VERSION:
            raise CacheError(
                f"{self.path} has format version {version}; this program reads up to {FORMAT_VERSION}. Update it."
            )
        self.recipe = Recipe.from_json(attributes["recipe"])
        if self.recipe.fingerprint != attributes["recipe_fingerprint"]:
            raise CacheError(f"{self.path} is damaged: its recipe does not have the fingerprint that stands beside it.")
        self.n_images, self.n_failures = int(attributes["n_images"]), int(attributes["n_failures"])
        self.layout, self.created = str(attributes["layout"]), str(attributes["created"])
        self.info: dict[str, str] = json.loads(attributes["info"])
        self.versions: dict[str, str] = json.loads(attributes["versions"])
        self.map_shape: tuple[int, ...] = (0, 0, 0)
        self.compression = "zstd"
        if self.n_images:
            self._check_features(file)
        for name in (*TEXTS, *NUMBERS, "sha256"):
            self._check(name, file["rows"][name], self.n_images)
        for name in (*FAILURE_TEXTS, *FAILURE_NUMBERS):
            self._check(name, file["failures"][name], self.n_failures)
        self.class_names = tuple(read_texts(file["class_names"][()]))

    def _check_features(self, file: h5py.File) -> None:
        features, pooled = file["features"], file["pooled"]
        self._check("features", features, self.n_images)
        self._check("pooled", pooled, self.n_images)
        n_pooled = sum(width for name, width in POOLED_LAYERS if name in self.recipe.pooled_layers)
        stored = {"float16": np.float16, "float32": np.float32}[self.recipe.storage]
        if (
            features.ndim != 4
            or features.dtype != stored
            or pooled.shape[1:] != (n_pooled,)
            or pooled.dtype != np.float32
        ):
            raise CacheError(
                f"{self.path} is damaged: its features are not of the shape and type that its recipe says."
            )
        self.map_shape = tuple(features.shape[1:])
        filters = features.id.get_create_plist()
        names = [filters.get_filter(i)[0] for i in range(filters.get_nfilters())]
        self.compression = (
            "zstd" if int(ZSTD_FILTER) in names else "gzip" if h5py.h5z.FILTER_DEFLATE in names else "none"
        )

    def _check(self, name: str, dataset: Any, n_rows: int) -> None:
        if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external or dataset.dtype.hasobject:
            raise CacheError(f"{self.path} is damaged or hostile: {name} is not a plain dataset of this file.")
        if len(dataset) != n_rows:
            raise CacheError(f"{self.path} is damaged: {name} has {len(dataset)} rows where {n_rows} were announced.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def labels(self) -> NDArray[np.int64]:
        """Index into ``class_names`` per row, −1 where unlabelled, int64."""
        labels = self.rows.label.astype(np.int64)
        if len(labels) and not -1 <= labels.min() <= labels.max() < len(self.class_names):
            raise CacheError(f"{self.path} is damaged: a label lies outside of its {len(self.class_names)} classes.")
        return labels

    @property
    def paths(self) -> list[str]:
        """Path per row, relative to the root of the scan."""
        return self.rows.path

    @property
    def splits(self) -> list[str]:
        """Split per row; empty where there is none."""
        return self.rows.split

    @property
    def groups(self) -> list[str]:
        """Group per row; empty where there is none."""
        return self.rows.group

    @property
    def sha256(self) -> list[str]:
        """Digest of the image's bytes per row."""
        return self.rows.sha256

    @property
    def notes(self) -> list[tuple[str, ...]]:
        """What was done to each image."""
        return self.rows.notes

    @cached_property
    def failures(self) -> tuple[Failure, ...]:
        """Images that could not be read, and why."""
        with damage(self.path, "its failures cannot be read"):
            group = self._file["failures"]
            texts = [read_texts(group[name][()]) for name in FAILURE_TEXTS]
            numbers = [group[name][()].tolist() for name in FAILURE_NUMBERS]
        return tuple(
            Failure(ImageRef(path, label or None, split or None, of or None, size, mtime), reason)
            for path, label, split, of, reason, size, mtime in zip(*texts, *numbers, strict=True)
        )

    def refs(self) -> list[ImageRef]:
        """Return what the scan said of each row."""
        rows, names = self.rows, (*self.class_names, None)
        numbers = zip(self.labels.tolist(), rows.size_bytes.tolist(), rows.mtime_ns.tolist(), strict=True)
        return [
            ImageRef(path, names[label], split or None, group or None, size, mtime)
            for path, split, group, (label, size, mtime) in zip(rows.path, rows.split, rows.group, numbers, strict=True)
        ]

    def batches(
        self, rows: Sequence[int] | NDArray[np.integer[Any]] | None = None, batch_rows: int = 256
    ) -> Iterator[FeatureBatch]:
        """Yield the features of some rows, in the order asked for; all rows by default.

        Raises
        ------
        CacheError
            If a row is damaged; its checksum tells.
        """
        wanted = np.arange(self.n_images) if rows is None else np.asarray(rows, np.int64)
        for start in range(0, len(wanted), batch_rows):
            chunk = wanted[start : start + batch_rows]
            order, inverse = np.unique(chunk, return_inverse=True)
            features, pooled = (self._read_rows(name, order)[inverse] for name in ("features", "pooled"))
            yield FeatureBatch(features, pooled)

    def _read_rows(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        dataset = self._file[name]
        # Run by run: h5py's own selection of scattered rows is some ten times slower.
        runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
        with damage(self.path, f"{name} of the rows {rows[0]}–{rows[-1]} cannot be read"):
            return np.concatenate([dataset[int(run[0]) : int(run[-1]) + 1] for run in runs])

    def read_chunk(self, name: str, row: int) -> tuple[int, bytes]:
        """Return filter mask and bytes of one row of ``features`` or ``pooled`` as they lie on the disk."""
        dataset = self._file[name]
        with damage(self.path, f"{name} of row {row} cannot be read"):
            mask, data = dataset.id.read_direct_chunk((row,) + (0,) * (dataset.ndim - 1))
        return mask, data

    @property
    def feature_values(self) -> int:
        """Values in a row of ``features``."""
        return int(np.prod(self.map_shape))

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size

    def sparsity(self) -> float:
        """Return the share of zeros among the features of some rows, spread over the file."""
        rows = np.unique(np.linspace(0, max(self.n_images - 1, 0), SPARSITY_ROWS).astype(np.int64))
        return float(np.mean([np.mean(batch.features == 0) for batch in self.batches(rows)])) if self.n_images else 0.0
