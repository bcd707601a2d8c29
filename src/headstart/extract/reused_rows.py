"""Rows that need not be computed again: those of a finished cache, and of the shards of an interrupted run."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.cache.checks.integrity import verify
from headstart.cache.reader import FeatureCache, open_cache
from headstart.errors import CacheError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.cache.rows import Rows
    from headstart.types import Failure, Progress, Recipe

#: Notes that no image has any more: Pillow's modes of more than 8 bits (now the type, as ``from-uint16``), and of TIFFs
#: ``first-frame`` (now ``first-page``).
OLD_DEPTH, OLD_FIRST_PAGE = re.compile(rb"from-[IF]"), re.compile(rb"first-frame")


@dataclass(frozen=True, slots=True)
class KnownRows:
    """The rows of a finished file.

    Attributes
    ----------
    file : Path or FeatureCache
        Where a merge finds their features: an open cache, or a file that it opens.
    recipe : Recipe
        How the features were made.
    info : mapping
        Further provenance.
    rows : Rows
        The columns path, sha256, size_bytes, mtime_ns and stamp.
    failures : tuple of Failure
        Images that could not be read.
    outdated : ndarray of shape (n_outdated,), int64
        Rows of images that other rules turn into pixels by now (decision 0010): their features are not those of the recipe.
    """

    file: Path | FeatureCache
    recipe: Recipe
    info: Mapping[str, Any]
    rows: Rows
    failures: tuple[Failure, ...]
    outdated: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows.path)

    @classmethod
    def of_open(cls, cache: FeatureCache) -> KnownRows:
        """Return the rows of a cache that stays open; a column is read when it is asked for."""
        return cls(cache, cache.recipe, cache.info, cache.rows, cache.failures, outdated_rows(cache.rows))

    @classmethod
    def of_closed(cls, cache: FeatureCache) -> KnownRows:
        """Return the rows of a cache that will be closed; the columns are read now."""
        rows = cache.rows.kept("path", "sha256", "size_bytes", "mtime_ns", "stamp")
        return cls(cache.file, cache.recipe, cache.info, rows, cache.failures, outdated_rows(cache.rows))

    @classmethod
    def of_file(cls, path: Path) -> KnownRows:
        """Return the rows of a file that is not open.

        Raises
        ------
        CacheError
            If it is damaged.
        """
        with open_cache(path) as cache:
            return cls.of_closed(cache)


def outdated_rows(rows: Rows) -> NDArray[np.int64]:
    """Return the rows that older rules decoded otherwise: more than 8 bits each by its own range, and pages of TIFFs."""
    pages = rows.notes.texts.rows_with(OLD_FIRST_PAGE)
    of_tiff = [row for row in pages.tolist() if rows.path[row].lower().endswith((".tif", ".tiff"))]
    return np.union1d(rows.notes.texts.rows_with(OLD_DEPTH), np.array(of_tiff, np.int64))


def own_digests(at: NDArray[np.int64], sources: Sequence[KnownRows]) -> NDArray[np.uint8]:
    """Return the digests of some rows of the sources, shape (n_rows, 32); zeros where the row is −1."""
    found, start = np.zeros((len(at), 32), np.uint8), 0
    for source in sources:
        here = (at >= start) & (at < start + len(source))
        if here.any():
            found[here] = source.rows.sha256.array[at[here] - start]
        start += len(source)
    return found


def rows_with(digests: Collection[bytes], sources: Sequence[KnownRows], usable: NDArray[np.bool_]) -> dict[bytes, int]:
    """Return digest → the first usable row that has it, for those of some digests that the sources have."""
    found: dict[bytes, int] = {}
    if not digests:
        return found
    wanted, start = set(digests), 0
    heads = np.unique(np.frombuffer(b"".join(digest[:8] for digest in wanted), np.uint64))
    for source in sources:
        array = source.rows.sha256.array
        for row in np.flatnonzero(np.isin(array[:, :8].copy().view(np.uint64)[:, 0], heads)).tolist():
            digest = array[row].tobytes()
            if digest in wanted and usable[start + row]:
                found.setdefault(digest, start + row)
        start += len(array)
    return found


def left_shards(
    left: Sequence[Path],
    recipe: Recipe | None,
    wanted: Callable[[Recipe], Recipe],
    progress: Progress,
    *,
    keep_unusable: bool = False,
) -> list[KnownRows]:
    """Return the shards that were left; those that are damaged or of another recipe are deleted, unless they are to be kept.

    Each is read to its end and compared with its checksums: a merge moves rows as they are, damage included.

    Parameters
    ----------
    left : sequence of Path
        The files.
    recipe : Recipe or None
        What all of them must be made by; None where the first one says it.
    wanted : callable
        Recipe of a shard → the recipe it should have, asked where ``recipe`` is None.
    progress : Progress
        Is told what is used, and what is damaged.
    keep_unusable : bool
        Delete nothing.
    """
    shards: list[KnownRows] = []
    for path in left:
        try:
            shard = whole(path)
        except CacheError as error:
            progress.message(f"A shard of the interrupted run is not whole and is computed again ({error})")
            discard(path, keep=keep_unusable)
            continue
        if shard.recipe != (recipe or wanted(shard.recipe)):
            discard(path, keep=keep_unusable)
            continue
        recipe = shard.recipe
        shards.append(shard)
    if shards:
        n_rows = sum(map(len, shards))
        progress.message(f"Going on where an interrupted run stopped: {n_rows:,} images are done.")
    return shards


def discard(path: Path, *, keep: bool) -> None:
    """Delete a shard that cannot be used, unless it is to be kept."""
    if not keep:
        path.unlink(missing_ok=True)


def whole(path: Path) -> KnownRows:
    """Return the rows of a shard that is verified.

    Raises
    ------
    CacheError
        If it is damaged.
    """
    with open_cache(path) as shard:
        verify(shard)
        return KnownRows.of_closed(shard)
