"""Features as a plain HDF5 file that any program reads without a plug-in: docs/exchange.md describes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5f, h5p, h5s, h5t
from numpy.typing import NDArray

from headstart.cache.columns import encode, write_numbers
from headstart.cache.columns import write_text as write_text_column
from headstart.cache.format import COLUMN_CHUNK_BYTES, GZIP_LEVEL
from headstart.cache.header import write_text_attribute
from headstart.cache.publish import published, writing

#: The format of HDF5 1.8 (2008): the oldest whose headers carry checksums, and read by everything in use.
PORTABLE_VERSIONS = (h5f.LIBVER_V18, h5f.LIBVER_V18)

Texts = Callable[[], Iterable[str]]


def write_portable(
    path: Path,
    *,
    blocks: Iterable[NDArray[np.float32]],
    shape: tuple[int, int],
    y: NDArray[np.integer[Any]],
    texts: Mapping[str, tuple[int, Texts]],
    attributes: Mapping[str, str],
) -> None:
    """Write a matrix and what belongs to its rows; the file appears whole or not at all.

    Parameters
    ----------
    path : Path
        The file.
    blocks : iterable of ndarray of shape (n, n_features), float32
        X from the top.
    shape : tuple of int
        Of X.
    y : ndarray of shape (n_samples,), integer
        Labels, stored as int32.
    texts : mapping of str to tuple of int and callable
        Datasets of strings: length, and what yields them.
    attributes : mapping of str to str
        Of the root.

    Raises
    ------
    CacheError
        If a text cannot be stored or the file cannot be written.
    """
    with published(path, PORTABLE_VERSIONS) as (file, below), writing(path):
        dataset, start = create_matrix(file, shape), 0
        for block in blocks:
            dataset[start : start + len(block)] = block
            start += len(block)
            below.check()
        write_numbers(file, "y", np.asarray(y, "<i4"))
        for name, (length, strings) in texts.items():
            write_text_column(file, name, encoded(strings, name), length)
        for name, value in attributes.items():
            write_text_attribute(file, name, value)


def encoded(strings: Texts, name: str) -> Callable[[], Iterable[bytes]]:
    """Return the strings in the bytes in which they are stored."""
    return lambda: (encode(text, name) for text in strings())


def create_matrix(file: Any, shape: tuple[int, int]) -> Any:
    """Create ``/X``: float32, some rows per chunk, shuffled, deflated, with a checksum: filters that every library has."""
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    properties.set_chunk((max(1, min(shape[0], COLUMN_CHUNK_BYTES // (4 * shape[1]))), shape[1]))
    properties.set_shuffle()
    properties.set_deflate(GZIP_LEVEL)
    properties.set_fletcher32()
    return h5py.Dataset(h5d.create(file.id, b"X", h5t.IEEE_F32LE, h5s.create_simple(shape), properties))
