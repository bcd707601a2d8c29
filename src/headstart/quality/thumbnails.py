"""Small JPEGs of listed images, from the folder that they were extracted from."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.errors import DataError, ImageError
from headstart.images.decode import decode
from headstart.images.discovery.refs import state_of
from headstart.images.load import read_image_bytes
from headstart.images.samples import DEFAULT_RULES, DecodeRules
from headstart.runtime import usable_cores
from headstart.types import ImageRef

#: Longer side of a thumbnail.
SIZE_PX = 160

#: JPEG quality of a thumbnail: some 5 KB each.
QUALITY = 80


def make_thumbnails(data: Path, digests: Mapping[str, str], rules: DecodeRules = DEFAULT_RULES) -> dict[str, bytes]:
    """Return path → JPEG for every image that is still what it was.

    Parameters
    ----------
    data : Path
        The folder, or the manifest in it, that features were extracted from.
    digests : mapping of str to str
        Path → SHA-256 of the bytes that the features were made from.
    rules : DecodeRules
        Those of the cache's recipe.

    Raises
    ------
    DataError
        If there is no such folder.
    """
    root = data.parent if data.is_file() else data
    if not root.is_dir():
        raise DataError(f"There is no folder {data}. Expected: the one that the features were extracted from.")
    with ThreadPoolExecutor(usable_cores()) as pool:
        made = pool.map(lambda path: thumbnail(root, path, digests[path], rules), digests)
        return {path: jpeg for path, jpeg in zip(digests, made, strict=True) if jpeg is not None}


def thumbnail(root: Path, path: str, sha256: str, rules: DecodeRules = DEFAULT_RULES) -> bytes | None:
    """Return a JPEG of one image; None where the file is gone, outside of the folder, or another one by now."""
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        return None
    try:
        data = read_image_bytes(root, ImageRef(path, None, None, None, *state_of((root / path).stat())))
        if hashlib.sha256(data).hexdigest() != sha256:
            return None
        pixels = decode(data, name=path, shrink=shrink, rules=rules).pixels
    except (ImageError, OSError, ValueError):
        return None
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "JPEG", quality=QUALITY)
    return written.getvalue()


def shrink(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image that fits into a square of :data:`SIZE_PX`; smaller ones stay as they are."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((SIZE_PX, SIZE_PX))
    return np.asarray(image)
