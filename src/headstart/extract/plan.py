"""What a run computes and what the new cache holds: which images are new, and which rows are kept, dropped or copied."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.columns import PathIndex, Rows
from headstart.cache.merge import MergedRows, has_descriptions
from headstart.cache.reader import FeatureCache, open_cache
from headstart.errors import DataError
from headstart.extract.options import ExtractOptions
from headstart.images.discovery.refs import ImageRefs, read_part, same_files
from headstart.images.load import in_order, read_image_bytes, threads_of
from headstart.storage.bucket import Address, Location
from headstart.texts import BLOCK_ROWS, counted, printable
from headstart.types import Failure, ImageRef, Recipe

#: Notes of older rules: Pillow's modes of more than 8 bits (now the type, e.g. ``from-uint16``), and ``first-frame`` of TIFFs
#: (now ``first-page``).
OLD_DEPTH, OLD_FIRST_PAGE = re.compile(rb"from-[IF]"), re.compile(rb"first-frame")

#: Bytes read from the middle of a file: the beginning may be the camera's own, the same in every picture.
SAMPLE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class KnownRows:
    """The rows of a finished cache, or of a shard of an interrupted run, which need not be computed again."""

    file: Path | FeatureCache  # where a merge finds their features
    recipe: Recipe
    info: Mapping[str, Any]  # further provenance
    rows: Rows  # the columns path, sha256, size_bytes, mtime_ns and stamp
    failures: tuple[Failure, ...]  # images that could not be read
    #: Rows of images that are decoded by other rules now (decision 0010), shape (n_outdated,): their features are not those
    #: of the recipe.
    outdated: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows.path)

    @classmethod
    def of_open(cls, cache: FeatureCache) -> KnownRows:
        """Return the rows of a cache that stays open; columns are read when they are needed."""
        return cls(cache, cache.recipe, cache.info, cache.rows, cache.failures, _outdated_rows(cache.rows))

    @classmethod
    def of_closed(cls, cache: FeatureCache) -> KnownRows:
        """Return the rows of a cache that will be closed; the columns are read now."""
        rows = cache.rows.kept("path", "sha256", "size_bytes", "mtime_ns", "stamp")
        return cls(cache.file, cache.recipe, cache.info, rows, cache.failures, _outdated_rows(cache.rows))

    @classmethod
    def of_file(cls, path: Path) -> KnownRows:
        """Return the rows of a file; raise CacheError if it is damaged."""
        with open_cache(path) as cache:
            return cls.of_closed(cache)


def _outdated_rows(rows: Rows) -> NDArray[np.int64]:
    """Return the rows that older rules decoded differently: more than 8 bits each by its own range, and pages of TIFFs."""
    pages = rows.notes.texts.rows_with(OLD_FIRST_PAGE)
    of_tiff = [row for row in pages.tolist() if rows.path[row].lower().endswith((".tif", ".tiff"))]
    return np.union1d(rows.notes.texts.rows_with(OLD_DEPTH), np.array(of_tiff, np.int64))


@dataclass(slots=True)
class Plan:
    """How each image of a scan comes to its row."""

    #: Index of the source whose row is reused for each image, shape (n_refs,), and row in that source; −1 if there is none.
    sources: NDArray[np.int32]
    rows: NDArray[np.int64]
    compute: ImageRefs = field(default_factory=lambda: ImageRefs.of(()))  # images to compute, in the order of the scan
    copies: dict[str, str] = field(default_factory=dict)  # path → path of an image with the same bytes that is computed
    #: Reused rows per reason: ``unchanged``, ``touched``, ``moved``, ``identical``.
    reasons: Counter[str] = field(default_factory=Counter)
    #: Path → why the image is computed: ``new``, ``changed``, ``unreadable before`` or ``decoded by older rules``.
    why: dict[str, str] = field(default_factory=dict)
    #: Rows of the first source whose images are gone, shape (n_gone,). A renamed image is not gone; a copy that is gone is.
    gone: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


def make_plan(
    root: Location, refs: ImageRefs, sources: Sequence[KnownRows], *, threads: int = 2, check_bytes: bool = False
) -> Plan:
    """Return which images are known by path, size, time and stamp, or by their content (renamed ones), and which are new.

    Only files that could be equal to another are read: whole if a known one has their size, or a new one has their size
    and the bytes of their middle. Digests of the sources are read only if there are any. ``sources`` are the old cache
    and the shards of an interrupted run, all of the same recipe; earlier ones take precedence. ``threads`` files are
    hashed at the same time. ``check_bytes`` reads every known file, whatever its size and times are.
    """
    index = PathIndex([source.rows.path for source in sources])
    at = index.find(refs.paths)
    known_sizes = _joined([source.rows.size_bytes for source in sources])
    unchanged, usable = _is_unchanged(at, refs, known_sizes, sources), _usable_rows(sources)
    rows = np.where(unchanged & usable[at] & (not check_bytes), at, -1)
    doubtful = np.flatnonzero(rows < 0)
    plan = Plan(*index.split(rows))
    if len(doubtful) < len(refs):
        plan.reasons["unchanged"] = len(refs) - len(doubtful)
    if len(doubtful):
        known_times = _joined([source.rows.mtime_ns for source in sources])
        keys, known_keys = _contents_keys(root, refs.sizes, refs.times), _contents_keys(root, known_sizes, known_times)
        possible = _could_be_equal(root, refs.taken(doubtful), keys[doubtful], known_keys, threads)
        if isinstance(root, Address):  # an object of a known path may only have been uploaded again
            possible |= at[doubtful] >= 0
        candidates = doubtful[possible]
        digests = _hash_files(root, (refs[number] for number in candidates), threads=threads_of(root, threads))
        rows[doubtful] = _look_up(plan, refs, doubtful, at, unchanged, digests, sources, usable)
        plan.sources, plan.rows = index.split(rows)
    if sources:
        plan.gone = _gone_rows(sources[0], at, rows)
    return plan


def _usable_rows(sources: Sequence[KnownRows]) -> NDArray[np.bool_]:
    """Return which rows are decoded by the current rules, shape (n_rows + 1,); the last is for images without a row (−1)."""
    usable, start = np.ones(sum(map(len, sources)) + 1, np.bool_), 0
    for source in sources:
        usable[start + source.outdated] = False
        start += len(source)
    return usable


def _is_unchanged(
    at: NDArray[np.int64], refs: ImageRefs, known_sizes: NDArray[np.int64], sources: Sequence[KnownRows]
) -> NDArray[np.bool_]:
    """Return which images have the size and times of their path's row, shape (n_refs,)."""
    times, stamps = _joined([source.rows.mtime_ns for source in sources]), _joined([s.rows.stamp for s in sources])
    same = np.zeros(len(refs), np.bool_)
    for start in range(0, len(refs) if len(times) else 0, BLOCK_ROWS):  # in blocks, to save memory
        part = slice(start, start + BLOCK_ROWS)
        rows, files = at[part], (refs.times[part], refs.stamps[part])
        same[part] = (rows >= 0) & (known_sizes[rows] == refs.sizes[part])
        same[part] &= same_files(times[rows], stamps[rows], *files)
    return same


def _gone_rows(source: KnownRows, at: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of the first source whose path no image has, and whose bytes no image has under a new name.

    ``at`` is the row of each image's path, ``rows`` the row whose features it gets; −1 if there is none.
    """
    n_rows, is_gone = len(source), np.ones(len(source), bool)
    is_gone[at[(at >= 0) & (at < n_rows)]] = False
    gone = np.flatnonzero(is_gone)
    if not len(gone):
        return gone
    digests = source.rows.sha256.array
    moved = {digests[row].tobytes() for row in rows[(rows >= 0) & (rows < n_rows) & (rows != at)].tolist()}
    return np.array([row for row in gone.tolist() if digests[row].tobytes() not in moved], np.int64)


def _contents_keys(root: Location, sizes: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a number for each file that equal files share: the size; in a bucket with the ETag's hash.

    Reading an object costs a request. Equal images that were uploaded in different ways have different ETags, and each is
    computed.
    """
    return sizes * 10**9 + times % 10**9 if isinstance(root, Address) else sizes


def _could_be_equal(
    root: Location, refs: ImageRefs, sizes: NDArray[np.int64], known_sizes: NDArray[np.int64], threads: int
) -> NDArray[np.bool_]:
    """Return which files have the key (:func:`_contents_keys`) of a known one, or are possible duplicates of each other."""
    _, which, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    possible: NDArray[np.bool_] = np.isin(sizes, known_sizes)
    several = np.flatnonzero(~possible & (counts[which] > 1))
    possible[several] = possible_duplicates(root, refs.taken(several), sizes[several], threads=threads)
    return possible


def _look_up(
    plan: Plan,
    refs: ImageRefs,
    doubtful: NDArray[np.int64],
    at: NDArray[np.int64],
    unchanged: NDArray[np.bool_],
    digests: Mapping[str, bytes],
    sources: Sequence[KnownRows],
    usable: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Return the row with the bytes of each doubtful image, −1 if there is none; the plan receives reasons and new images."""
    by_digest, own = _rows_with(digests.values(), sources, usable), _own_digests(at[doubtful], sources)
    first_with: dict[bytes, str] = {}
    unreadable = {failure.ref.path for source in sources for failure in source.failures}
    found, new = np.full(len(doubtful), -1, np.int64), []
    for place, (number, path) in enumerate(zip(doubtful.tolist(), refs.paths.take(doubtful), strict=True)):
        has_row, digest = at[number] >= 0, digests.get(path)
        if digest is not None and has_row and usable[at[number]] and digest == own[place].tobytes():
            found[place] = at[number]
            plan.reasons["unchanged" if unchanged[number] else "touched"] += 1
        elif digest is not None and digest in by_digest:
            found[place] = by_digest[digest]
            plan.reasons["moved"] += 1
        elif digest is not None and digest in first_with:
            plan.copies[path] = first_with[digest]
            plan.reasons["identical"] += 1
        else:
            new.append(number)
            before = "unreadable before" if path in unreadable else "new"
            plan.why[path] = before if not has_row else "changed" if usable[at[number]] else "decoded by older rules"
            if digest is not None:
                first_with[digest] = path
    plan.compute = refs.taken(np.array(new, np.int64))
    return found


def _hash_files(root: Location, refs: Iterable[ImageRef], *, threads: int) -> dict[str, bytes]:
    """Return the digest of each file by its path; files that cannot be read are left out."""
    found = in_order(lambda ref: (ref.path, hash_file(root, ref)), refs, threads)
    return {path: digest for path, digest in found if digest}


def hash_file(root: Location, ref: ImageRef) -> bytes | None:
    """Return the digest of a file's bytes; None if it cannot be read, which its decoding will report."""
    try:
        return hashlib.sha256(read_image_bytes(root, ref)).digest()
    except (OSError, ValueError):
        return None


def _joined(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return columns one after the other, without a copy of a single one."""
    return columns[0] if len(columns) == 1 else np.concatenate(columns or [np.empty(0, np.int64)])


def _own_digests(at: NDArray[np.int64], sources: Sequence[KnownRows]) -> NDArray[np.uint8]:
    """Return the digests of some rows of the sources, shape (n_rows, 32); zeros where the row is −1."""
    found, start = np.zeros((len(at), 32), np.uint8), 0
    for source in sources:
        here = (at >= start) & (at < start + len(source))
        if here.any():
            found[here] = source.rows.sha256.array[at[here] - start]
        start += len(source)
    return found


def _rows_with(digests: Collection[bytes], sources: Sequence[KnownRows], usable: NDArray[np.bool_]) -> dict[bytes, int]:
    """Return the first usable row with each of some digests, for those that the sources have."""
    found: dict[bytes, int] = {}
    if not digests:
        return found
    wanted, start = set(digests), 0
    heads = np.unique(np.frombuffer(b"".join(digest[:8] for digest in wanted), np.uint64))
    for source in sources:
        array = source.rows.sha256.array
        for row in np.flatnonzero(np.isin(array[:, :8].copy().view(np.uint64)[:, 0], heads, kind="sort")).tolist():
            digest = array[row].tobytes()
            if digest in wanted and usable[start + row]:
                found.setdefault(digest, start + row)
        start += len(array)
    return found


def possible_duplicates(
    root: Location, refs: Sequence[ImageRef], sizes: NDArray[np.int64], *, threads: int
) -> NDArray[np.bool_]:
    """Return whether another of these files has the same size and the same bytes in its middle, shape (n_refs,).

    All other files are certainly unique. Objects in a bucket are all possible duplicates, since they already agree in size
    and ETag. A file that cannot be read is none: decoding it will report why.
    """
    if isinstance(root, Address):  # a part of an object costs a request, as the whole does
        return np.ones(len(refs), bool)
    found_keys = in_order(lambda ref: _sample_key(root / ref.path, ref.size_bytes), refs, threads)
    keys = np.fromiter(found_keys, np.uint64, len(refs))
    order = np.lexsort((keys, sizes))
    same = (sizes[order][1:] == sizes[order][:-1]) & (keys[order][1:] == keys[order][:-1])
    found = np.zeros(len(refs), bool)
    found[order[1:]] |= same
    found[order[:-1]] |= same
    found &= keys != 0
    return found


def _sample_key(path: Path, size_bytes: int) -> int:
    """Return 64 bits of the digest of a file's sample, the last of them set; 0 if it cannot be read."""
    sample = read_part(path, max(0, (size_bytes - SAMPLE_BYTES) // 2), SAMPLE_BYTES)
    return int.from_bytes(hashlib.sha256(sample).digest()[:8]) | 1 if sample or not size_bytes else 0


#: Share of the rows of a cache that may be dropped without ``drop_missing``.
MAX_DROPPED = 0.5

#: Key of the folder of images in the provenance of a cache (``info``).
SOURCE = "source"


def source_of(root: Location) -> str:
    """Return the address of a folder, or its absolute path without links."""
    return str(root) if isinstance(root, Address) else os.path.realpath(root)


def check_missing(
    sources: Sequence[KnownRows], plan: Plan, root: Location, target: Location, options: ExtractOptions
) -> None:
    """Raise DataError if a run would drop most rows of a cache, or any rows that were made from another folder.

    ``keep_missing`` keeps the rows of the cache, and ``drop_missing`` allows to drop them. The first of the ``sources``
    is the open cache to bring up to date, if there is one; the others are shards of an interrupted run.
    """
    if options.drop_missing:
        return
    for number, source in enumerate(sources):
        origin = other_folder(source, root)
        if isinstance(source.file, Path):
            n_used = len(np.unique(plan.rows[plan.sources == number]))
            if origin and n_used < len(source):
                raise DataError(
                    f"An interrupted run has left {len(source) - n_used:,} images of {origin} for {target}, which are not in "
                    f"{root} and would be dropped. Nothing was changed.",
                    hint="End that run first, write to another cache (`output`), or drop them with `drop_missing=True`.",
                )
        elif not options.keep_missing and len(plan.gone) > (0 if origin else MAX_DROPPED * len(source)):
            made_from = f", which was made from another folder ({origin})," if origin else ""
            raise DataError(
                f"{len(plan.gone):,} of the {counted(len(source))} of {target}{made_from} "
                f"{'is' if len(plan.gone) == 1 else 'are'} not in {root}, and their features "
                "would be dropped. Nothing was changed.",
                hint="Write to another cache (`output`), keep these rows with `keep_missing=True`, or drop them with "
                "`drop_missing=True`.",
            )


def other_folder(source: KnownRows, root: Location) -> str:
    """Return the folder that rows were made from, if it is known and another one than now; else nothing."""
    known = str(source.info.get(SOURCE, ""))
    return "" if known in ("", source_of(root)) else printable(known)


def assemble(
    refs: ImageRefs, plan: Plan, new: Sequence[KnownRows], *, n_sources: int, failures: Sequence[Failure]
) -> tuple[MergedRows, tuple[Failure, ...]]:
    """Return the rows of the new cache in the order of the scan, and the failures of copies of images that failed.

    ``new`` are the computed shards, numbered after the ``n_sources`` of the plan; ``failures`` are those of computed images.
    """
    missing = np.flatnonzero(plan.sources < 0)
    if not len(missing):
        return MergedRows(plan.sources, plan.rows, refs), ()
    index = PathIndex([source.rows.path for source in new])
    numbers, rows = index.split(index.find([plan.copies.get(path, path) for path in refs.paths.take(missing)]))
    all_sources, all_rows = plan.sources.copy(), plan.rows.copy()
    all_sources[missing], all_rows[missing] = np.where(numbers < 0, -1, numbers + n_sources), rows
    reasons = {failure.ref.path: failure.reason for failure in failures}
    without = refs.taken(missing[numbers < 0])
    copies = tuple(Failure(ref, reasons[plan.copies[ref.path]]) for ref in without if ref.path in plan.copies)
    kept = all_sources >= 0
    return MergedRows(all_sources[kept], all_rows[kept], refs.taken(np.flatnonzero(kept))), copies


def with_missing(rows: MergedRows, old: FeatureCache, gone: NDArray[np.int64]) -> MergedRows:
    """Return the rows and the ``gone`` ones of the old cache, the first source, sorted by path."""
    refs = ImageRefs.of(chain(rows.refs, old.iter_refs(gone)))
    order = np.array(sorted(range(len(refs)), key=refs.paths.raw), np.int64)
    sources = np.concatenate([rows.sources, np.zeros(len(gone), np.int32)])
    return MergedRows(sources[order], np.concatenate([rows.rows, gone])[order], refs.taken(order))


def is_current(
    old: FeatureCache,
    rows: MergedRows,
    failures: Sequence[Failure],
    class_names: tuple[str, ...],
    layout: str,
) -> bool:
    """Return whether the old cache, the first source, already has these rows and descriptions."""
    return (
        old.n_images == len(rows)
        and old.class_names == class_names
        and old.layout == layout
        and not rows.sources.any()
        and np.array_equal(rows.rows, np.arange(len(rows)))
        and has_descriptions(old, rows.refs)
        and list(map(_key_of, old.failures)) == list(map(_key_of, failures))
    )


def _key_of(failure: Failure) -> tuple[str | None, ...]:
    """Return what a cache stores of an unreadable image, except its times."""
    ref = failure.ref
    return ref.path, ref.label, ref.split, ref.group, failure.reason
