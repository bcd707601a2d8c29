"""Manifests: CSV files with the columns path, label and optionally split, group, weight and target."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headstart.errors import DataError
from headstart.images.discovery.classes_and_splits import named, split_of
from headstart.images.discovery.csv_tables import TABLE_SUFFIXES, file_named, forms, located, missing_files, read_rows
from headstart.images.formats import IMAGE_SUFFIXES, suffix_of
from headstart.storage import bucket
from headstart.storage.bucket import Address, Location
from headstart.texts import class_name, counted, plain_cell
from headstart.types import SPLITS, ImageRef, is_weight

#: Column → other names for it, e.g. ``file_name`` in Hugging Face's image folders
#: (https://huggingface.co/docs/datasets/image_dataset#imagefolder); without case, spaces, ``_`` and ``-``.
COLUMNS = {
    "path": (
        "paths", "filename", "filenames", "file", "files", "filepath", "filepaths", "image", "images", "imagepath",
        "imgpath", "imagefile", "imagename", "img", "imgname", "fname", "imageid",
    ),
    "label": ("labels", "class", "classname", "category", "target", "labelname"),
    "split": ("splits", "set", "subset", "partition"),
    "group": ("groups", "groupid"),
    "weight": ("weights", "sampleweight", "sampleweights"),
    "target": (),
}  # fmt: skip

#: Required column → its values, for messages.
CONTENTS = {"path": "paths", "label": "classes"}


def read_manifest(manifest: Location, root: Location) -> tuple[list[ImageRef], list[str]]:
    """Return the images in a manifest, in its order, and notices about the manifest.

    Columns are found by their names or other usual names (:data:`COLUMNS`); others are ignored. An empty label means
    unlabelled, an empty split, group or target none, an empty weight 1. A column ``target`` holds numbers to predict; beside
    no other column of labels, it holds the labels too, unless its numbers have fractions, and alone if it holds words. Paths
    are relative to ``root``, or absolute and below it; links are followed. Bytes that are not UTF-8 are allowed in paths
    only.

    Raises DataError if a column or a file is missing, an image is named twice with different labels, a path leads out of
    ``root``, a split is unknown, a weight is no number from 0, a target is a
    word among numbers, or a label is not UTF-8.
    """
    rows = read_rows(manifest)
    header = next(rows, (0, []))[1]
    columns = _columns_of(manifest, header, ("path", "label"))
    reader = RefReader(manifest, root, len(header), columns)
    seen: dict[str, ImageRef] = {}
    n_again, contradictions = 0, []
    for number, cells in rows:
        ref = reader.ref(number, cells)
        first = seen.setdefault(ref.path, ref)
        n_again += first is not ref
        if _description(first) != _description(ref):
            contradictions.append(
                f"line {number}: {ref.path} is named twice, as {_described(first)} and as {_described(ref)}"
            )
    refs, numeric = _with_targets(list(seen.values()), reader)
    if not refs:
        raise DataError(f"{manifest} names no images.")
    if isinstance(root, Address):
        refs = _listed_refs(root, refs)
    missing = [ref.path for ref in refs if ref.size_bytes < 0]
    if missing:
        raise DataError(missing_files(manifest, root, missing))
    if contradictions:
        more = f" {counted(len(contradictions) - 1, 'more row')} like it." if len(contradictions) > 1 else ""
        raise DataError(f"{manifest}, {contradictions[0]}.{more} Keep one row for each image.")
    again = [f"{manifest} names images again in {counted(n_again, 'row')}, with the same label: each is taken once."]
    return refs, [*_notices_of(manifest, header, columns, numeric=numeric), *(again if n_again else [])]


def _with_targets(refs: list[ImageRef], reader: RefReader) -> tuple[list[ImageRef], bool]:
    """Return the images with what their column ``target`` means, and whether it holds numbers to predict.

    Raises DataError if words are among its numbers, beside a column of labels.
    """
    if not any(ref.target is not None for ref in refs):
        return refs, False
    is_label = reader.columns.get("label") == reader.columns["target"]
    if reader.not_a_number and is_label:
        return [replace(ref, target=None) for ref in refs], False
    if reader.not_a_number:
        raise DataError(
            f"{reader.manifest}, {reader.not_a_number}. Expected: a finite number to predict, with a decimal point, e.g. "
            "0.5; or nothing, for none. Call the column otherwise if it holds something else."
        )
    if is_label and not all(ref.target is None or ref.target.is_integer() for ref in refs):
        return [replace(ref, label=None) for ref in refs], True
    return refs, True


def _description(ref: ImageRef) -> tuple[Any, ...]:
    return ref.label, ref.split, ref.group, ref.weight, ref.target


def _listed_refs(root: Address, refs: Sequence[ImageRef]) -> list[ImageRef]:
    """Return the images with size and time from one listing of their common folder: a request per thousand objects."""
    wanted = {form for ref in refs for form in forms(ref.path)}
    common = os.path.commonpath([os.path.dirname(path) for path in wanted]) if refs else ""  # noqa: PTH120
    folder = root / common if common else root
    found: dict[str, tuple[int, int]] = {}
    for entry in bucket.entries(folder):
        path = f"{common}/{entry.path}" if common else entry.path
        if path in wanted:
            found[path] = entry.size_bytes, entry.changed_ns
    paths = [next((form for form in forms(ref.path) if form in found), ref.path) for ref in refs]
    states = (found.get(path, (-1, 0)) for path in paths)
    return [
        replace(ref, path=path, size_bytes=size, mtime_ns=time)
        for ref, path, (size, time) in zip(refs, paths, states, strict=True)
    ]


def _described(ref: ImageRef) -> str:
    weight = "" if ref.weight == 1 else f"weight {ref.weight:g}"
    target = "" if ref.target is None else f"target {ref.target:g}"
    words = (ref.label or "unlabelled", ref.split, ref.group and f"group {ref.group}", weight, target)
    return ", ".join(filter(None, words))


def read_paths(table: Path) -> list[Path]:
    """Return the files that a table or a plain list names, relative to its own folder or absolute, in its order.

    Only the path column of a table is used; a list has one path a line. Missing columns, paths and files raise DataError.
    """
    rows = list(read_rows(table))
    header = rows[0][1] if rows else [""]
    columns = _columns_of(table, header, () if len(header) == 1 else ("path",))
    place = columns.get("path", 0)
    paths = [cells[place] for _, cells in rows["path" in columns :] if place < len(cells)]
    if not paths:
        raise DataError(f"{table} names no images.")
    found = {path: file_named(table.parent, path) for path in paths}
    missing = [path for path, file in found.items() if file is None]
    if missing:
        raise DataError(missing_files(table, table.parent, missing))
    return [file for file in found.values() if file is not None]


@dataclass(slots=True)
class RefReader:
    """Converts the rows of a manifest to images."""

    manifest: Location
    root: Location  # the folder that the paths are relative to
    width: int  # number of columns
    columns: Mapping[str, int]  # name → position
    #: Cell → normalised label; a million rows have few different ones.
    labels: dict[str, str] = field(default_factory=dict)
    not_a_number: str = ""  # the first cell of the column ``target`` that holds something else, in words

    def ref(self, number: int, cells: list[str]) -> ImageRef:
        """Return the image of a row; its size is −1 if the file is missing."""
        if len(cells) != self.width and (len(cells) < self.width or any(map(str.strip, cells[self.width :]))):
            what = "An empty cell needs its" if len(cells) < self.width else "A value needs quotes if it contains a"
            raise DataError(
                f"{self.manifest}, line {number}: {counted(len(cells), 'cell')}, but {self.width} columns. "
                f"{what} separator."
            )
        given = cells[self.columns["path"]]
        if not given.strip():
            raise DataError(f"{self.manifest}, line {number}: the path is empty.")
        path, state = located(self.root, given)
        if path is None:
            raise DataError(
                f"{self.manifest}, line {number}: {given} leads out of {self.root}. Give a folder that contains all "
                f"images as the data, and `manifest={self.manifest}`."
            )
        split = self.name("split", number, cells)
        if split is not None and split_of(split) is None:
            raise DataError(
                f"{self.manifest}, line {number}: unknown split {split!r}. Expected one of: {', '.join(SPLITS)}."
            )
        label, group = self.name("label", number, cells), self.name("group", number, cells)
        weight = self.weight(number, cells)
        target = self.target(number, cells)
        return ImageRef(path, label, split_of(split) if split else None, group, *state, weight=weight, target=target)

    def weight(self, number: int, cells: Sequence[str]) -> float:
        """Return the weight in a row; 1 if the cell is empty or the column is missing."""
        given = plain_cell(cells[self.columns["weight"]].strip()) if "weight" in self.columns else ""
        try:
            weight = float(given or 1)
        except ValueError:
            weight = math.nan
        if not is_weight(weight):
            raise DataError(
                f"{self.manifest}, line {number}: the weight is {given!r}. Expected: a finite number, 0 or more, with a "
                "decimal point, e.g. 0.5; or nothing, for 1."
            )
        return weight

    def target(self, number: int, cells: Sequence[str]) -> float | None:
        """Return the number to predict in a row; None if the cell is empty or holds none, or the column is missing."""
        given = plain_cell(cells[self.columns["target"]].strip()) if "target" in self.columns else ""
        if not given:
            return None
        with suppress(ValueError):
            if math.isfinite(target := float(given)):
                return target
        self.not_a_number = self.not_a_number or f"line {number}: the target is {given!r}"
        return None

    def name(self, column: str, number: int, cells: Sequence[str]) -> str | None:
        """Return the normalised text of a cell; None if it is empty or the column is missing."""
        if column not in self.columns:
            return None
        given = cells[self.columns[column]]
        if given not in self.labels:
            if any("\udc80" <= char <= "\udcff" for char in given):
                raise DataError(
                    f"{self.manifest}, line {number}: the {column} is not UTF-8. Save the file as “CSV UTF-8”."
                )
            self.labels[given] = class_name(plain_cell(given.strip()))
        return self.labels[given] or None


def _columns_of(manifest: Location, header: Sequence[str], needed: Sequence[str]) -> dict[str, int]:
    """Return the positions of the columns; raise DataError if a required one is missing, or two may be the same."""
    names = [_column_name(cell) for cell in header]
    found: dict[str, int] = {}
    for column, others in COLUMNS.items():
        places = [i for i, name in enumerate(names) if name == column]
        places = places or [i for i, name in enumerate(names) if name in others]
        if column == "label" and len(places) > 1:
            places = [i for i in places if names[i] != "target"]
        if len(places) > 1:
            raise DataError(
                f"{manifest} has several columns that may be the {column}: {', '.join(header[i].strip() for i in places)}. "
                f"Call one of them {column}, and rename the others."
            )
        if places:
            found[column] = places[0]
    if not set(needed) <= set(found):
        optional = "and optionally split, group, weight and target"
        wanted = f"the columns path and label, {optional}" if len(needed) > 1 else "the column path"
        raise DataError(
            f"{manifest} needs a first line with {wanted}. "
            f"Received: {', '.join(cell.strip() for cell in header) or 'nothing'}.{_how_to_name(header, needed, found)}"
        )
    return found


def _how_to_name(header: Sequence[str], needed: Sequence[str], found: Mapping[str, int]) -> str:
    """Return advice on the names of the columns if a required one is missing."""
    if _is_row(header):
        return " The first line seems to be a row already: put the names above it."
    if len(header) == 1 and " " in header[0].strip():
        return " Columns are separated by commas, semicolons, tabs or bars."
    missing = [name for name in needed if name not in found]
    if not found or not missing:
        return ""
    one_hot = (
        "; where each class has a column of its own, put the names of the classes into one" if len(header) > 2 else ""
    )
    return f' Call the column of the {CONTENTS[missing[0]]} "{missing[0]}"{one_hot if missing[0] == "label" else ""}.'


def _column_name(cell: str) -> str:
    """Return a column's name without quotes, case, spaces, ``_`` and ``-``."""
    return re.sub(r"[\s_-]", "", cell.strip().strip("'\"").casefold())


def _is_row(header: Sequence[str]) -> bool:
    return any(suffix_of(cell.strip()) in IMAGE_SUFFIXES for cell in header)


def _notices_of(
    manifest: Location, header: Sequence[str], columns: Mapping[str, int], *, numeric: bool = False
) -> list[str]:
    columns = {name: i for name, i in columns.items() if name != "target" or numeric}
    read_as = [f"{header[i].strip()} as {name}" for name, i in columns.items() if _column_name(header[i]) != name]
    unused = [cell.strip() for i, cell in enumerate(header) if i not in columns.values() and cell.strip()]
    parts = [f"read {', '.join(read_as)}"] if read_as else []
    parts += [f"not used: {named(unused)}"] if unused else []
    weighted = [f"The column weight of {manifest} is how much each image counts in a fit; 1 where it is empty."]
    target = [f"The column target of {manifest} is the number that heads for the target number predict."]
    said = [f"Columns of {manifest}: {'; '.join(parts)}."] if parts else []
    return [*said, *(weighted if "weight" in columns else []), *(target if numeric else [])]


def is_manifest(location: Location) -> bool:
    """Return whether a location is a table, by its suffix."""
    if location.suffix.lower() not in TABLE_SUFFIXES:
        return False
    return bucket.stat(location) is not None if isinstance(location, Address) else location.is_file()
