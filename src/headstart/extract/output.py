"""Output targets: a file into which the shards of a run are merged, a folder of shards, or an object in a bucket."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from headstart.cache.merge import MergedRows, merge, publish_shards
from headstart.cache.opening import copy_of, open_folder
from headstart.cache.publish import writing
from headstart.cache.shards import OWN_SHARD_NAME, ShardFolder
from headstart.errors import CacheError, HeadstartError
from headstart.extract.lock import lock
from headstart.storage import bucket, objects
from headstart.storage.address import Address, Location
from headstart.storage.claim import Claim, claimed

if TYPE_CHECKING:
    from headstart.cache.reader import FeatureCache
    from headstart.storage.bucket import Entry

#: Shards that are moved to or from a bucket at the same time.
MOVES = 8


class BucketFile:
    """An object; see :class:`headstart.extract.output.Destination`.

    The bucket has the shards under ``.<name>.parts/`` until the cache is there: another machine can go on with them. This
    machine has them too, in the user's cache folder, since it merges them.

    Parameters
    ----------
    target : Address
        The object.
    """

    moves_rows = True

    def __init__(self, target: Address) -> None:
        self.target = target
        self.file = objects.folder_of(target) / "making" / target.name
        self.parts = self.file.with_name(f".{target.name}.parts")
        self.shards_at = target.with_name(f".{target.name}.parts")
        self._before: Entry | None = None
        self._claim: Claim | None = None
        self._moves = ThreadPoolExecutor(MOVES, "move")
        self._moving: list[Future[None]] = []

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the claim on the address, and the lock on the folder in which this machine makes the cache."""
        with lock(self.file), claimed(self.target) as self._claim, self._moves:
            objects.drop_unfinished(self.target)
            self._before = bucket.stat(self.target)
            yield

    def exists(self) -> bool:
        """Return whether there is an object."""
        return bucket.stat(self.target) is not None

    def old(self) -> Path:
        """Return a copy of the cache that is there."""
        return copy_of(self.target)

    def prepare(self) -> None:
        """Make the folder of the shards."""
        with writing(self.parts):
            self.parts.mkdir(parents=True, exist_ok=True)

    def left(self) -> list[Path]:
        """Return the shards that an interrupted run has left; those that this machine has already are not read again."""
        for entry in bucket.entries(self.shards_at):
            path = self.parts / entry.path
            if "/" not in entry.path and not (path.is_file() and path.stat().st_size == entry.size_bytes):
                self._moving.append(self._moves.submit(self._fetch, path))
        self.settled()
        return sorted(self.parts.iterdir()) if self.parts.is_dir() else []

    def compression(self) -> str | None:
        """Return None: a merge compresses what needs it."""
        return None

    def settle(self, shard: Path) -> None:
        """Begin to fetch a shard that a worker has put into the bucket, or to put one of this machine there."""
        self._moving.append(self._moves.submit(self._keep if shard.is_file() else self._fetch, shard))
        while self._moving and self._moving[0].done():
            self._moving.pop(0).result()

    def settled(self) -> None:
        """Return once that is done; raises what went wrong."""
        while self._moving:
            self._moving.pop(0).result()

    def publish(self, sources: Sequence[Path | FeatureCache], rows: MergedRows, **described: Any) -> None:
        """Merge, and put the object in place of the old one.

        Raises
        ------
        CacheError
            If another process writes there, or has done so since this run began.
        StorageError
            If it cannot be written.
        """
        merge(self.file, sources=sources, rows=rows, **described)
        if self._claim is not None:
            self._claim.check()
        if bucket.stat(self.target) != self._before:
            raise CacheError(
                f"{self.target} was written by something else since this run began. What was computed is kept: run again, "
                "and it is taken into account."
            )
        entry = objects.upload(self.file, self.target, new=self._before is None)
        objects.adopt(self.target, entry, self.file)

    def clear(self) -> None:
        """Delete the shards, here and there."""
        objects.delete([self.shards_at / entry.path for entry in bucket.entries(self.shards_at)])
        shutil.rmtree(self.parts, ignore_errors=True)

    def _keep(self, shard: Path) -> None:
        objects.upload(shard, self.shards_at / shard.name)

    def _fetch(self, shard: Path) -> None:
        with writing(shard):
            objects.fetch(self.shards_at / shard.name, shard)


#: What a cache may be; ``auto`` is what is there already, else a file.
LAYOUTS = ("auto", "file", "shards")


class Destination(Protocol):
    """A cache that is to be made or brought up to date.

    Attributes
    ----------
    parts : Path
        Folder of this machine in which a run has its shards.
    moves_rows : bool
        Whether the shards lie beside the new cache for a while, which needs the disk twice.
    """

    parts: Path
    moves_rows: bool

    @property
    def target(self) -> Location:
        """Its name."""
        ...

    @property
    def shards_at(self) -> Address | None:
        """Where workers of a cluster put their shards; None where it is ``parts``."""
        ...

    def held(self) -> AbstractContextManager[None]:
        """Return a block in which nobody else writes it, and what a dead writer was writing is cleared away."""
        ...

    def old(self) -> Path:
        """Return the cache that is there, as it can be opened."""
        ...

    def settle(self, shard: Path) -> None:
        """Begin to keep a shard that a run has finished: in ``parts``, and where a later run finds it."""
        ...

    def settled(self) -> None:
        """Return once every shard is where it should be."""
        ...

    def exists(self) -> bool:
        """Return whether there is something that should be a cache."""
        ...

    def prepare(self) -> None:
        """Make the folder of the shards."""
        ...

    def left(self) -> list[Path]:
        """Return the shards that an interrupted run has left, in the order of their names."""
        ...

    def compression(self) -> str | None:
        """Return how the features of the cache that is there are compressed, where new ones should be like them."""
        ...

    def publish(self, sources: Sequence[Path | FeatureCache], rows: MergedRows, **described: Any) -> None:
        """Make the cache consist of these rows; parameters as of :func:`headstart.cache.merge.merge`."""
        ...

    def clear(self) -> None:
        """Delete the shards that are no part of the cache."""
        ...


class OnDisk:
    """What every destination on a disk of this machine, or of all machines, has in common."""

    shards_at = None

    def __init__(self, target: Path) -> None:
        self.target = target

    def held(self) -> AbstractContextManager[None]:
        """See :class:`Destination`."""
        return lock(self.target)

    def old(self) -> Path:
        """See :class:`Destination`."""
        return self.target

    def settle(self, shard: Path) -> None:
        """See :class:`Destination`: it was written where it should be."""

    def settled(self) -> None:
        """See :class:`Destination`."""


class OneFile(OnDisk):
    """One file; the shards lie in a hidden folder beside it, until they are merged."""

    moves_rows = True

    def __init__(self, target: Path) -> None:
        super().__init__(target)
        self.parts = target.with_name(f".{target.name}.parts")

    def exists(self) -> bool:
        """See :class:`Destination`."""
        return self.target.exists()

    def prepare(self) -> None:
        """See :class:`Destination`."""
        with writing(self.target):
            self.parts.mkdir(parents=True, exist_ok=True)

    def left(self) -> list[Path]:
        """See :class:`Destination`."""
        return sorted(self.parts.iterdir()) if self.parts.is_dir() else []

    def compression(self) -> str | None:
        """See :class:`Destination`; a merge compresses what needs it."""
        return None

    def publish(self, sources: Sequence[Path | FeatureCache], rows: MergedRows, **described: Any) -> None:
        """See :class:`Destination`."""
        merge(self.target, sources=sources, rows=rows, **described)

    def clear(self) -> None:
        """See :class:`Destination`."""
        shutil.rmtree(self.parts, ignore_errors=True)


class Folder(OnDisk):
    """A folder; shards are written where they stay, and are a part of the cache once its manifest says so.

    Raises
    ------
    CacheError
        If there is a file of that name, or a folder of something else.
    """

    moves_rows = False

    def __init__(self, target: Path) -> None:
        super().__init__(target)
        self.parts = target
        self.folder = ShardFolder(target)
        if target.exists() and not target.is_dir():
            raise CacheError(
                f"{target} is a file, and the layout shards is a folder.", hint="Give another name (`output`)."
            )
        if unexpected := self.folder.unexpected_files():
            raise CacheError(
                f"{target} is a folder that holds other things ({unexpected[0]}). Expected: the name of a new folder, or of "
                "a folder of shards.",
                hint="Give another name (`output`).",
            )

    def exists(self) -> bool:
        """See :class:`Destination`: a folder without a manifest is what an interrupted run leaves."""
        return self.folder.has_manifest()

    def prepare(self) -> None:
        """See :class:`Destination`."""
        with writing(self.target):
            self.target.mkdir(parents=True, exist_ok=True)

    def left(self) -> list[Path]:
        """See :class:`Destination`: they lie among those of the cache."""
        if not self.target.is_dir():
            return []
        used: set[str] = set()
        with suppress(CacheError):  # a damaged manifest is replaced by an overwrite, or has been refused already
            used = self._used()
        names = sorted(name for name in self.folder.sizes() if OWN_SHARD_NAME.fullmatch(name))
        return [self.target / name for name in names if name not in used]

    def compression(self) -> str | None:
        """See :class:`Destination`."""
        if not self.folder.has_manifest():
            return None
        opened = open_folder(self.folder, check_shards=False)
        opened.close()
        return opened.compression

    def publish(self, sources: Sequence[Path | FeatureCache], rows: MergedRows, **described: Any) -> None:
        """See :class:`Destination`."""
        publish_shards(self.folder, sources=sources, rows=rows, **described)

    def clear(self) -> None:
        """See :class:`Destination`."""
        used = self._used()
        self.folder.remove(name for name in self.folder.sizes() if name not in used)
        self.folder.remove_partial()

    def _used(self) -> set[str]:
        """Return the names of the shards of the cache that is there."""
        if not self.folder.has_manifest():
            return set()
        opened = open_folder(self.folder, check_shards=False)
        opened.close()
        return set(opened.places.table.names) if opened.places else set()


def destination(target: Location, layout: str) -> Destination:
    """Return where a cache goes.

    Parameters
    ----------
    target : Path or Address
        Its name.
    layout : str
        ``file``, ``shards``, or ``auto``.

    Raises
    ------
    CacheError
        If there is something else of that name.
    """
    if layout not in LAYOUTS:
        raise HeadstartError(f"Unknown layout {layout!r}. Expected {', '.join(LAYOUTS)}.")
    if isinstance(target, Address):
        if layout == "shards":
            raise HeadstartError(
                f"{target} is in a bucket, where a cache is one file so far.",
                hint="Leave out `cache_layout='shards'`, or write to a folder that all machines share.",
            )
        return BucketFile(target)
    is_folder = ShardFolder(target).has_manifest()
    if layout == "file" and is_folder:
        raise CacheError(
            f"{target} is a folder of shards, and the layout file is a file.",
            hint="Give another name (`output`), or make one file of it with headstart merge.",
        )
    return Folder(target) if layout == "shards" or (layout == "auto" and is_folder) else OneFile(target)


def first_number(parts: Path) -> int:
    """Return a number for the first shard of a run, whose name sorts behind all names that are there."""
    names = [path.name for path in parts.iterdir()] if parts.is_dir() else []
    taken = [int(name[:20]) for name in names if OWN_SHARD_NAME.fullmatch(name)]
    return max([time.time_ns(), *(number + 1 for number in taken)])
