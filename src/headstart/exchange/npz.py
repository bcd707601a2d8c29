"""A NumPy archive, written member by member and block by block, so that X is never in memory as a whole."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from headstart.cache.publish import published_bytes
from headstart.exchange import FORMAT, FORMAT_VERSION

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.exchange.contents import Contents

#: Strings that are in memory as an array at a time.
TEXT_BLOCK = 4096

#: Time of every member, the earliest that a zip file can say: equal content gives equal bytes.
NO_TIME = (1980, 1, 1, 0, 0, 0)


def write_npz(path: Path, contents: Contents) -> None:
    """Write what ``np.load(path, allow_pickle=False)`` reads; the file appears whole or not at all.

    Raises
    ------
    CacheError
        If the file cannot be written, or a row of the cache cannot be read.
    """
    n, width = contents.n_samples, len(contents.feature_names)
    with published_bytes(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        write_text(archive, "format", lambda: [f"{FORMAT}-{FORMAT_VERSION}"])
        write_text(archive, "recipe", lambda: [contents.recipe])
        write_array(archive, "X", np.dtype("<f4"), (n, width), contents.blocks())
        write_array(archive, "y", np.dtype("<i8"), (n,), [contents.y])
        for name, texts in contents.texts.items():
            write_text(archive, plural(name), texts, n)
        for name in ("class_names", "features", "feature_names"):
            write_text(archive, name, lambda name=name: getattr(contents, name), len(getattr(contents, name)))  # type: ignore[misc]
        if contents.map_shape:
            write_array(archive, "map_shape", np.dtype("<i8"), (3,), [np.array(contents.map_shape)])


def plural(column: str) -> str:
    """Return the name of an array that holds a column of texts."""
    return {"path": "paths", "label": "labels"}.get(column, column)


def write_text(
    archive: zipfile.ZipFile, name: str, texts: Callable[[], Iterable[str]], n_rows: int | None = None
) -> None:
    """Write strings as an array of fixed-length Unicode; without ``n_rows`` the single one as a scalar."""
    dtype = np.dtype(f"<U{max(map(len, texts()), default=1) or 1}")
    write_array(archive, name, dtype, () if n_rows is None else (n_rows,), text_blocks(texts(), dtype))


def text_blocks(texts: Iterable[str], dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """Yield strings as arrays of at most 4,096."""
    remaining = iter(texts)
    while part := list(islice(remaining, TEXT_BLOCK)):
        yield np.array(part, dtype)


def write_array(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], blocks: Iterable[NDArray[Any]]
) -> None:
    """Write one array from its blocks, the first axis cut."""
    member = zipfile.ZipInfo(f"{name}.npy", NO_TIME)
    member.compress_type = zipfile.ZIP_DEFLATED
    header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(member, "w", force_zip64=True) as stream:
        npy.write_array_header_1_0(stream, header)
        for block in blocks:
            stream.write(np.ascontiguousarray(block, dtype).tobytes())
