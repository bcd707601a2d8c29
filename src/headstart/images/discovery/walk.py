"""All files of a folder or a bucket, classified as images by name or first bytes; and reading objects."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from headstart.errors import ImageError
from headstart.images.discovery.refs import state_of
from headstart.images.discovery.table_rows import forms
from headstart.images.formats import HEAD_BYTES, IMAGE_SUFFIXES, has_magic, suffix_of
from headstart.storage import bucket
from headstart.storage.address import Address
from headstart.storage.bucket import DeniedError, Entry, GoneError
from headstart.types import ImageRef

#: Names left behind by operating systems, and DICOM directories, in lower case; never data.
IGNORED_NAMES = frozenset(
    ("__macosx", "__pycache__", "$recycle.bin", "@eadir", "desktop.ini", "dicomdir", "lost+found",
     "system volume information", "thumbs.db")
)  # fmt: skip


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
    """Yield the entries of a folder; note it if it may not be read."""
    try:
        with os.scandir(os.path.join(root, folder.path)) as scan:  # noqa: PTH118 (paths of a million files)
            yield from scan
    except OSError as error:
        found.unreadable.append(f"{folder.path or root} ({error.strerror})")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether the entry is a folder or a link to one."""
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
    """Note a file as image or ignored."""
    named_so = suffix_of(entry.name) in IMAGE_SUFFIXES
    try:
        info = entry.stat()
    except OSError:
        if named_so:  # e.g. an image that was not fetched: it becomes a failure with a reason
            found.images.append((path, 0, 0, 0))
        else:
            found.ignored.append(f"{path} (a broken link)")
        return
    if stat.S_ISREG(info.st_mode) and (named_so or _starts_as_image(entry.path)):
        found.images.append((path, *state_of(info)))
    else:
        found.ignored.append(path)


def _starts_as_image(path: str) -> bool:
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


def walk_objects(folder: Address) -> Walk:
    """Return all images below an address; the same names are hidden as on a disk.

    Raises
    ------
    StorageError
        If the bucket cannot be listed.
    """
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
    """Note an object as image or ignored."""
    if is_image:
        found.images.append((entry.path, entry.size_bytes, entry.changed_ns, 0))
    else:
        found.ignored.append(entry.path)


def listed_refs(root: Address, refs: Sequence[ImageRef]) -> list[ImageRef]:
    """Return the images with size and time from one listing of their common folder: a request for each thousand objects."""
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


def read_object(folder: Address, ref: ImageRef) -> bytes:
    """Return the bytes of an image in a bucket.

    Raises ImageError if it is gone, may not be read, or has changed since it was listed; StorageError if nothing in the
    bucket can be read: no credentials, or no connection.
    """
    try:
        data = bucket.read(folder / ref.path)
    except GoneError as error:
        raise ImageError("gone: the object was there when the bucket was listed") from error
    except DeniedError as error:
        raise ImageError("permission denied") from error
    if len(data) != ref.size_bytes:
        raise ImageError("changed since the bucket was listed: run again")
    return data
