"""Recompute damaged rows and shards of a cache from their images; all other rows stay unchanged, byte for byte."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from headstart.backbones.registry import build_backbone, check_runnable
from headstart.cache.format import FEATURES
from headstart.cache.integrity import Finding, verify_file
from headstart.cache.merge import MergedRow, MergedRows, merge, publish_shards
from headstart.cache.other_hdf5 import check_is_file
from headstart.cache.reader import FeatureCache, open_cache, open_folder, open_single
from headstart.cache.shards import ShardFolder, shard_folder
from headstart.errors import CacheError, DataError
from headstart.extract.lock import lock
from headstart.extract.output import first_number
from headstart.extract.pipeline import extract_shard
from headstart.extract.plan import hash_file
from headstart.extract.shard_jobs import ShardJob
from headstart.images.discovery.refs import ImageRefs, state_of
from headstart.storage.publishing import writing
from headstart.texts import listed
from headstart.types import Backbone, Failure, ImageRef, Progress, Silence
from headstart.verify import is_damaged_row, is_damaged_shard

#: Rows named in an error message.
NAMED = 3


def _lost_rows(cache: FeatureCache, shards: Collection[str]) -> list[int]:
    """Return the rows of those shards that cannot be opened."""
    if cache.places is None or not shards:
        return []
    lost: list[int] = []
    for number, name in enumerate(cache.places.table.names):
        rows = np.flatnonzero(cache.places.shard == number).tolist() if name in shards else []
        if rows:
            try:
                cache.filters(FEATURES, rows[0])
            except CacheError:
                lost += rows
    return lost


def _replace_shards(
    folder: ShardFolder,
    cache: FeatureCache,
    shards: Collection[str],
    again: Mapping[int, ImageRef],
    part: FeatureCache | None,
) -> None:
    """Write one new shard in place of the damaged ones: rows in ``again`` from ``part``, the others copied.

    The damaged shards are deleted once the manifest names the new one.
    """
    if cache.places is None:
        raise ValueError(f"{cache.path} is not a folder of shards")
    names, shard = cache.places.table.names, cache.places.shard
    bad = {number for number, name in enumerate(names) if name in shards} | {int(shard[row]) for row in again}
    affected = np.flatnonzero(np.isin(shard, list(bad))).tolist()
    if not affected:
        return
    refs = cache.refs()
    for row, ref in again.items():
        refs[row] = ref
    new = folder.path / f"{first_number(folder.path):020d}.h5"
    _write_rows(new, cache, affected, again, part, failures=())
    sources, rows = np.zeros(len(refs), np.int32), np.arange(len(refs))
    sources[affected], rows[affected] = 1, np.arange(len(affected))
    publish_shards(
        folder,
        sources=[cache, new],
        rows=MergedRows(sources, rows, ImageRefs.of(refs)),
        failures=cache.failures,
        class_names=cache.class_names,
        layout=cache.layout,
        info=cache.info,
    )


def _write_rows(
    path: Path,
    cache: FeatureCache,
    rows: Sequence[int],
    again: Mapping[int, ImageRef],
    part: FeatureCache | None,
    failures: Sequence[Failure],
) -> None:
    """Write some rows of a cache to a file: rows in ``again`` from ``part``, the others copied."""
    numbers, refs = {row: number for number, row in enumerate(again)}, cache.refs()
    merge(
        path,
        sources=[cache, *([part] if part else [])],
        rows=[MergedRow(1, numbers[row], again[row]) if row in again else MergedRow(0, row, refs[row]) for row in rows],
        failures=failures,
        class_names=cache.class_names,
        layout=cache.layout,
        info=cache.info,
    )


@dataclass(frozen=True, slots=True)
class Repair:
    """The result of a repair."""

    path: Path  # the cache
    n_images: int  # rows of the cache
    images: tuple[str, ...]  # paths of the recomputed rows; empty if nothing was damaged


def repair_cache(
    path: str | Path,
    data: str | Path,
    *,
    weights: str | Path | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    backbone: Backbone | None = None,
    progress: Progress | None = None,
) -> Repair:
    """Recompute the damaged rows of a cache, and replace the file once the new one is complete.

    In a folder of shards, missing and damaged shards are replaced. Labels, splits, the order of the rows and all other
    features stay the same. New images in the folder are ignored; ``extract_features`` adds them.

    Parameters
    ----------
    path, data : str or Path
        The cache, which stays unchanged until the new one is complete, and the folder of images.
    weights, batch_size, device, backbone, progress
        See :func:`headstart.verify.verify_cache`.

    Raises
    ------
    CacheError
        If more than rows of features is damaged, the image of a damaged row is missing or has changed, the file cannot
        be written, or another process is writing it. The cache is unchanged then.
    RecipeMismatchError, DataError
        If the features were imported, the weights are not those of the recipe, or ``data`` is not a folder.
    """
    path, root, progress = Path(path), Path(data), progress or Silence()
    if not root.is_dir():
        raise DataError(f"{root} is not a folder. Expected: the folder of images that {path} was made from.")
    folder = shard_folder(path)
    if folder is None:
        check_is_file(path)  # before a lock is laid beside it
    target = folder.path if folder else path
    with lock(target):
        rows, shards = _damaged_places(target, progress)
        opened = open_folder(folder, check_shards=False) if folder else open_single(target)
        with FeatureCache(opened) as cache:
            rows = sorted({*rows, *_lost_rows(cache, shards)})
            if not rows and not shards:
                return Repair(target, cache.n_images, ())
            if rows:
                check_runnable(cache.recipe)
            refs = _unchanged_refs(cache, root, rows)
            if rows:
                backbone = backbone or build_backbone(cache.recipe, weights, batch_size=batch_size, device=device)
            again = dict(zip(rows, refs, strict=True))
            with _recomputed(cache, root, again, backbone, progress) as part:
                if folder:
                    _replace_shards(folder, cache, shards, again, part)
                else:
                    _write_rows(cache.file, cache, range(cache.n_images), again, part, cache.failures)
            return Repair(target, cache.n_images, tuple(ref.path for ref in refs))


def _damaged_places(path: Path, progress: Progress) -> tuple[list[int], set[str]]:
    """Return damaged rows, and names of damaged or missing shards; raise CacheError if anything else is damaged."""
    rows: set[int] = set()
    shards: set[str] = set()
    others: list[Finding] = []
    for finding in verify_file(path, start=progress.start, advance=progress.advance):
        if finding.row is not None and is_damaged_row(finding):
            rows.add(finding.row)
        elif is_damaged_shard(finding):
            shards.add(finding.place)
        else:
            others.append(finding)
    if others:
        problems = listed((str(finding).rstrip(".") for finding in others), NAMED, "; ")
        raise CacheError(
            f"{path} cannot be repaired: more than rows of features is damaged ({problems}).",
            hint="Create it again: extract-features with `overwrite=True`.",
        )
    return sorted(rows), shards


def _unchanged_refs(cache: FeatureCache, root: Path, rows: Sequence[int]) -> list[ImageRef]:
    """Return the images of some rows with their current size and time; raise CacheError if one is missing or has changed."""
    refs, found, bad = cache.refs(), [], []
    for row in rows:
        try:
            size_bytes, mtime_ns, stamp = state_of((root / refs[row].path).stat())
        except OSError as error:
            bad.append(f"{refs[row].path}: {error.strerror}")
            continue
        ref = replace(refs[row], size_bytes=size_bytes, mtime_ns=mtime_ns, stamp=stamp)
        found.append(ref)
        if hash_file(root, ref) != bytes(cache.rows.sha256.array[row]):
            bad.append(f"{ref.path}: its bytes are not those that the row was made from")
    if bad:
        problems = listed((one.rstrip(".") for one in bad), NAMED, "; ")
        raise CacheError(
            f"{cache.path} cannot be repaired from {root}: the images of {len(bad):,} of {len(rows):,} damaged rows are "
            f"missing or have changed ({problems}).",
            hint="Restore them, or create the cache again: extract-features with `overwrite=True`.",
        )
    return found


@contextmanager
def _recomputed(
    cache: FeatureCache, root: Path, refs: Mapping[int, ImageRef], backbone: Backbone | None, progress: Progress
) -> Iterator[FeatureCache | None]:
    """Yield a cache of the recomputed rows, in the order of ``refs``; None if there are none."""
    if not refs or backbone is None:
        yield None
        return
    job = ShardJob(root, cache.class_names, cache.compression, stop_on_failure=True)
    progress.start(len(refs))
    with writing(cache.file), tempfile.TemporaryDirectory(dir=cache.file.parent, prefix=".repair-") as folder:
        part = Path(folder) / "rows.h5"
        extract_shard(list(refs.values()), part, job=job, backbone=backbone, on_images=progress.advance)
        with open_cache(part) as computed:
            if computed.recipe != cache.recipe:
                raise CacheError(f"{cache.path} cannot be repaired: the backbone makes features of another recipe.")
            yield computed
