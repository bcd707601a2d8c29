"""The folder in which a person labels clusters, and class folders made of labelled images."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any

from headstart.clustering.kmeans import Clustering
from headstart.errors import DataError
from headstart.images.discovery.table_rows import read_rows
from headstart.quality.quality_report import make_thumbnails
from headstart.report.html_pages import pictures, render_page
from headstart.texts import class_name, csv_cell, plain_cell, reason_of

#: One row for each cluster; ``label`` is empty, to be filled in.
NAMES, NAMES_COLUMNS = "names.csv", ("cluster", "n_images", "label")

#: One row for each image; a ``label`` here counts for more than that of the cluster.
IMAGES, IMAGES_COLUMNS = "images.csv", ("path", "cluster", "distance", "label")

#: The page of thumbnails.
PAGE = "clusters.html"

#: Thumbnails of a cluster: those nearest to its centre, and those farthest from it.
NEAREST, FARTHEST = 24, 8


def write_clusters(folder: Path, clustering: Clustering, *, title: str, data: Path | None = None) -> tuple[Path, ...]:
    """Write what a person labels the clusters with, and return the files: two CSV files and, given ``data``, a page.

    Parameters
    ----------
    folder : Path
        Is created; must not hold labels already.
    clustering : Clustering
        Of the images of a cache.
    title : str
        What the page is headed with.
    data : Path, optional
        The folder of images, for thumbnails; without it there is no page.

    Raises
    ------
    DataError
        If the folder holds a ``names.csv`` or cannot be written, or none of the images is in ``data``.
    """
    if (folder / NAMES).exists():
        raise DataError(f"{folder / NAMES} exists, and may hold your labels. Name another folder, or remove it.")
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
    """Return a page of HTML with thumbnails of every cluster."""
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
            f"None of the images is in {data} as it was. Name the folder that the features were extracted from."
        )
    picture = pictures(thumbnails)
    return render_page("clusters", title=title, clusters=shown, paths=clustering.paths, picture=picture)


def _write_rows(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a CSV file; bytes of paths that are not UTF-8 are written as they are."""
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([columns, *(map(csv_cell, row) for row in rows)])


def read_labels(folder: Path) -> dict[str, str]:
    """Return path → label of the images that have one, their own or that of their cluster.

    Raises
    ------
    DataError
        If a file is missing or has other columns, a cluster is unknown, something has two labels, or nothing has one.
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
    """Note a label; raise DataError where there is another one of that name."""
    if labels.setdefault(name, label) != label:
        raise DataError(f"{table} names {name} twice, as {labels[name]!r} and as {label!r}. Keep one row.")


def read_table(path: Path, columns: Sequence[str]) -> Iterator[Mapping[str, str]]:
    """Yield the rows of a CSV file, as a spreadsheet may have saved it."""
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


def _silent(_: int) -> None:
    """Count nothing."""


def make_class_folders(
    labels: Mapping[str, str], data: Path, output: Path, *, advance: Callable[[int], None] = _silent
) -> dict[str, int]:
    """Copy labelled images into a folder for each class, and return class → number of images.

    An image keeps its path below the folder of its class. The originals stay; the new folder appears whole or not at all.

    Parameters
    ----------
    labels : mapping of str to str
        Path, relative to ``data``, → class.
    data : Path
        The folder of images.
    output : Path
        Must not exist, or be empty.
    advance : callable
        Told how many more images are copied.

    Raises
    ------
    DataError
        If ``output`` holds something or lies in ``data``, a class cannot be the name of a folder, a path leads out of
        ``data`` or to no file, or something cannot be copied.
    """
    _check_target(data, output)
    for label in sorted(set(labels.values())):
        _check_label(label)
    missing = [path for path in labels if not _is_inside(path) or not (data / path).is_file()]
    if missing:
        raise DataError(
            f"{len(missing):,} of {len(labels):,} images are not in {data}, as {missing[0]!r}. Name the folder that the "
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
    """Raise DataError unless the output is a new or an empty folder outside the images' own."""
    if not data.is_dir():
        raise DataError(f"There is no folder {data}. Expected: the one that the features were extracted from.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output} exists and is not empty. Name a new folder; nothing was copied.")
    if output.resolve().is_relative_to(data.resolve()):
        raise DataError(
            f"{output} lies in {data}, where the copies would be taken for images of it. Name another folder."
        )


def _check_label(label: str) -> None:
    """Raise DataError where a class cannot be the name of a folder on every system."""
    if label.startswith(".") or label.endswith(".") or any(c in '/\\:*?"<>|' or ord(c) < 32 for c in label):
        raise DataError(
            f'The class {label!r} cannot be the name of a folder. Expected: a name without / \\ : * ? " < > | and without a '
            "full stop at either end."
        )


def _is_inside(path: str) -> bool:
    """Return whether a relative path stays in its folder."""
    pure = PurePosixPath(path)
    return not (pure.is_absolute() or ".." in pure.parts or os.path.isabs(path) or "\0" in path)  # noqa: PTH117
