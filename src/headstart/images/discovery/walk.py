"""All files in a folder, or objects in a bucket, classified by name and, if needed, by their first bytes."""

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
    """Yield what a folder holds; note it if it may not be read."""
    try:
        with os.scandir(os.path.join(root, folder.path)) as scan:  # noqa: PTH118 (paths of a million files)
            yield from scan
    except OSError as error:
        found.unreadable.append(f"{folder.path or root} ({error.strerror})")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether the entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link into a folder that may not be entered, or to itself
        return False


def _enter(entry: os.DirEntry[str], folder: Folder, read: set[tuple[int, int]], found: Walk) -> Folder | None:
    """Return the folder to read next; None where a link leads back."""
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
        found.ignored.append(f"{path} (a link, behind another link, to a folder that is read already)")
        return None
    read.add(inode)
    found.folders.append(path)
    return Folder(f"{path}/", folder.above | {inode}, folder.linked or link)


def _identity(path: str) -> tuple[int, int]:
    """Return device and inode; not from the entry of the folder, which on Windows does not know them."""
    info = os.stat(path)  # noqa: PTH116
    return info.st_dev, info.st_ino


def _add_file(path: str, entry: os.DirEntry[str], found: Walk) -> None:
    """Note a file as an image or as ignored."""
    named_so = suffix_of(entry.name) in IMAGE_SUFFIXES
    try:
        info = entry.stat()
    except OSError:
        if named_so:  # a row of a data set that has not been fetched, say: a failure with a reason, not nothing
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
    """Return every image below an address; what a disk would take as hidden is passed over.

    Raises
    ------
    StorageError
        If the bucket cannot be listed.
    """
    found = Walk()
    hidden: set[str] = set()
    listing = _plain(bucket.entries(folder), found, hidden)
    while doubtful := list(islice(listing, bucket.PAGE)):
        heads = bucket.first_bytes([folder / entry.path for entry in doubtful], HEAD_BYTES)
        for entry, head in zip(doubtful, heads, strict=True):
            _add(entry, found, is_image=has_magic(head))
    found.hidden_count = len(hidden)
    return found


def _plain(entries: Iterable[Entry], found: Walk, hidden: set[str]) -> Iterator[Entry]:
    """Note the objects whose name tells what they are, and yield the others.

    Parameters
    ----------
    entries : iterable of Entry
        The listing.
    found : Walk
        Is told of images, and of names that no folder could hold.
    hidden : set of str
        Is given the hidden objects and folders.
    """
    for entry in entries:
        parts = entry.path.split("/")
        if first := _first_hidden(parts):
            hidden.add(first)
        elif "" in parts or "\0" in entry.path:
            found.ignored.append(f"{entry.path} (a name that no folder could hold)")
        elif suffix_of(parts[-1]) in IMAGE_SUFFIXES:
            _add(entry, found, is_image=True)
        else:
            yield entry


def _first_hidden(parts: list[str]) -> str:
    """Return the path down to the first part that is hidden; nothing where none is."""
    for number, part in enumerate(parts):
        if part.startswith(".") or part.lower() in IGNORED_NAMES:
            return "/".join(parts[: number + 1])
    return ""


def _add(entry: Entry, found: Walk, *, is_image: bool) -> None:
    """Note an object as an image or as ignored."""
    if is_image:
        found.images.append((entry.path, entry.size_bytes, entry.changed_ns, 0))
    else:
        found.ignored.append(entry.path)


def listed_refs(root: Address, refs: Sequence[ImageRef]) -> list[ImageRef]:
    """Return the images with size and time of the objects below what all of their paths have in common.

    One listing, a thousand objects a request, in place of a request for each.
    """
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

    Raises
    ------
    ImageError
        If it is gone, may not be read, or is not the one that was listed.
    StorageError
        If nothing of the bucket can be read: there are no keys, or nobody answers.
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
