"""What of a scan is already known, and what has to be computed."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.images.load import read_image_bytes

if TYPE_CHECKING:
    from headstart.cache.store import FeatureCache
    from headstart.schema import ImageRef

#: Why a row need not be computed, in the words of the summary.
REASONS = ("unchanged", "touched", "moved", "identical")


@dataclass(frozen=True, slots=True)
class KnownRow:
    """A row that some finished file holds.

    Attributes
    ----------
    source : int
        Index of the file among the sources of the plan.
    row : int
        Row in that file.
    """

    source: int
    row: int


@dataclass(slots=True)
class Plan:
    """How each image of a scan comes to its row.

    Attributes
    ----------
    known : dict of str to KnownRow
        Path → row that is reused.
    compute : list of ImageRef
        Images to run through the network, in the order of the scan.
    copies : dict of str to str
        Path → path of an image with the same bytes that is being computed.
    reasons : Counter
        How many rows are reused, per reason (:data:`REASONS`).
    why : dict of str to str
        Path → why the image is computed: ``new``, ``changed``, or ``unreadable before``.
    """

    known: dict[str, KnownRow] = field(default_factory=dict)
    compute: list[ImageRef] = field(default_factory=list)
    copies: dict[str, str] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    why: dict[str, str] = field(default_factory=dict)


def make_plan(root: Path, refs: Sequence[ImageRef], sources: Sequence[FeatureCache], *, threads: int = 2) -> Plan:
    """Return which images are known by path, size and time, or by their content, and which are new.

    Only files that could be equal to another (by size) are read for it.

    Parameters
    ----------
    root : Path
        Folder that the paths are relative to.
    refs : sequence of ImageRef
        The scan.
    sources : sequence of FeatureCache
        The old cache and the shards of an interrupted run, all of the same recipe; earlier ones win.
    threads : int
        Files hashed at the same time.
    """
    plan = Plan()
    by_path, by_sha256, sizes = index_sources(sources)
    doubtful = []
    for ref in refs:
        entry = by_path.get(ref.path)
        if entry is not None and entry[1:] == (ref.size_bytes, ref.mtime_ns):
            plan.known[ref.path] = entry[0]
            plan.reasons["unchanged"] += 1
        else:
            doubtful.append(ref)
    digests = hash_candidates(root, doubtful, sizes, threads=threads)
    first_with: dict[str, str] = {}
    unreadable = {failure.ref.path for source in sources for failure in source.failures}
    for ref in doubtful:
        digest = digests.get(ref.path)
        if digest is not None and digest in by_sha256:
            plan.known[ref.path] = by_sha256[digest]
            plan.reasons["touched" if ref.path in by_path else "moved"] += 1
        elif digest is not None and digest in first_with:
            plan.copies[ref.path] = first_with[digest]
            plan.reasons["identical"] += 1
        else:
            plan.compute.append(ref)
            before = "unreadable before" if ref.path in unreadable else "new"
            plan.why[ref.path] = "changed" if ref.path in by_path else before
            if digest is not None:
                first_with[digest] = ref.path
    return plan


def index_sources(
    sources: Sequence[FeatureCache],
) -> tuple[dict[str, tuple[KnownRow, int, int]], dict[str, KnownRow], set[int]]:
    """Return path → (row, size, time), digest → row, and the sizes of all known files."""
    by_path: dict[str, tuple[KnownRow, int, int]] = {}
    by_sha256: dict[str, KnownRow] = {}
    sizes: set[int] = set()
    for number, source in enumerate(sources):
        rows = source.rows
        columns = zip(rows.path, rows.sha256, rows.size_bytes.tolist(), rows.mtime_ns.tolist(), strict=True)
        for row, (path, digest, size, mtime) in enumerate(columns):
            known = KnownRow(number, row)
            by_path.setdefault(path, (known, size, mtime))
            by_sha256.setdefault(digest, known)
            sizes.add(size)
    return by_path, by_sha256, sizes


def hash_candidates(root: Path, refs: Sequence[ImageRef], known_sizes: set[int], *, threads: int) -> Mapping[str, str]:
    """Return path → digest of the files whose size occurs elsewhere; a file that cannot be read is left out."""
    by_size: defaultdict[int, list[ImageRef]] = defaultdict(list)
    for ref in refs:
        by_size[ref.size_bytes].append(ref)
    candidates: Iterable[ImageRef] = (
        ref for size, same in by_size.items() if size in known_sizes or len(same) > 1 for ref in same
    )
    with ThreadPoolExecutor(threads) as pool:
        return {path: digest for path, digest in pool.map(lambda ref: hash_file(root, ref), candidates) if digest}


def hash_file(root: Path, ref: ImageRef) -> tuple[str, str | None]:
    """Return the path and the digest of its bytes; None where the worker will find out why it cannot be read."""
    try:
        return ref.path, hashlib.sha256(read_image_bytes(root, ref)).hexdigest()
    except (OSError, ValueError):
        return ref.path, None
