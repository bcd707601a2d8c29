"""What of a scan is already known, and what has to be computed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.cache.rows import PathIndex
from headstart.extract.reused_rows import KnownRows, own_digests, rows_with
from headstart.images.discovery.refs import ImageRefs, same_files
from headstart.images.load import read_image_bytes
from headstart.images.read_ahead import threads_of
from headstart.storage.address import Address, Location
from headstart.texts import BLOCK_ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.types import ImageRef

#: Bytes that are looked at, from the middle of a file: what comes before may be a camera's own, the same in every picture.
SAMPLE_BYTES = 4096

#: Files that are handed to the threads at once.
SAMPLED_AT_ONCE = 1000


def possible_duplicates(
    root: Location, refs: Sequence[ImageRef], sizes: NDArray[np.int64], *, threads: int
) -> NDArray[np.bool_]:
    """Return whether another of these files has the same size and the same bytes in its middle, shape (n_refs,).

    All other files are certainly unique. Objects in a bucket are all possible duplicates, since they already agree in size
    and ETag. A file that cannot be read is none: decoding it will report why.

    Parameters
    ----------
    root : Path or Address
        Folder that the paths are relative to.
    refs : sequence of ImageRef
        The files.
    sizes : ndarray of shape (n_refs,), int64
        Their sizes in bytes.
    threads : int
        Files read at the same time.
    """
    if isinstance(root, Address):  # a part of an object costs a request, as the whole does
        return np.ones(len(refs), bool)
    keys = np.fromiter(sample_keys(root, refs, threads), np.uint64, len(refs))
    order = np.lexsort((keys, sizes))
    same = (sizes[order][1:] == sizes[order][:-1]) & (keys[order][1:] == keys[order][:-1])
    found = np.zeros(len(refs), bool)
    found[order[1:]] |= same
    found[order[:-1]] |= same
    found &= keys != 0
    return found


def sample_keys(root: Path, refs: Sequence[ImageRef], threads: int) -> Iterator[int]:
    """Yield 64 bits for the sample of each file, never 0; 0 where it cannot be read."""
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(refs), SAMPLED_AT_ONCE):
            block = refs[start : start + SAMPLED_AT_ONCE]
            samples = pool.map(lambda ref: read_sample(root / ref.path, middle(ref)), block)
            for ref, sample in zip(block, samples, strict=True):
                yield key_of(sample) if sample or not ref.size_bytes else 0


def middle(ref: ImageRef) -> int:
    """Return where the sample of a file begins."""
    return max(0, (ref.size_bytes - SAMPLE_BYTES) // 2)


def key_of(sample: bytes) -> int:
    """Return 64 bits of the digest of a sample, the last of them set."""
    return int.from_bytes(hashlib.sha256(sample).digest()[:8]) | 1


def read_sample(path: Path, start: int) -> bytes:
    """Return some bytes of a regular file; none of what cannot be read."""
    try:
        # Without O_NONBLOCK, opening a pipe that took the file's place would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError):
        return b""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        os.lseek(descriptor, start, os.SEEK_SET)
        return os.read(descriptor, SAMPLE_BYTES)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


#: Why a row need not be computed, in the words of the summary.
REASONS = ("unchanged", "touched", "moved", "identical")

#: Files that are handed to the threads at once.
HASHED_AT_ONCE = 1024


@dataclass(slots=True)
class Plan:
    """How each image of a scan comes to its row.

    Attributes
    ----------
    sources : ndarray of shape (n_refs,), int32
        Index of the file among the sources whose row is reused for each image of the scan; −1 where there is none.
    rows : ndarray of shape (n_refs,), int64
        Row in that file, or −1.
    compute : ImageRefs
        Images to run through the network, in the order of the scan.
    copies : dict of str to str
        Path → path of an image with the same bytes that is being computed.
    reasons : Counter
        How many rows are reused, per reason (:data:`REASONS`).
    why : dict of str to str
        Path → why the image is computed: ``new``, ``changed``, ``unreadable before`` or ``decoded by older rules``.
    gone : ndarray of shape (n_gone,), int64
        Rows of the first source whose images are gone. One that lies under a new name is not gone; a copy that is gone is.
    """

    sources: NDArray[np.int32]
    rows: NDArray[np.int64]
    compute: ImageRefs = field(default_factory=lambda: ImageRefs.of(()))
    copies: dict[str, str] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    why: dict[str, str] = field(default_factory=dict)
    gone: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


def make_plan(
    root: Location, refs: ImageRefs, sources: Sequence[KnownRows], *, threads: int = 2, check_bytes: bool = False
) -> Plan:
    """Return which images are known by path, size, time and stamp, or by their content, and which are new.

    Only files that could be equal to another are read for it: whole where a known one has their size, or where a new one has
    their size and the bytes of their middle. Digests of the sources are read only if there are any.

    Parameters
    ----------
    root : Path or Address
        Folder that the paths are relative to.
    refs : ImageRefs
        The scan.
    sources : sequence of KnownRows
        The old cache and the shards of an interrupted run, all of the same recipe; earlier ones win.
    threads : int
        Files hashed at the same time.
    check_bytes : bool
        Read every known file, whatever its size and times are.
    """
    index = PathIndex([source.rows.path for source in sources])
    at = index.find(refs.paths)
    known_sizes = joined([source.rows.size_bytes for source in sources])
    unchanged, usable = is_unchanged(at, refs, known_sizes, sources), usable_rows(sources)
    rows = np.where(unchanged & usable[at] & (not check_bytes), at, -1)
    doubtful = np.flatnonzero(rows < 0)
    plan = Plan(*index.split(rows))
    if len(doubtful) < len(refs):
        plan.reasons["unchanged"] = len(refs) - len(doubtful)
    if len(doubtful):
        known_times = joined([source.rows.mtime_ns for source in sources])
        keys, known_keys = contents_keys(root, refs.sizes, refs.times), contents_keys(root, known_sizes, known_times)
        possible = could_be_equal(root, refs.taken(doubtful), keys[doubtful], known_keys, threads)
        candidates = doubtful[possible | of_known_path(root, at[doubtful])]
        digests = hash_files(root, (refs[number] for number in candidates), threads=threads_of(root, threads))
        rows[doubtful] = look_up(plan, refs, doubtful, at, unchanged, digests, sources, usable)
        plan.sources, plan.rows = index.split(rows)
    if sources:
        plan.gone = gone_rows(sources[0], at, rows)
    return plan


def usable_rows(sources: Sequence[KnownRows]) -> NDArray[np.bool_]:
    """Return of each row of the sources whether it holds what its image is decoded to now, shape (n_rows + 1,).

    The last stands for an image without a row, whose index is −1.
    """
    usable, start = np.ones(sum(map(len, sources)) + 1, np.bool_), 0
    for source in sources:
        usable[start + source.outdated] = False
        start += len(source)
    return usable


def is_unchanged(
    at: NDArray[np.int64], refs: ImageRefs, known_sizes: NDArray[np.int64], sources: Sequence[KnownRows]
) -> NDArray[np.bool_]:
    """Return whether each image has size and time of the row of its path, shape (n_refs,)."""
    times, stamps = joined([source.rows.mtime_ns for source in sources]), joined([s.rows.stamp for s in sources])
    same = np.zeros(len(refs), np.bool_)
    for start in range(0, len(refs) if len(times) else 0, BLOCK_ROWS):  # by blocks, for what is needed on the way
        part = slice(start, start + BLOCK_ROWS)
        rows, files = at[part], (refs.times[part], refs.stamps[part])
        same[part] = (rows >= 0) & (known_sizes[rows] == refs.sizes[part])
        same[part] &= same_files(times[rows], stamps[rows], *files)
    return same


def gone_rows(source: KnownRows, at: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of the first source whose path no image has, and whose bytes no image has under a new name.

    ``at`` is the row of each image's path, ``rows`` the row whose features it gets; both −1 where there is none.
    """
    n_rows, is_gone = len(source), np.ones(len(source), bool)
    is_gone[at[(at >= 0) & (at < n_rows)]] = False
    gone = np.flatnonzero(is_gone)
    if not len(gone):
        return gone
    digests = source.rows.sha256.array
    moved = {digests[row].tobytes() for row in rows[(rows >= 0) & (rows < n_rows) & (rows != at)].tolist()}
    return np.array([row for row in gone.tolist() if digests[row].tobytes() not in moved], np.int64)


def contents_keys(root: Location, sizes: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a number for each file without which two are not equal: the size, in a bucket with that of the ETag.

    In a bucket a look at a file costs a request. Equal images that were uploaded in different ways have different ETags;
    then each is computed.
    """
    return sizes * 10**9 + times % 10**9 if isinstance(root, Address) else sizes


def of_known_path(root: Location, at: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether an image in a bucket has a row of its path: it may only have been uploaded again."""
    return (at >= 0) & isinstance(root, Address)


def could_be_equal(
    root: Location, refs: ImageRefs, sizes: NDArray[np.int64], known_sizes: NDArray[np.int64], threads: int
) -> NDArray[np.bool_]:
    """Return whether each file has the size of a known one, or is a possible duplicate of another of these.

    ``sizes`` and ``known_sizes`` are those of :func:`contents_keys`.
    """
    _, which, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    possible: NDArray[np.bool_] = np.isin(sizes, known_sizes)
    several = np.flatnonzero(~possible & (counts[which] > 1))
    possible[several] = possible_duplicates(root, refs.taken(several), sizes[several], threads=threads)
    return possible


def look_up(
    plan: Plan,
    refs: ImageRefs,
    doubtful: NDArray[np.int64],
    at: NDArray[np.int64],
    unchanged: NDArray[np.bool_],
    digests: Mapping[str, bytes],
    sources: Sequence[KnownRows],
    usable: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Return the row that has the bytes of each doubtful image, −1 where none has; say in the plan what to do then."""
    by_digest, own = rows_with(digests.values(), sources, usable), own_digests(at[doubtful], sources)
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


def hash_files(root: Location, refs: Iterable[ImageRef], *, threads: int) -> dict[str, bytes]:
    """Return path → digest of some files; one that cannot be read is left out."""
    found: dict[str, bytes] = {}
    with ThreadPoolExecutor(threads) as pool:
        remaining = iter(refs)
        while block := list(islice(remaining, HASHED_AT_ONCE)):  # a pool takes all that it is given at once
            digests = pool.map(lambda ref: hash_file(root, ref), block)
            found.update({ref.path: digest for ref, digest in zip(block, digests, strict=True) if digest})
    return found


def hash_file(root: Location, ref: ImageRef) -> bytes | None:
    """Return the digest of a file's bytes; None where the worker will find out why it cannot be read."""
    try:
        return hashlib.sha256(read_image_bytes(root, ref)).digest()
    except (OSError, ValueError):
        return None


def joined(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return some columns end to end; a single one as it is."""
    return columns[0] if len(columns) == 1 else np.concatenate(columns or [np.empty(0, np.int64)])
