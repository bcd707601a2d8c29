"""An image file, object or value to the network's input, with notes and digest."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.errors import DataError, ImageError
from headstart.images.decode import (
    DecodedImage,
    decode,
)
from headstart.images.discovery.refs import READ_FLAGS, state_of
from headstart.images.resize import DRAFT_PRESETS, resize
from headstart.images.samples import DEFAULT_RULES, DecodeRules
from headstart.storage import bucket
from headstart.storage.bucket import Address, Location
from headstart.texts import counted
from headstart.types import ImageRef, ImageRow

#: Note → its text for users, and the parameter that changes it.
TOLD_NOTES = {
    "first-page": ("only the first page was taken", "`page`: a number, max or mean"),
    "first-frame": ("only the first frame was taken", "`page`: a number, max or mean, for animations"),
    "low-range": (
        "few of the 256 levels are used: the values span little of the range of their type",
        "`intensity`: range, percentiles or LOW:HIGH",
    ),
    "clipped": ("values below black or above white were clipped", "`intensity`: range or LOW:HIGH"),
    "upper-bits": (
        "only the upper 8 bits of samples of 10 bits or more were read, and `intensity` has no effect",
        "convert them to PNG or TIFF",
    ),
    "window": ("the window of the file decided which values are black and white", "`intensity`: LOW:HIGH for all"),
    "window-unusable": ("the window of the file could not be used: all values are shown", "`intensity`: LOW:HIGH"),
    "pages-are-colours": ("three pages are the colours of one picture", ""),
}

#: Larger files are refused before they are read.
MAX_FILE_BYTES = 2 * 1024**3

#: Attempts to read a file that changes.
MAX_READS = 3


def sentences(counts: Mapping[str, int], *, with_options: bool = True) -> list[str]:
    """Return a sentence, without its full stop, for each note in ``counts`` (note → number of images).

    ``with_options`` names the options that change it; not for a head, whose recipe is fixed.
    """
    return [
        f"Decoded: in {counted(counts[note])} {text}{f' ({options})' if options and with_options else ''}"
        for note, (text, options) in TOLD_NOTES.items()
        if counts.get(note)
    ]


@dataclass(frozen=True, slots=True)
class GivenImage(ImageRef):
    """An image that is no file but a value; its path is a name for it."""

    content: bytes | Image.Image = field(default=b"", compare=False, repr=False)


def given_image(value: Any, name: str) -> GivenImage:
    """Return the bytes of an image file, a PIL image or a uint8 array as an image of this name; DataError for others."""
    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8 or (value.ndim, *value.shape[2:]) not in {(2,), (3, 3), (3, 4)} or not value.size:
            raise DataError(
                f"{name} is an array of {value.dtype} with the shape {value.shape}. Expected: uint8 with the shape (height, "
                "width), (height, width, 3) or (height, width, 4), of values from 0 to 255.",
                hint="Several images are given as a list of arrays.",
            )
        value = Image.fromarray(value)
    if not isinstance(value, bytes | Image.Image):
        raise DataError(
            f"{name} is of the type {type(value).__name__}. Expected: a path, the bytes of an image file, a PIL image, or a "
            "NumPy array."
        )
    return GivenImage(name, None, None, None, len(value) if isinstance(value, bytes) else 0, 0, content=value)


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image ready for the network."""

    pixels: NDArray[np.uint8]  # shape (size_px, size_px, 3), RGB, 0–255
    row: ImageRow  # the metadata kept in the cache


def load_image(
    root: Location, ref: ImageRef, *, size_px: int, resize_preset: str, rules: DecodeRules = DEFAULT_RULES
) -> LoadedImage:
    """Return an image, read once: the digest is that of the decoded bytes; empty for an image that is given decoded.

    Raises ImageError, with the reason, if it cannot be read or decoded.
    """
    data = ref.content if isinstance(ref, GivenImage) else read_image_bytes(root, ref)
    image = decode_resized(data, ref.path, size_px, resize_preset, rules)
    digest = hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else ""
    row = ImageRow(ref, digest, image.width_px, image.height_px, image.notes)
    return LoadedImage(image.pixels, row)


def decode_resized(
    data: bytes | Image.Image,
    name: str,
    size_px: int,
    preset: str = "keras-bilinear",
    rules: DecodeRules = DEFAULT_RULES,
) -> DecodedImage:
    """Return an image as a square; raises what ``decode`` and ``resize`` do."""
    draft_px = size_px if preset in DRAFT_PRESETS else None
    shrink = partial(resize, size_px=size_px, preset=preset)
    return decode(data, name=name, shrink=shrink, draft_px=draft_px, rules=rules)


def read_image_bytes(root: Location, ref: ImageRef) -> bytes:
    """Return the bytes of a file, or of an object in a bucket.

    Raises ImageError if it is gone, may not be read, is no regular file, is too large, changes while it is read, or has
    another size than in the scan; StorageError if nothing of the bucket can be read.
    """
    if isinstance(root, Address):
        _check_bytes(ref.size_bytes)
        return _read_object(root / ref.path, ref)
    path = root / ref.path
    try:
        descriptor = os.open(path, READ_FLAGS)
    except OSError as error:
        raise ImageError(open_error(error, path)) from error
    try:
        return _read_steady(descriptor, ref)
    finally:
        os.close(descriptor)


def _read_object(address: Address, ref: ImageRef) -> bytes:
    try:
        data = bucket.read(address)
    except bucket.GoneError as error:
        raise ImageError("gone: the object was there when the bucket was listed") from error
    except bucket.DeniedError as error:
        raise ImageError("permission denied") from error
    if len(data) != ref.size_bytes:
        raise ImageError("changed since the bucket was listed: run again")
    return data


def _read_steady(descriptor: int, ref: ImageRef) -> bytes:
    """Return the bytes of an open file that no other process changes meanwhile.

    Size and times must be the same before and after; if only times differ (a tool touches the file, or the file system
    reports changing times), two reads must give the same bytes.
    """
    before, earlier = os.fstat(descriptor), None
    if not stat.S_ISREG(before.st_mode):
        raise ImageError(f"not a regular file but {_kind_of(before.st_mode)}")
    for _ in range(MAX_READS):
        _check_bytes(before.st_size)
        data, after = _read_all(descriptor, before.st_size), os.fstat(descriptor)
        whole = len(data) == before.st_size == after.st_size
        if whole and (state_of(before) == state_of(after) or data == earlier):
            break
        before, earlier = after, data
    else:
        raise ImageError("changed while it was read: run again when it is complete")
    if len(data) != ref.size_bytes:
        raise ImageError("changed since the folder was scanned: run again")
    return data


def _read_all(descriptor: int, size_bytes: int) -> bytes:
    """Return the bytes of an open file from its start, at most one more than expected, so that growth is noticed."""
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            file.seek(0)
            return file.read(size_bytes + 1)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error


def _check_bytes(size_bytes: int) -> None:
    if size_bytes > MAX_FILE_BYTES:
        raise ImageError(f"too large: {size_bytes:,} bytes, at most {MAX_FILE_BYTES:,} are read")


def open_error(error: OSError, path: Path) -> str:
    """Return why a file could not be opened."""
    if isinstance(error, FileNotFoundError):
        return "a broken link" if path.is_symlink() else "gone: the file was there when the folder was scanned"
    if isinstance(error, PermissionError):
        return "permission denied"
    return f"cannot be opened: {error.strerror}"


def _kind_of(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFDIR: "a folder", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(mode), "something else")
