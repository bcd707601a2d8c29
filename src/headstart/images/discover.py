"""A folder or a CSV manifest → the images in it, sorted, with label, split and group.

Nothing but names and ``os.stat`` is read, save for the first bytes of files whose suffix tells nothing.

Rules
-----
- Hidden names (``.…``) and the folders and files that operating systems and notebooks leave are ignored and counted.
- Links are followed, but never into a folder that the walk came through.
- A file is an image if its suffix is one that images have, or its first bytes are; everything else is listed as ignored.
- The label is the name of the first folder (below the split, if there is one); deeper folders do not matter.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from headstart.errors import DataError
from headstart.images.manifest import read_manifest
from headstart.schema import ImageRef

#: Folder names that mean a split, in lower case.
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip

#: Left behind by operating systems; never data.
IGNORED_NAMES = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "__pycache__"})

#: Suffixes of files that a person calls images. Those that cannot be decoded become failures with a reason.
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".avif",
     ".avifs", ".heic", ".heif", ".ico", ".icns", ".cur", ".jp2", ".j2k", ".jpx", ".jpc", ".jpf", ".mpo", ".ppm", ".pgm",
     ".pbm", ".pnm", ".pfm", ".psd", ".dds", ".tga", ".pcx", ".sgi", ".rgb", ".rgba", ".bw", ".qoi", ".ras", ".sun", ".xbm",
     ".xpm", ".eps", ".svg", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".im1", ".jxl")
)  # fmt: skip

#: First bytes of the formats that are decoded.
MAGIC = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+",
    b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51", b"8BPS", b"qoif",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ImageSet:
    """What a scan found.

    Attributes
    ----------
    root : Path
        Folder that the paths are relative to.
    refs : tuple of ImageRef
        The images, sorted by the bytes of their paths.
    class_names : tuple of str
        Names of the classes, sorted; empty if the images are unlabelled.
    layout : str
        ``class-folders``, ``split-folders``, ``flat`` or ``manifest``.
    ignored : tuple of str
        Files that are no images, and folders that may not be read.
    hidden_count : int
        Hidden files and folders that were passed over.
    """

    root: Path
    refs: tuple[ImageRef, ...]
    class_names: tuple[str, ...]
    layout: str
    ignored: tuple[str, ...] = ()
    hidden_count: int = 0


@dataclass(slots=True)
class Walk:
    """What a walk through the folders has met so far."""

    refs: list[ImageRef] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    hidden_count: int = 0


def discover(root: Path, *, manifest: Path | None = None) -> ImageSet:
    """Return the images of a folder, or those that a manifest names.

    Parameters
    ----------
    root : Path
        A folder; or a ``.csv`` file, whose paths are then relative to its own folder.
    manifest : Path, optional
        A CSV whose paths are relative to ``root``.

    Raises
    ------
    DataError
        If there are no images, the folders do not tell the classes clearly, or the manifest is wrong.
    """
    if manifest is None and root.suffix.lower() == ".csv" and root.is_file():
        root, manifest = root.parent, root
    if not root.is_dir():
        raise DataError(f"There is no folder at {root}. Expected: a folder of images, or a CSV manifest.")
    if manifest is not None:
        refs = read_manifest(manifest, root, SPLIT_NAMES)
        return ImageSet(root, in_order(refs), classes_of(refs), "manifest")
    found = walk(root)
    if not found.refs:
        raise DataError(nothing_found(root, found))
    layout, refs = label(root, found.refs)
    return ImageSet(root, in_order(refs), classes_of(refs), layout, tuple(sorted(found.ignored)), found.hidden_count)


def in_order(refs: list[ImageRef]) -> tuple[ImageRef, ...]:
    """Return the images sorted by the bytes of their paths: the same order on every machine."""
    return tuple(sorted(refs, key=lambda ref: os.fsencode(ref.path)))


def classes_of(refs: list[ImageRef]) -> tuple[str, ...]:
    """Return the names of the classes, sorted."""
    return tuple(sorted({ref.label for ref in refs if ref.label is not None}, key=os.fsencode))


def label(root: Path, refs: list[ImageRef]) -> tuple[str, list[ImageRef]]:
    """Return the layout, and the images with the labels and splits that their folders give them."""
    tops = {first_folder(ref.path) for ref in refs}
    if tops == {""}:
        return "flat", refs
    if "" in tops:
        stray = sorted(ref.path for ref in refs if "/" not in ref.path)
        raise DataError(
            f"{root} holds {len(stray):,} images beside its folders ({', '.join(stray[:3])}), so their class is not known. "
            "Move them into class folders or out of the way, or name the labels in a CSV (--manifest)."
        )
    splits = {top for top in tops if top.lower() in SPLIT_NAMES}
    if splits == tops:
        return "split-folders", [ref for top in sorted(tops) for ref in in_split(root, top, refs)]
    if len(splits) > 1:
        raise DataError(
            f"{root} holds folders named as splits ({', '.join(sorted(splits))}) beside others "
            f"({', '.join(sorted(tops - splits)[:3])}), so it is not clear which are classes. Keep one kind of them there."
        )
    return "class-folders", [replace(ref, label=first_folder(ref.path)) for ref in refs]


def in_split(root: Path, top: str, refs: list[ImageRef]) -> list[ImageRef]:
    """Return the images below one split folder, labelled by their class folders; unlabelled if it has none at all."""
    inside = [ref for ref in refs if first_folder(ref.path) == top]
    labels = [first_folder(ref.path.partition("/")[2]) for ref in inside]
    if any(labels) and not all(labels):
        stray = next(ref.path for ref, name in zip(inside, labels, strict=True) if not name)
        raise DataError(
            f"{root / top} holds class folders, and images beside them whose class is not known, as {stray}. "
            f"Move them into {top}/<class>/ or out of the way."
        )
    split = SPLIT_NAMES[top.lower()]
    return [replace(ref, split=split, label=name or None) for ref, name in zip(inside, labels, strict=True)]


def first_folder(path: str) -> str:
    """Return the first folder of a relative path, or nothing."""
    top, separator, _ = path.partition("/")
    return top if separator else ""


def walk(root: Path) -> Walk:
    """Return every image below a folder."""
    found = Walk()
    info = root.stat()
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset({(info.st_dev, info.st_ino)}))]
    while pending:
        folder, above = pending.pop()
        for entry in entries(root, folder, found):
            path = f"{folder}{entry.name}"
            if entry.name.startswith(".") or entry.name.lower() in IGNORED_NAMES:
                found.hidden_count += 1
                continue
            try:
                info = entry.stat()
            except OSError:
                found.ignored.append(f"{path} (a link to nothing)")
                continue
            if stat.S_ISDIR(info.st_mode):
                identity = (info.st_dev, info.st_ino)
                if identity in above:
                    found.ignored.append(f"{path} (a link back to a folder above it)")
                else:
                    pending.append((f"{path}/", above | {identity}))
            elif stat.S_ISREG(info.st_mode) and is_image(root / path):
                found.refs.append(ImageRef(path, None, None, None, info.st_size, info.st_mtime_ns))
            else:
                found.ignored.append(path)
    return found


def entries(root: Path, folder: str, found: Walk) -> Iterator[os.DirEntry[str]]:
    """Yield what a folder holds; a folder that may not be read is listed as ignored, the root itself is an error."""
    try:
        with os.scandir(root / folder) as scan:
            yield from scan
    except OSError as error:
        if not folder:
            raise DataError(f"{root} cannot be read: {error.strerror}.") from error
        found.ignored.append(f"{folder} ({error.strerror})")


def is_image(path: Path) -> bool:
    """Return whether the suffix or, where that tells nothing, the first bytes are those of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES or has_magic(path)


def has_magic(path: Path) -> bool:
    """Return whether the first bytes of a file are those of a format that is decoded."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return False
    bmp = head[:2] == b"BM" and head[6:10] == bytes(4)  # two letters alone would take texts for pictures
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return head.startswith(MAGIC) or bmp or webp or head[4:12] == b"ftypavif"


def nothing_found(root: Path, found: Walk) -> str:
    """Return what was looked for in vain, and what was there instead."""
    kinds = Counter(Path(path).suffix.lower() or "no suffix" for path in found.ignored)
    instead = ", ".join(f"{count:,} × {kind}" for kind, count in kinds.most_common(5)) or "nothing"
    return (
        f"{root} holds no images. Found instead: {instead} ({found.hidden_count:,} hidden). "
        "Expected: JPEG, PNG, TIFF, WebP, … in one folder per class, or directly in the folder."
    )
