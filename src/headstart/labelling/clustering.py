"""Clusters of unlabelled images by k-means, files in which a user labels them, and class folders of the labelled images."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.reader import FeatureCache, open_cache
from headstart.errors import DataError
from headstart.evaluate.quality_report import make_thumbnails, sampled_rows
from headstart.evaluate.random_crops import refuse_crops
from headstart.heads.transforms import design_matrix, make_scaler
from headstart.images.discovery.csv_tables import read_rows
from headstart.images.samples import DEFAULT_RULES, DecodeRules
from headstart.report.html_pages import pictures, render_page
from headstart.storage.bucket import Location
from headstart.texts import class_name, counted, csv_cell, plain_cell, reason_of

#: Principal components that are clustered. 16 to 64 agreed about equally with the true classes of photographs of flowers and
#: insects, 8 less (benchmarks/clusters.py).
N_COMPONENTS = 32

#: Each component is divided by its variance to this power: 0 is plain PCA, 0.5 whitening. Only 0.25 was good for both 2 and
#: 17 classes (benchmarks/clusters.py).
WHITENING = 0.25

#: Largest random sample for principal components, silhouettes and the number of clusters.
MAX_SAMPLE = 5_000

#: Rows from which on k-means uses mini-batches (Sculley, WWW 2010).
MINI_BATCH_ROWS = 20_000

#: Initializations of k-means; fewer while the number of clusters is searched.
N_INIT, N_INIT_SEARCH = 10, 3

#: Rows read from the cache at a time.
BLOCK_ROWS = 4_096


@dataclass(frozen=True, slots=True)
class Clustering:
    """The cluster of each image of a cache."""

    paths: Sequence[str]  # path and digest of each image
    sha256: Sequence[str]
    #: Cluster of each image, shape (n_images,), from 0, the largest cluster first; −1 if its features are not finite
    labels: NDArray[np.int64]
    distances: NDArray[np.float32]  # to the centre of the cluster, shape (n_images,); NaN without a cluster
    #: Number of clusters tried → mean silhouette coefficient, −1 to 1 (Rousseeuw, Journal of Computational and Applied
    #: Mathematics 20, 1987)
    silhouettes: Mapping[int, float] = field(default_factory=dict)
    rules: DecodeRules = DEFAULT_RULES  # how the images were decoded, for thumbnails

    @property
    def n_clusters(self) -> int:
        """Clusters of the best silhouette."""
        return int(self.labels.max()) + 1

    def members(self, cluster: int) -> NDArray[np.intp]:
        """Return the rows of a cluster, the nearest to its centre first."""
        rows = np.flatnonzero(self.labels == cluster)
        return rows[np.argsort(self.distances[rows], kind="stable")]


def cluster_images(
    cache: str | Location,
    n_clusters: int | tuple[int, int] = (2, 30),
    *,
    features: Sequence[str] = ("avg",),
    scaling: str = "sqrt-l2",
    random_state: int = 0,
) -> Clustering:
    """Cluster the images of a cache by k-means; existing labels are not used.

    Parameters
    ----------
    cache : str, Path or Address
        A feature cache.
    n_clusters : int or tuple of int
        Number of clusters; or the smallest and largest number of a range, from which the one with the highest silhouette is
        chosen.
    features, scaling
        As in :class:`headstart.HeadSpec`.
    random_state : int
        Seeds the sample and the initializations.

    Raises
    ------
    CacheError, DataError
        If the cache cannot be read, there are fewer different images than clusters, or the range is invalid.

    Examples
    --------
    >>> found = cluster_images("features/loose.h5", 5)                                 # doctest: +SKIP
    >>> np.bincount(found.labels)                                                      # doctest: +SKIP
    array([31, 22, 20, 9, 4])
    """
    low, high = (n_clusters, n_clusters) if isinstance(n_clusters, int) else n_clusters
    if not 1 <= low <= high:
        raise DataError(f"Expected a number of clusters, or a range as 2 to 30. Received: {low} to {high}.")
    with open_cache(cache) as opened:
        refuse_crops(opened)
        X, rows = _projected(opened, features, scaling, random_state)
        paths, sha256, n_images, rules = opened.paths, opened.sha256, opened.n_images, DecodeRules.of(opened.recipe)
    n_different = len(np.unique(X, axis=0))
    if n_different < max(low, 2):
        fewer = " Ask for fewer (`n_clusters`)." if n_different > 1 else " They look the same to the network."
        raise DataError(
            f"{cache} has {counted(n_different, 'different image')}, too few for {max(low, 2):,} clusters.{fewer}"
        )
    sample = sampled_rows(len(X), MAX_SAMPLE, random_state)
    tried = range(low, min(high, max(low, n_different - 1)) + 1)
    silhouettes = {k: _silhouette(X[sample], k, random_state) for k in tried}
    best = max(silhouettes, key=lambda k: silhouettes[k])
    labels, distances = np.full(n_images, -1, np.int64), np.full(n_images, np.nan, np.float32)
    found, distances[rows] = fit(X, best, random_state)
    rank = np.empty(found.max() + 1, np.int64)  # clusters by size, the largest first
    rank[np.argsort(-np.bincount(found), kind="stable")] = np.arange(len(rank))
    labels[rows] = rank[found]
    return Clustering(paths, sha256, labels, distances, silhouettes, rules)


def _projected(
    cache: FeatureCache, features: Sequence[str], scaling: str, random_state: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return weighted principal components of unit length, and the rows of the cache that have finite features."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import normalize

    def matrix(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return design_matrix(cache.batches(rows), features, n_samples=len(rows))

    if cache.n_images < 2:
        raise DataError(f"{cache.path} has {counted(cache.n_images)}. Expected at least two to cluster.")
    first = _finite(matrix(sampled_rows(cache.n_images, MAX_SAMPLE, random_state)))
    scaler = make_scaler(scaling).fit(first)
    n_components = min(N_COMPONENTS, len(first) - 1, first.shape[1])
    with np.errstate(invalid="ignore"):  # explained_variance_ratio_ (unused) divides by 0 for equal images
        pca = PCA(n_components, svd_solver="randomized", random_state=random_state).fit(scaler.transform(first))
    weights = np.maximum(pca.explained_variance_, np.finfo(np.float32).tiny) ** -WHITENING
    parts, kept = [], []
    for start in range(0, cache.n_images, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, cache.n_images))
        block = matrix(rows)
        good = np.isfinite(block).all(axis=1)
        kept.append(rows[good])
        if good.any():
            parts.append(normalize(pca.transform(scaler.transform(block[good])) * weights))
    return np.concatenate(parts).astype(np.float32), np.concatenate(kept)


def _finite(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows without NaN or infinity; raise DataError for fewer than two."""
    rows = matrix[np.isfinite(matrix).all(axis=1)]
    if len(rows) < 2:
        raise DataError(f"{len(rows)} of {len(matrix)} images have finite features. Extract them again, in float32.")
    return rows


def fit(
    X: NDArray[np.float32], n_clusters: int, random_state: int, n_init: int = N_INIT
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the cluster of each row, and its distance to the cluster's centre."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    kind: Any = KMeans if len(X) < MINI_BATCH_ROWS else MiniBatchKMeans
    model = kind(n_clusters, n_init=n_init, random_state=random_state).fit(X)
    labels = model.labels_.astype(np.int64)
    return labels, np.linalg.norm(X - model.cluster_centers_[labels], axis=1).astype(np.float32)


def _silhouette(X: NDArray[np.float32], n_clusters: int, random_state: int) -> float:
    """Return the mean silhouette coefficient; 0 for one cluster and for single-row clusters, where it is undefined."""
    from sklearn.metrics import silhouette_score

    labels, _ = fit(X, n_clusters, random_state, N_INIT_SEARCH)
    return float(silhouette_score(X, labels)) if 1 < len(np.unique(labels)) < len(X) else 0.0


#: One row per cluster; ``label`` is to be filled in.
NAMES, NAMES_COLUMNS = "names.csv", ("cluster", "n_images", "label")

#: One row per image; a ``label`` here overrides that of the cluster.
IMAGES, IMAGES_COLUMNS = "images.csv", ("path", "cluster", "distance", "label")

#: The page of thumbnails.
PAGE = "clusters.html"

#: Thumbnails of a cluster: the nearest to its centre, and the farthest.
NEAREST, FARTHEST = 24, 8


def write_clusters(folder: Path, clustering: Clustering, *, title: str, data: Path | None = None) -> tuple[Path, ...]:
    """Write two CSV files in which the clusters can be labelled and, given ``data``, a page of thumbnails; return the files.

    ``data`` is the folder of images. Raises DataError if ``folder`` contains a ``names.csv`` or cannot be written, or if
    ``data`` has none of the images.
    """
    if (folder / NAMES).exists():
        raise DataError(f"{folder / NAMES} exists, and may contain your labels. Name another folder, or remove it.")
    page = _clusters_page(clustering, title, data) if data else ""
    members = [clustering.members(cluster) for cluster in range(clustering.n_clusters)]
    names = [(number, len(rows), "") for number, rows in enumerate(members)]
    images = [
        (clustering.paths[row], number, f"{clustering.distances[row]:.4f}", "")
        for number, rows in enumerate(members)
        for row in rows
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if page:
            (folder / PAGE).write_text(page, encoding="utf-8")
        _write_rows(folder / IMAGES, IMAGES_COLUMNS, images)
        _write_rows(folder / NAMES, NAMES_COLUMNS, names)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror}. Name another folder.") from error
    return tuple(folder / name for name in (PAGE, NAMES, IMAGES) if name != PAGE or page)


def _clusters_page(clustering: Clustering, title: str, data: Path) -> str:
    shown = []
    for cluster in range(clustering.n_clusters):
        rows = clustering.members(cluster).tolist()
        cut = len(rows) > NEAREST + FARTHEST
        nearest, farthest = (rows[:NEAREST], rows[-FARTHEST:]) if cut else (rows, [])
        shown.append({"number": cluster, "n_images": len(rows), "nearest": nearest, "farthest": farthest})
    wanted = {
        clustering.paths[row]: clustering.sha256[row] for one in shown for row in (*one["nearest"], *one["farthest"])
    }
    thumbnails = make_thumbnails(data, wanted, clustering.rules)
    if not thumbnails:
        raise DataError(
            f"{data} contains none of the images unchanged. Name the folder that the features were extracted from."
        )
    picture = pictures(thumbnails)
    return render_page("clusters", title=title, clusters=shown, paths=clustering.paths, picture=picture)


def _write_rows(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a CSV file; undecodable bytes of paths are kept."""
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([columns, *(map(csv_cell, row) for row in rows)])


def read_labels(folder: Path) -> dict[str, str]:
    """Return path → label of the labelled images; their own label, or that of their cluster.

    Raises DataError if a file is missing or has other columns, a cluster is unknown, labels contradict, or there are none.
    """
    names: dict[str, str] = {}
    for row in read_table(folder / NAMES, NAMES_COLUMNS):
        _add_label(names, row["cluster"], class_name(row["label"].strip()), folder / NAMES)
    labels: dict[str, str] = {}
    for row in read_table(folder / IMAGES, IMAGES_COLUMNS):
        if row["cluster"] not in names:
            raise DataError(f"{folder / NAMES} has no cluster {row['cluster']!r}, which {folder / IMAGES} names.")
        label = class_name(row["label"].strip()) or names[row["cluster"]]
        if label:
            _add_label(labels, row["path"], label, folder / IMAGES)
    if not labels:
        raise DataError(f"Nothing is labelled yet. Fill in the column label of {folder / NAMES}.")
    return labels


def _add_label(labels: dict[str, str], name: str, label: str, table: Path) -> None:
    """Add a label; raise DataError if there is a different one."""
    if labels.setdefault(name, label) != label:
        raise DataError(f"{table} names {name} twice, as {labels[name]!r} and as {label!r}. Keep one row.")


def read_table(path: Path, columns: Sequence[str]) -> Iterator[Mapping[str, str]]:
    """Yield the rows of a CSV file, in any form in which a spreadsheet saves it."""
    rows = read_rows(path)
    received = next(rows, (0, []))[1]
    if [name.strip().lower() for name in received] != list(columns):
        raise DataError(f"{path} should have the columns {', '.join(columns)}. Received: {', '.join(received)}.")
    for number, cells in rows:
        if any(map(str.strip, cells[len(columns) :])):
            raise DataError(
                f"{path}, line {number}: more cells than columns. A value with the separator in it needs quotes."
            )
        yield dict(zip_longest(columns, map(plain_cell, cells[: len(columns)]), fillvalue=""))


def make_class_folders(
    labels: Mapping[str, str], data: Path, output: Path, *, advance: Callable[[int], None] = lambda _: None
) -> dict[str, int]:
    """Copy labelled images into a folder per class, and return class → number of images.

    An image keeps its path below the class folder. The originals stay; the new folder appears whole or not at all.

    Parameters
    ----------
    labels : mapping of str to str
        Path, relative to ``data``, → class.
    data, output : Path
        The folder of images, and a new or empty folder.
    advance : callable
        Called with the number of images copied since the last call.

    Raises
    ------
    DataError
        If ``output`` is not empty or lies in ``data``, a class is not a valid folder name, an image is missing, or copying
        fails.
    """
    _check_target(data, output)
    for label in sorted(set(labels.values())):
        _check_label(label)
    missing = [path for path in labels if not _is_inside(path) or not (data / path).is_file()]
    if missing:
        raise DataError(
            f"{len(missing):,} of {len(labels):,} images are not in {data}, e.g. {missing[0]!r}. Name the folder that the "
            "features were extracted from."
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as partial:
            whole = Path(partial) / "whole"
            for path, label in labels.items():
                target = whole / label / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(data / path, target)
                advance(1)
            if output.exists():
                output.rmdir()
            whole.rename(output)
    except OSError as error:
        raise DataError(f"The images cannot be copied to {output}: {reason_of(error)} ({error.filename}).") from error
    return dict(sorted(Counter(labels.values()).items()))


def _check_target(data: Path, output: Path) -> None:
    """Raise DataError unless the output is a new or empty folder outside the images' own."""
    if not data.is_dir():
        raise DataError(f"There is no folder {data}. Expected: the one that the features were extracted from.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output} exists and is not empty. Name a new folder; nothing was copied.")
    if output.resolve().is_relative_to(data.resolve()):
        raise DataError(
            f"{output} lies in {data}, where the copies would count as further images. Name another folder."
        )


def _check_label(label: str) -> None:
    """Raise DataError for a class that is not a valid folder name on every system."""
    if label.startswith(".") or label.endswith(".") or any(c in '/\\:*?"<>|' or ord(c) < 32 for c in label):
        raise DataError(
            f'The class {label!r} cannot be the name of a folder. Expected: a name without / \\ : * ? " < > | and without '
            "a full stop at either end."
        )


def _is_inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return not (pure.is_absolute() or ".." in pure.parts or os.path.isabs(path) or "\0" in path)  # noqa: PTH117
