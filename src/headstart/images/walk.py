"""A folder → every file below it, told apart by ``os.stat``, by name and, where that tells nothing, by the first bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from headstart.images.formats import HEAD_BYTES, IMAGE_SUFFIXES, has_magic, suffix_of
from headstart.images.refs import state_of

#: Left behind by operating systems, and the index of a disk with DICOM files, in lower case; never data.
IGNORED_NAMES = frozenset(
    ("__macosx", "__pycache__", "$recycle.bin", "@eadir", "desktop.ini", "dicomdir", "lost+found",
     "system volume information", "thumbs.db")
)  # fmt: skip


@dataclass(slots=True)
class Walk:
    """What a walk through the folders has met so far.

    Attributes
    ----------
    images : list of tuple
        Relative path, size in bytes, time of change (ns) and stamp of each image.
    ignored : list of str
        What is no image, with the reason where the name does not tell it.
    unreadable : list of str
        Folders that may not be read, with the reason.
    hidden_count : int
        Hidden files and folders that were passed over.
    folders : list of str
        Relative paths of all folders that were read, but for the root; empty of a bucket, which has none.
    """

    images: list[tuple[str, int, int, int]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    hidden_count: int = 0
    folders: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that is yet to be read.

    Attributes
    ----------
    path : str
        Relative, with a slash at its end; empty for the root.
    above : frozenset of tuple
        Device and inode of the folder and of all that the walk came through.
    linked : bool
        Whether the walk came through a link.
    """

    path: str
    above: frozenset[tuple[int, int]]
    linked: bool


def walk(root: str) -> Walk:
    """Return every image below a folder.

    Links are followed, but never into a folder that the walk came through; and from what lies behind a link, only into
    folders that were not read before. So the walk ends, soon, however the links are laid.
    """
    found = Walk()
    pending = [Folder("", frozenset({identity(root)}), linked=False)]
    read: set[tuple[int, int]] = set()
    while pending:
        folder = pending.pop()
        below = []
        for entry in entries(root, folder, found):
            if entry.name.startswith(".") or entry.name.lower() in IGNORED_NAMES:
                found.hidden_count += 1
            elif is_folder(entry):
                below.append(entry)
            else:
                add_file(folder.path + entry.name, entry, found)
        below.sort(key=lambda entry: os.fsencode(entry.name), reverse=True)
        pending += [inside for entry in below if (inside := enter(entry, folder, read, found))]
    return found


def entries(root: str, folder: Folder, found: Walk) -> Iterator[os.DirEntry[str]]:
    """Yield what a folder holds; note it if it may not be read."""
    try:
        with os.scandir(os.path.join(root, folder.path)) as scan:  # noqa: PTH118 (paths of a million files)
            yield from scan
    except OSError as error:
        found.unreadable.append(f"{folder.path or root} ({error.strerror})")


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether the entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link into a folder that may not be entered, or to itself
        return False


def enter(entry: os.DirEntry[str], folder: Folder, read: set[tuple[int, int]], found: Walk) -> Folder | None:
    """Return the folder to read next; None where a link leads back."""
    path, link = folder.path + entry.name, entry.is_symlink()
    try:
        inode = identity(entry.path)
    except OSError as error:
        found.unreadable.append(f"{path} ({error.strerror})")
        return None
    if inode in folder.above:
        found.ignored.append(f"{path} (a link back to a folder above it)")
        return None
    if link and folder.linked and inode in read:
        found.ignored.append(f"{path} (a link, behind another link, to a folder that is read already)")
        return None
    read.add(inode)
    found.folders.append(path)
    return Folder(f"{path}/", folder.above | {inode}, folder.linked or link)


def identity(path: str) -> tuple[int, int]:
    """Return device and inode; not from the entry of the folder, which on Windows does not know them."""
    info = os.stat(path)  # noqa: PTH116
    return info.st_dev, info.st_ino


def add_file(path: str, entry: os.DirEntry[str], found: Walk) -> None:
    """Note a file as an image or as ignored."""
    named_so = suffix_of(entry.name) in IMAGE_SUFFIXES
    try:
        info = entry.stat()
    except OSError:
        if named_so:  # a row of a data set that has not been fetched, say: a failure with a reason, not nothing
            found.images.append((path, 0, 0, 0))
        else:
            found.ignored.append(f"{path} (a link to nothing)")
        return
    if stat.S_ISREG(info.st_mode) and (named_so or starts_as_image(entry.path)):
        found.images.append((path, *state_of(info)))
    else:
        found.ignored.append(path)


def starts_as_image(path: str) -> bool:
    """Return whether the first bytes of a regular file are those of an image."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError:
        return False
    try:
        return has_magic(os.read(descriptor, HEAD_BYTES))
    except OSError:
        return False
    finally:
        os.close(descriptor)
