"""A folder or a CSV manifest → the images in it, sorted, with label, split and group.

Nothing but names and ``os.stat`` is read, or the listing of a bucket, save for the first bytes of files whose suffix tells
nothing.

Rules
-----
- Hidden names (``.…``) and what operating systems and notebooks leave behind are passed over and counted.
- Links are followed, out of the root too, but never into a folder that the walk came through (:mod:`.walk`). An image that
  is reached on two paths counts twice.
- A file is an image if its suffix is one that images have, or its first bytes are; everything else is listed as ignored.
- A folder that may not be read is an error: its images would be missing unnoticed.
- The label is the name of the first folder (below the split, if there is one); deeper folders do not matter.
- If all first folders that hold images are named as splits (:mod:`.split_names`), they are splits. One such name beside
  others is a class (cars, planes, *train*); two are refused, since then one cannot know.
- Images beside folders with images are refused, since their class is not known.
- Names that differ only in their Unicode form or in spaces at their ends are one class; what else is doubtful about the
  classes becomes a notice (:mod:`.class_names`).
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

#: Suffixes of files that people give in place of a folder → what to do with them.
OTHER_FILES = {
    (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"): "unpack it, and give the folder",
    (".xlsx", ".xls", ".ods"): "save the sheet as CSV UTF-8, and give that",
    (".h5", ".hdf5"): "if it is a feature cache, fit-head takes it",
    tuple(IMAGE_SUFFIXES): "give the folder that it is in",
}

#: Kinds of ignored files that are counted one by one.
LISTED_KINDS = 5


@dataclass(frozen=True, slots=True)
class ImageSet:
    """What a scan found.

    Attributes
    ----------
    root : Path or Address
        Folder that the paths are relative to, on a disk or in a bucket.
    refs : ImageRefs
        The images, sorted by the bytes of their paths.
    class_names : tuple of str
        Names of the classes, sorted; empty if the images are unlabelled.
    layout : str
        ``class-folders``, ``split-folders``, ``flat`` or ``manifest``.
    ignored : tuple of str
        Files that are no images, pipes and devices, and links that lead back or nowhere.
    hidden_count : int
        Hidden files and folders that were passed over.
    notices : tuple of str
        What a person should know before an image is computed, a sentence or two each: doubtful classes above all.
    """

    root: Location
    refs: ImageRefs
    class_names: tuple[str, ...]
    layout: str
    ignored: tuple[str, ...] = ()
    hidden_count: int = 0
    notices: tuple[str, ...] = ()


def discover(root: Location, *, manifest: Location | None = None) -> ImageSet:
    """Return the images of a folder, or those that a manifest names.

    Parameters
    ----------
    root : Path or Address
        A folder; or a ``.csv`` file, whose paths are then relative to its own folder.
    manifest : Path or Address, optional
        A CSV whose paths are relative to ``root``.

    Raises
    ------
    DataError
        If there are no images, a folder may not be read, the folders do not tell the classes clearly, or the manifest is
        wrong.
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
            f"{root} holds {counted(len(found.unreadable), 'folder')} that may not be read: {listed(found.unreadable)}. "
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
    """Return the images of a scan with their classes, and what is to be asked about these."""
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
    """Return that there are no labels, where they may be, and how to come by them."""
    tables = [path for path in ignored if "/" not in path and suffix_of(path) in TABLE_SUFFIXES]
    table = f" {listed(tables)} was not read: if it has the labels, give {root / tables[0]}." if tables else ""
    return f"The images are unlabelled.{table} To label them group by group: headstart cluster CACHE, when they are computed."


def _no_folder(path: Path) -> str:
    """Return why there is no folder of images at a path, and what to give instead."""
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
    """Return what was looked for in vain, and what was there instead."""
    instead = kinds_of(found.ignored) or "nothing"
    return (
        f"{root} holds no images. Found instead: {instead} ({found.hidden_count:,} hidden). "
        "Expected: JPEG, PNG, TIFF, WebP, … in one folder per class, or directly in the folder."
    )


def kinds_of(ignored: Iterable[str]) -> str:
    """Return how many files were ignored of each suffix, the most frequent ones first; nothing if there are none."""
    kinds = Counter("link" if path.endswith(")") else suffix_of(path) or "no suffix" for path in ignored)
    more = kinds.total() - sum(count for _, count in kinds.most_common(LISTED_KINDS))
    listed_kinds = [f"{count:,} × {kind}" for kind, count in kinds.most_common(LISTED_KINDS)]
    return ", ".join([*listed_kinds, *([f"{more:,} others"] if more else [])])
