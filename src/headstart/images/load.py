"""One file of a scan → the pixels that the network takes and the row that the cache keeps."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.errors import ImageError
from headstart.images.decode import DecodedImage, decode
from headstart.images.objects import read_object
from headstart.images.resize import DRAFT_PRESETS, resize
from headstart.images.rules import DEFAULT_RULES, DecodeRules
from headstart.schema import ImageRef, ImageRow
from headstart.storage.address import Address, Location

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Larger files are refused before they are read.
MAX_FILE_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image ready for the network.

    Attributes
    ----------
    pixels : ndarray of shape (size_px, size_px, 3), uint8
        RGB, 0–255.
    row : ImageRow
        What the cache keeps of it.
    """

    pixels: NDArray[np.uint8]
    row: ImageRow


def load_image(
    root: Location, ref: ImageRef, *, size_px: int, resize_preset: str, rules: DecodeRules = DEFAULT_RULES
) -> LoadedImage:
    """Return an image, read once: its digest is that of the very bytes that were decoded.

    Raises
    ------
    ImageError
        If the file cannot be read or decoded; the message is the reason.
    """
    data = read_image_bytes(root, ref)
    image = decode_resized(data, ref.path, size_px, resize_preset, rules)
    row = ImageRow(ref, hashlib.sha256(data).hexdigest(), image.width_px, image.height_px, image.notes)
    return LoadedImage(image.pixels, row)


def decode_resized(
    data: bytes, name: str, size_px: int, preset: str = "keras-bilinear", rules: DecodeRules = DEFAULT_RULES
) -> DecodedImage:
    """Return an image file as a square; raises what ``decode`` and ``resize`` do."""
    draft_px = size_px if preset in DRAFT_PRESETS else None
    shrink = partial(resize, size_px=size_px, preset=preset)
    return decode(data, name=name, shrink=shrink, draft_px=draft_px, rules=rules)


def read_image_bytes(root: Location, ref: ImageRef) -> bytes:
    """Return the bytes of a file, or of an object in a bucket.

    Raises
    ------
    ImageError
        If it is gone, may not be read, is no regular file, is too large, or changes while it is read.
    StorageError
        If nothing of the bucket can be read.
    """
    if isinstance(root, Address):
        check_bytes(ref.size_bytes)
        return read_object(root, ref)
    path = root / ref.path
    try:
        # Without O_NONBLOCK, opening a pipe that took the file's place would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise ImageError(open_error(error, path)) from error
    try:
        return read_unchanged(descriptor, ref)
    finally:
        os.close(descriptor)


def read_unchanged(descriptor: int, ref: ImageRef) -> bytes:
    """Return the bytes of an open file that is what the scan found, before and after."""
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        raise ImageError(f"not a regular file but {kind_of(before.st_mode)}")
    check_bytes(before.st_size)
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(before.st_size + 1)  # one more than there should be: growth is seen, but not followed
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error
    after = os.fstat(descriptor)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(data) != after.st_size:
        raise ImageError("changed while it was read: run again when it is complete")
    if (after.st_size, after.st_mtime_ns) != (ref.size_bytes, ref.mtime_ns):
        raise ImageError("changed since the folder was scanned: run again")
    return data


def check_bytes(size_bytes: int) -> None:
    """Raise ImageError for a file that is too large to be read."""
    if size_bytes > MAX_FILE_BYTES:
        raise ImageError(f"too large: {size_bytes:,} bytes, at most {MAX_FILE_BYTES:,} are read")


def open_error(error: OSError, path: Path) -> str:
    """Return why a file could not be opened, in words."""
    if isinstance(error, FileNotFoundError):
        return "a link to nothing" if path.is_symlink() else "gone: the file was there when the folder was scanned"
    if isinstance(error, PermissionError):
        return "permission denied"
    return f"cannot be opened: {error.strerror}"


def kind_of(mode: int) -> str:
    """Return what a file is that is not a regular one."""
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFDIR: "a folder", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(mode), "something else")
