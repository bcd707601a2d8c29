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
- If all first folders that hold images are named as splits, they are splits. One such name beside others is a class
  (cars, planes, *train*); two are refused, since then one cannot know.
- Images beside folders with images are refused, since their class is not known.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from headstart.errors import DataError
from headstart.images.formats import suffix_of
from headstart.images.manifest import is_manifest, read_manifest
from headstart.images.objects import walk_objects
from headstart.images.refs import ImageRefs
from headstart.images.walk import Walk, walk
from headstart.schema import ImageRef
from headstart.storage.address import Address, Location

#: Folder names that mean a split, in lower case.
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip

#: Files and folders named in an error before the rest is counted.
LISTED = 3

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
    """

    root: Location
    refs: ImageRefs
    class_names: tuple[str, ...]
    layout: str
    ignored: tuple[str, ...] = ()
    hidden_count: int = 0


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
        raise DataError(f"There is no folder at {root}. Expected: a folder of images, or a CSV manifest.")
    if manifest is not None:
        named = read_manifest(manifest, root, SPLIT_NAMES)
        refs = ImageRefs.of(sorted(named, key=lambda ref: os.fsencode(ref.path)))
        return ImageSet(root, refs, classes_of(refs), "manifest")
    found = walk_objects(root) if isinstance(root, Address) else walk(os.fspath(root))
    if found.unreadable:
        raise DataError(
            f"{root} holds {len(found.unreadable):,} folder(s) that may not be read: {listed(found.unreadable)}. "
            "Their images would be missing. Make them readable, or move them out of the way."
        )
    if not found.images:
        raise DataError(nothing_found(root, found))
    found.images.sort(key=lambda image: os.fsencode(image[0]))
    layout, place = layout_of(root, [path for path, *_ in found.images])
    refs = ImageRefs.of(ImageRef(path, *place(path), None, *state) for path, *state in found.images)
    return ImageSet(root, refs, classes_of(refs), layout, tuple(sorted(found.ignored)), found.hidden_count)


def classes_of(refs: ImageRefs) -> tuple[str, ...]:
    """Return the names of the classes, sorted."""
    return tuple(sorted({label for label, _, _ in refs.tags if label is not None}, key=os.fsencode))


def layout_of(root: Location, paths: list[str]) -> tuple[str, Callable[[str], tuple[str | None, str | None]]]:
    """Return the layout, and what gives the label and the split of a path in it."""
    tops = {first_folder(path) for path in paths}
    if tops == {""}:
        return "flat", lambda path: (None, None)
    if "" in tops:
        stray = [path for path in paths if "/" not in path]
        raise DataError(
            f"{root} holds {len(stray):,} images beside its folders ({listed(stray)}), so their class is not known. "
            "Move them into class folders or out of the way, or name the labels in a CSV (--manifest)."
        )
    splits = {top for top in tops if top.lower() in SPLIT_NAMES}
    if splits == tops:
        for top in sorted(tops):
            check_split(root, top, paths)
        return "split-folders", in_split
    if len(splits) > 1:
        raise DataError(
            f"{root} holds folders named as splits ({listed(splits)}) beside others "
            f"({listed(tops - splits)}), so it is not clear which are classes. Keep one kind of them there."
        )
    return "class-folders", lambda path: (first_folder(path), None)


def check_split(root: Location, top: str, paths: list[str]) -> None:
    """Raise DataError where a split folder holds both class folders and images beside them."""
    inside = [path for path in paths if path.startswith(f"{top}/")]
    stray = [path for path in inside if path.count("/") == 1]
    if stray and len(stray) < len(inside):
        raise DataError(
            f"{root / top} holds class folders, and {len(stray):,} images beside them whose class is not known "
            f"({listed(stray)}). Move them into {top}/<class>/ or out of the way."
        )


def in_split(path: str) -> tuple[str | None, str]:
    """Return label and split of a path below a split folder; no label where that has no class folders."""
    top, _, below = path.partition("/")
    return first_folder(below) or None, SPLIT_NAMES[top.lower()]


def first_folder(path: str) -> str:
    """Return the first folder of a relative path, or nothing; the images of a folder share one string."""
    top, separator, _ = path.partition("/")
    return sys.intern(top) if separator else ""


def listed(names: Iterable[str]) -> str:
    """Return the first names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - LISTED:,} more" if len(ordered) > LISTED else ""
    return f"{', '.join(ordered[:LISTED])}{more}"


def nothing_found(root: Location, found: Walk) -> str:
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
