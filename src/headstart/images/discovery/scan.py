"""A folder, a bucket or a manifest to the images in it, sorted, with label, split and group.

Only names and ``os.stat`` (or the listing of a bucket) are read, and the first bytes of files without an image suffix.

Rules
-----
- Hidden names (``.…``) and names left behind by operating systems and notebooks are skipped and counted.
- Links are followed, also out of the root, but never into a folder that the walk came through. An image
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
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np

from headstart.errors import DataError
from headstart.images.discovery.classes_and_splits import (
    in_one_split_alone,
    layout_of,
    questions,
    shown,
    without_images,
)
from headstart.images.discovery.csv_tables import TABLE_SUFFIXES
from headstart.images.discovery.manifest import is_manifest, read_manifest
from headstart.images.discovery.refs import ImageRefs, read_part, state_of
from headstart.images.formats import HEAD_BYTES, IMAGE_SUFFIXES, has_magic, suffix_of
from headstart.storage import bucket
from headstart.storage.bucket import Address, Entry, Location
from headstart.texts import counted
from headstart.types import ImageRef

#: Names left behind by operating systems, and DICOM directories, in lower case; never data.
IGNORED_NAMES = frozenset(
    ("__macosx", "__pycache__", "$recycle.bin", "@eadir", "desktop.ini", "dicomdir", "lost+found",
     "system volume information", "thumbs.db")
)  # fmt: skip

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

    Paths in a manifest are relative to ``root``; if ``root`` is a manifest itself, to its own folder.

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
            f"{root} contains {counted(len(found.unreadable), 'folder')} that may not be read: {shown(found.unreadable)}. "
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
    table = f" {shown(tables)} was not read: if it has the labels, give {root / tables[0]}." if tables else ""
    return f"The images are unlabelled.{table} To label them in groups after extraction: headstart cluster CACHE."


def _no_folder(path: Path) -> str:
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


@dataclass(slots=True)
class Walk:
    """The files found by a walk."""

    #: Relative path, size in bytes, modification time (ns) and stamp of each image.
    images: list[tuple[str, int, int, int]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)  # other files, with the reason if the name does not tell it
    unreadable: list[str] = field(default_factory=list)  # folders that may not be read, with the reason
    hidden_count: int = 0  # hidden files and folders that were skipped
    #: Relative paths of all folders that were read, without the root; empty for a bucket.
    folders: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder still to be read."""

    path: str  # relative, with a slash at its end; empty for the root
    above: frozenset[tuple[int, int]]  # device and inode of the folder and of all that the walk came through
    linked: bool  # whether the walk came through a link


def walk(root: str) -> Walk:
    """Return all images below a folder.

    Links are followed, but never into a folder that the walk came through; behind a link, other links are followed only into
    folders that were not read before. So the walk always ends.
    """
    found = Walk()
    pending = [Folder("", frozenset({_identity(root)}), linked=False)]
    read: set[tuple[int, int]] = set()
    while pending:
        folder = pending.pop()
        below = []
        for entry in _entries(root, folder, found):
            if entry.name.startswith(".") or entry.name.lower() in IGNORED_NAMES:
                found.hidden_count += 1
            elif _is_folder(entry):
                below.append(entry)
            else:
                _add_file(folder.path + entry.name, entry, found)
        below.sort(key=lambda entry: os.fsencode(entry.name), reverse=True)
        pending += [inside for entry in below if (inside := _enter(entry, folder, read, found))]
    return found


def _entries(root: str, folder: Folder, found: Walk) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(os.path.join(root, folder.path)) as scan:  # noqa: PTH118 (paths of a million files)
            yield from scan
    except OSError as error:
        found.unreadable.append(f"{folder.path or root} ({error.strerror})")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # e.g. a link into a folder that may not be entered, or to itself
        return False


def _enter(entry: os.DirEntry[str], folder: Folder, read: set[tuple[int, int]], found: Walk) -> Folder | None:
    """Return the folder to read next; None for a circular or repeated link."""
    path, link = folder.path + entry.name, entry.is_symlink()
    try:
        inode = _identity(entry.path)
    except OSError as error:
        found.unreadable.append(f"{path} ({error.strerror})")
        return None
    if inode in folder.above:
        found.ignored.append(f"{path} (a link back to a folder above it)")
        return None
    if link and folder.linked and inode in read:
        found.ignored.append(f"{path} (a link, behind another link, to a folder that was already read)")
        return None
    read.add(inode)
    found.folders.append(path)
    return Folder(f"{path}/", folder.above | {inode}, folder.linked or link)


def _identity(path: str) -> tuple[int, int]:
    """Return device and inode, which ``os.DirEntry.stat`` does not have on Windows."""
    info = os.stat(path)  # noqa: PTH116
    return info.st_dev, info.st_ino


def _add_file(path: str, entry: os.DirEntry[str], found: Walk) -> None:
    named_so = suffix_of(entry.name) in IMAGE_SUFFIXES
    try:
        info = entry.stat()
    except OSError:
        if named_so:  # e.g. an image that was not fetched: it becomes a failure with a reason
            found.images.append((path, 0, 0, 0))
        else:
            found.ignored.append(f"{path} (a broken link)")
        return
    if stat.S_ISREG(info.st_mode) and (named_so or has_magic(read_part(entry.path, 0, HEAD_BYTES))):
        found.images.append((path, *state_of(info)))
    else:
        found.ignored.append(path)


def walk_objects(folder: Address) -> Walk:
    """Return all images below an address, with the same hidden names as on a disk; raises StorageError."""
    found = Walk()
    hidden: set[str] = set()
    listing = _unclassified(bucket.entries(folder), found, hidden)
    while doubtful := list(islice(listing, bucket.PAGE)):
        heads = bucket.first_bytes([folder / entry.path for entry in doubtful], HEAD_BYTES)
        for entry, head in zip(doubtful, heads, strict=True):
            _add_object(entry, found, is_image=has_magic(head))
    found.hidden_count = len(hidden)
    return found


def _unclassified(entries: Iterable[Entry], found: Walk, hidden: set[str]) -> Iterator[Entry]:
    """Classify objects by name, and yield those whose first bytes are needed; ``hidden`` receives hidden names."""
    for entry in entries:
        parts = entry.path.split("/")
        if first := _first_hidden(parts):
            hidden.add(first)
        elif "" in parts or "\0" in entry.path:
            found.ignored.append(f"{entry.path} (not a valid file name)")
        elif suffix_of(parts[-1]) in IMAGE_SUFFIXES:
            _add_object(entry, found, is_image=True)
        else:
            yield entry


def _first_hidden(parts: list[str]) -> str:
    """Return the path up to its first hidden part; empty if none is hidden."""
    for number, part in enumerate(parts):
        if part.startswith(".") or part.lower() in IGNORED_NAMES:
            return "/".join(parts[: number + 1])
    return ""


def _add_object(entry: Entry, found: Walk, *, is_image: bool) -> None:
    if is_image:
        found.images.append((entry.path, entry.size_bytes, entry.changed_ns, 0))
    else:
        found.ignored.append(entry.path)


def training_images(images: ImageSet) -> ImageSet:
    """Return the images of the split ``train`` and of none; raise DataError if there are none."""
    splits = np.array([split in {None, "train"} for _, split, _ in images.refs.tags], np.bool_)
    refs = images.refs.taken(np.flatnonzero(splits[images.refs.codes]))
    if not len(refs):
        raise DataError(f"{images.root} has no training images: all are of the splits validation and test.")
    return replace(images, refs=refs, class_names=classes_of(refs))
