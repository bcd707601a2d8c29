"""The images of a bucket: told apart by the same rules as the files of a folder, read as whole objects."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from headstart.errors import ImageError
from headstart.images.formats import HEAD_BYTES, IMAGE_SUFFIXES, has_magic, suffix_of
from headstart.images.named_paths import forms
from headstart.images.walk import IGNORED_NAMES, Walk
from headstart.schema import ImageRef
from headstart.storage import bucket
from headstart.storage.address import Address
from headstart.storage.bucket import Entry
from headstart.storage.faults import DeniedError, GoneError


def walk_objects(folder: Address) -> Walk:
    """Return every image below an address; what a disk would take as hidden is passed over.

    Raises
    ------
    StorageError
        If the bucket cannot be listed.
    """
    found = Walk()
    hidden: set[str] = set()
    listing = plain(bucket.entries(folder), found, hidden)
    while doubtful := list(islice(listing, bucket.PAGE)):
        heads = bucket.first_bytes([folder / entry.path for entry in doubtful], HEAD_BYTES)
        for entry, head in zip(doubtful, heads, strict=True):
            add(entry, found, is_image=has_magic(head))
    found.hidden_count = len(hidden)
    return found


def plain(entries: Iterable[Entry], found: Walk, hidden: set[str]) -> Iterator[Entry]:
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
        if first := first_hidden(parts):
            hidden.add(first)
        elif "" in parts or "\0" in entry.path:
            found.ignored.append(f"{entry.path} (a name that no folder could hold)")
        elif suffix_of(parts[-1]) in IMAGE_SUFFIXES:
            add(entry, found, is_image=True)
        else:
            yield entry


def first_hidden(parts: list[str]) -> str:
    """Return the path down to the first part that is hidden; nothing where none is."""
    for number, part in enumerate(parts):
        if part.startswith(".") or part.lower() in IGNORED_NAMES:
            return "/".join(parts[: number + 1])
    return ""


def add(entry: Entry, found: Walk, *, is_image: bool) -> None:
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
