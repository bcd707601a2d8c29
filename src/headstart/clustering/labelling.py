"""Files in which a user labels clusters, and class folders of the labelled images."""

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
