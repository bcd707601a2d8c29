"""A folder, a bucket or a manifest to the images in it, sorted, with label, split and group.

Only names and ``os.stat`` (or the listing of a bucket) are read, and the first bytes of files without an image suffix.

Rules
-----
- Hidden names (``.…``) and names left behind by operating systems and notebooks are skipped and counted.
- Links are followed, also out of the root, but never into a folder that the walk came through (:mod:`.walk`). An image
  that is reached on two paths counts twice.
- A file is an image if its suffix or its first bytes are those of an image; all others are ignored and listed.
- A folder that may not be read is an error, since its images would be missing.
- The label is the name of the first folder (below the split, if there is one); deeper folders do not matter.
- If all first folders with images are named like splits (:mod:`.folder_layout`), they are splits. A single one beside
  others is a class (cars, planes, *train*); two are refused as ambiguous.
- Images outside the class folders are refused, since their class is not known.
- Names that differ only in Unicode normalization or in spaces at their ends are one class; other doubts about classes
  become notices (:mod:`.class_names`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.errors import DataError
from headstart.images.discovery.class_names import questions
from headstart.images.discovery.folder_layout import in_one_split_alone, layout_of, listed, without_images
from headstart.images.discovery.manifest import is_manifest, read_manifest
from headstart.images.discovery.refs import ImageRefs
from headstart.images.discovery.table_rows import TABLE_SUFFIXES
from headstart.images.discovery.walk import Walk, walk, walk_objects
from headstart.images.formats import IMAGE_SUFFIXES, suffix_of
from headstart.storage.address import Address, Location
from headstart.texts import counted
from headstart.types import ImageRef

#: Suffixes of files that may be given instead of a folder → advice.
OTHER_FILES = {
    (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"): "unpack it, and give the folder",
    (".xlsx", ".xls", ".ods"): "save the sheet as CSV UTF-8, and give that",
    (".h5", ".hdf5"): "if it is a feature cache, fit-head takes it",
    tuple(IMAGE_SUFFIXES): "give the folder that it is in",
}

#: Suffixes of ignored files that are listed.
LISTED_KINDS = 5


@dataclass(frozen=True, slots=True)
class ImageSet:
    """The result of a scan."""

    root: Location  # folder, on a disk or in a bucket, that the paths are relative to
    refs: ImageRefs  # the images, sorted by the bytes of their paths
    class_names: tuple[str, ...]  # names of the classes, sorted; empty if the images are unlabelled
    layout: str  # ``class-folders``, ``split-folders``, ``flat`` or ``manifest``
    ignored: tuple[str, ...] = ()  # files that are not images, pipes and devices, and broken or circular links
    hidden_count: int = 0  # hidden files and folders that were skipped
    notices: tuple[str, ...] = ()  # doubts for the user, one or two sentences each


def discover(root: Location, *, manifest: Location | None = None) -> ImageSet:
    """Return the images of a folder, or those in a manifest.

    Parameters
    ----------
    root : Path or Address
        A folder; or a manifest, whose paths are then relative to its own folder.
    manifest : Path or Address, optional
        A manifest whose paths are relative to ``root``.

    Raises
    ------
    DataError
        If there are no images, a folder may not be read, the classes are ambiguous, or the manifest is invalid.
    StorageError
        If a bucket cannot be listed.
    """
    if manifest is None and is_manifest(root):
        root, manifest = root.parent, root
    if isinstance(root, Path) and not root.is_dir():
        raise DataError(_no_folder(root))
    if manifest is not None:
        named, notices = read_manifest(manifest, root)
        refs = ImageRefs.of(sorted(named, key=lambda ref: os.fsencode(ref.path)))
        return _labelled_set(root, refs, "manifest", notices)
    found = walk_objects(root) if isinstance(root, Address) else walk(os.fspath(root))
    if found.unreadable:
        raise DataError(
            f"{root} contains {counted(len(found.unreadable), 'folder')} that may not be read: {listed(found.unreadable)}. "
            "Their images would be missing. Make them readable, or move them out of the way."
        )
    if not found.images:
        raise DataError(_nothing_found(root, found))
    found.images.sort(key=lambda image: os.fsencode(image[0]))
    paths = [path for path, *_ in found.images]
    layout = layout_of(root, paths)
    notices = [*layout.notices, *without_images(found.folders, paths, 2 if layout.name == "split-folders" else 1)]
    refs = ImageRefs.of(ImageRef(path, *layout.place(path), None, *state) for path, *state in found.images)
    return _labelled_set(root, refs, layout.name, notices, found)


def classes_of(refs: ImageRefs) -> tuple[str, ...]:
    """Return the names of the classes, sorted."""
    return tuple(sorted({label for label, _, _ in refs.tags if label is not None}, key=os.fsencode))


def _labelled_set(
    root: Location, refs: ImageRefs, layout: str, notices: Iterable[str], found: Walk | None = None
) -> ImageSet:
    """Return the images of a scan with their classes and the doubts about these."""
    counts: Counter[str] = Counter()
    for (label, _, _), count in zip(refs.tags, np.bincount(refs.codes).tolist(), strict=True):
        if label is not None:
            counts[label] += count
    names = classes_of(refs)
    ignored, hidden_count = (tuple(sorted(found.ignored)), found.hidden_count) if found else ((), 0)
    splits = in_one_split_alone((label, split) for label, split, _ in refs.tags)
    asked = [*notices, *questions(counts), *splits, *([] if names else [unlabelled(root, ignored)])]
    return ImageSet(root, refs, names, layout, ignored, hidden_count, tuple(asked))


def unlabelled(root: Location, ignored: Iterable[str]) -> str:
    """Return a notice of missing labels, and how to get them."""
    tables = [path for path in ignored if "/" not in path and suffix_of(path) in TABLE_SUFFIXES]
    table = f" {listed(tables)} was not read: if it has the labels, give {root / tables[0]}." if tables else ""
    return f"The images are unlabelled.{table} To label them in groups after extraction: headstart cluster CACHE."


def _no_folder(path: Path) -> str:
    """Return why a path is no folder of images, and what to give instead."""
    if not path.exists():
        return f"There is no folder at {path}. Expected: a folder of images, or a CSV manifest."
    suffix = suffix_of(path.name)
    instead = next(
        (text for suffixes, text in OTHER_FILES.items() if suffix in suffixes), "give the folder of the images"
    )
    return (
        f"{path} is a file, not a folder: {instead}. Expected: a folder of images, or a table "
        f"with the columns path and label ({', '.join(TABLE_SUFFIXES)})."
    )


def _nothing_found(root: Location, found: Walk) -> str:
    """Return that there are no images, and what was found instead."""
    instead = kinds_of(found.ignored) or "nothing"
    return (
        f"{root} contains no images. Found instead: {instead} ({found.hidden_count:,} hidden). "
        "Expected: JPEG, PNG, TIFF, WebP, … in one folder per class, or directly in the folder."
    )


def kinds_of(ignored: Iterable[str]) -> str:
    """Return the number of ignored files by suffix, the most frequent first; empty if there are none."""
    kinds = Counter("link" if path.endswith(")") else suffix_of(path) or "no suffix" for path in ignored)
    more = kinds.total() - sum(count for _, count in kinds.most_common(LISTED_KINDS))
    listed_kinds = [f"{count:,} × {kind}" for kind, count in kinds.most_common(LISTED_KINDS)]
    return ", ".join([*listed_kinds, *([f"{more:,} others"] if more else [])])
