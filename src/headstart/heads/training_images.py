"""``training.digests``: which images a head was fitted on, by the first eight bytes of the SHA-256 of each of their files.

The numbers are sorted, unsigned and little-endian, eight bytes each, with nothing before or after them. By chance, one of a
million other images has the digest of one of a million training images in 1 of 18 million cases.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headstart.errors import BundleError
from headstart.texts import reason_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Hexadecimal digits of eight bytes.
SHORT = 16

#: Of 134 million images.
MAX_BYTES = 2**30


def short_digests(sha256: Iterable[str]) -> NDArray[np.uint64]:
    """Return the first eight bytes of each digest as a number, in their order."""
    return np.fromiter((int(digest[:SHORT], 16) for digest in sha256), np.uint64)


def write_digests(path: Path, digests: NDArray[np.uint64]) -> None:
    """Write the digests of the training images."""
    path.write_bytes(np.unique(digests).astype("<u8").tobytes())


def read_digests(path: Path) -> NDArray[np.uint64]:
    """Return the digests of the training images, ascending.

    Raises
    ------
    BundleError
        If the file is none of sorted digests.
    """
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b"too long"
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {reason_of(error)}") from error
    digests = np.frombuffer(data[: len(data) // 8 * 8], "<u8").astype(np.uint64)
    if len(data) % 8 or not len(data) or (digests[1:] <= digests[:-1]).any():
        raise BundleError(f"{path} is damaged: it does not hold sorted digests of eight bytes. Fit the head again.")
    return digests
