"""Output targets: a file into which the shards of a run are merged, a folder of shards, or an object in a bucket."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from headstart.cache.integrity import verify
from headstart.cache.merge import MergedRows, merge, publish_shards
from headstart.cache.reader import FeatureCache, on_this_machine, open_cache, open_folder
from headstart.cache.shards import OWN_SHARD_NAME, ShardFolder, is_cache
from headstart.errors import CacheError, HeadstartError
from headstart.extract.lock import Claim, claimed, lock
from headstart.extract.plan import KnownRows
from headstart.images.discovery.csv_tables import TABLE_SUFFIXES
from headstart.storage import bucket, objects
from headstart.storage.bucket import Address, Location
from headstart.storage.publishing import writing
from headstart.types import Progress, Recipe

#: Layouts of a cache; ``auto`` is that of the existing cache, else a file.
LAYOUTS = ("auto", "file", "shards")

#: Shards that are moved to or from a bucket at the same time.
MOVES = 8


class Destination:
    """A cache that is to be made or brought up to date; what the targets on a disk have in common."""

    target: Location
    parts: Path  # folder of this machine with the shards of a run
    shards_at: Address | None = None  # where workers of a cluster put their shards; None for ``parts``
    moves_rows = True  # whether the shards lie beside the new cache for a while, which needs the disk space twice

    def __init__(self, file: Path) -> None:
        self.file = file

    def held(self) -> AbstractContextManager[Any]:
        """Return a context in which no other process writes the cache, without the remains of dead writers."""
        return lock(self.file)

    def exists(self) -> bool:
        """Return whether there is something that should be a cache."""
        return self.file.exists()

    def old(self) -> Path:
        """Return the existing cache, in a place from which it can be opened."""
        return self.file

    def compression(self) -> str | None:
        """Return the compression of the existing features, if new ones must have the same; a merge compresses as needed."""
        return None

    def prepare(self) -> None:
        """Create the folder of the shards."""
        with writing(self.file):
            self.parts.mkdir(parents=True, exist_ok=True)

    def left(self) -> list[Path]:
        """Return the shards that an interrupted run has left, sorted by name."""
        return sorted(self.parts.iterdir()) if self.parts.is_dir() else []

    def settle(self, shard: Path) -> None:
        """Begin to move a finished shard to ``parts`` and to where a later run finds it."""

    def settled(self) -> None:
        """Wait until every shard is there."""

    def publish(self, sources: Sequence[Path | FeatureCache], rows: MergedRows, **described: Any) -> None:
        """Make the cache consist of these rows; parameters as of :func:`headstart.cache.merge.merge`."""
        merge(self.file, sources=sources, rows=rows, **described)

    def clear(self) -> None:
        """Delete the shards that are no part of the cache."""
        shutil.rmtree(self.parts, ignore_errors=True)


class OneFile(Destination):
    """One file; the shards lie in a hidden folder beside it until they are merged."""

    def __init__(self, target: Path) -> None:
        super().__init__(target)
        self.target, self.parts = target, target.with_name(f".{target.name}.parts")


class BucketFile(OneFile):
    """An object.

    The bucket has the shards under ``.<name>.parts/`` until the cache is there, so that another machine can continue. This
    machine has them in the user's cache folder, too, since it merges them.
    """

    shards_at: Address

    def __init__(self, target: Address) -> None:
        super().__init__(objects.folder_of(target) / "making" / target.name)
        self.address = self.target = target
        self.shards_at = target.with_name(f".{target.name}.parts")
        self._before: bucket.Entry | None = None
        self._claim: Claim | None = None
        self._moves = ThreadPoolExecutor(MOVES, "move")
        self._moving: list[Future[None]] = []

    @contextmanager
    def held(self) -> Iterator[None]:
        with lock(self.file), claimed(self.address) as self._claim, self._moves:
            objects.drop_unfinished(self.address)
            self._before = bucket.stat(self.address)
            yield

    def exists(self) -> bool:
        return bucket.stat(self.address) is not None

    def old(self) -> Path:
        return on_this_machine(self.address)

    def left(self) -> list[Path]:
        for entry in bucket.entries(self.shards_at):
            path = self.parts / entry.path
            if "/" not in entry.path and not (path.is_file() and path.stat().st_size == entry.size_bytes):
                self._moving.append(self._moves.submit(self._fetch, path))
        self.settled()
        return super().left()

    def settle(self, shard: Path) -> None:
        self._moving.append(self._moves.submit(self._keep if shard.is_file() else self._fetch, shard))
        while self._moving and self._moving[0].done():
            self._moving.pop(0).result()

    def settled(self) -> None:
        while self._moving:
            self._moving.pop(0).result()

    def publish(self, sources: Sequence[Path | FeatureCache], rows: MergedRows, **described: Any) -> None:
        """Merge, and replace the object.

        Raises CacheError if another process writes there, or has done so since this run began; StorageError if it cannot
        be written.
        """
        super().publish(sources, rows, **described)
        if self._claim is not None:
            self._claim.check()
        if bucket.stat(self.address) != self._before:
            raise CacheError(
                f"{self.target} was written by something else since this run began. What was computed is kept: run again, "
                "and it is taken into account."
            )
        entry = objects.upload(self.file, self.address, new=self._before is None)
        objects.adopt(self.address, entry, self.file)

    def clear(self) -> None:
        objects.delete([self.shards_at / entry.path for entry in bucket.entries(self.shards_at)])
        super().clear()

    def _keep(self, shard: Path) -> None:
        objects.upload(shard, self.shards_at / shard.name)

    def _fetch(self, shard: Path) -> None:
        with writing(shard):
            objects.fetch(self.shards_at / shard.name, shard)


class Folder(Destination):
    """A folder; shards are written where they stay, and are part of the cache once its manifest names them.

    Raises
    ------
    CacheError
        If there is a file of that name, or a folder with other files.
    """

    moves_rows = False

    def __init__(self, target: Path) -> None:
        super().__init__(target)
        self.target = self.parts = target
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
        return self.folder.has_manifest()  # a folder without one is left by an interrupted run

    def left(self) -> list[Path]:
        if not self.file.is_dir():
            return []
        used: set[str] = set()
        with suppress(CacheError):  # a damaged manifest is overwritten, or has been refused already
            used = self._used()
        names = sorted(name for name in self.folder.sizes() if OWN_SHARD_NAME.fullmatch(name))
        return [self.parts / name for name in names if name not in used]

    def compression(self) -> str | None:
        if not self.folder.has_manifest():
            return None
        opened = open_folder(self.folder, check_shards=False)
        opened.close()
        return opened.compression

    def publish(self, sources: Sequence[Path | FeatureCache], rows: MergedRows, **described: Any) -> None:
        publish_shards(self.folder, sources=sources, rows=rows, **described)

    def clear(self) -> None:
        used = self._used()
        self.folder.remove(name for name in self.folder.sizes() if name not in used)
        self.folder.remove_partial()

    def _used(self) -> set[str]:
        if not self.folder.has_manifest():
            return set()
        opened = open_folder(self.folder, check_shards=False)
        opened.close()
        return set(opened.places.table.names) if opened.places else set()


def destination(target: Location, layout: str) -> Destination:
    """Return the output target of this name and layout.

    Raises CacheError if there is something else of that name; HeadstartError if the layout is unknown, or not possible there.
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
    """Return a number for the first shard of a run; its name sorts after all existing names."""
    names = [path.name for path in parts.iterdir()] if parts.is_dir() else []
    taken = [int(name[:20]) for name in names if OWN_SHARD_NAME.fullmatch(name)]
    return max([time.time_ns(), *(number + 1 for number in taken)])


def left_shards(
    left: Sequence[Path],
    recipe: Recipe | None,
    wanted: Callable[[Recipe], Recipe],
    progress: Progress,
    *,
    keep_unusable: bool = False,
) -> list[KnownRows]:
    """Return the rows of the shards that an interrupted run has left, verified; the others are deleted.

    A shard cannot be used if it is damaged (a merge would copy the damage), or has another recipe than ``recipe``; None
    stands for what ``wanted`` returns for the recipe of the first shard. With ``keep_unusable``, nothing is deleted.
    """
    shards: list[KnownRows] = []
    for path in left:
        try:
            with open_cache(path) as opened:
                verify(opened)
                shard = KnownRows.of_closed(opened)
            is_usable = shard.recipe == (recipe or wanted(shard.recipe))
        except CacheError as error:
            progress.message(f"A shard of the interrupted run is not whole and is computed again ({error})")
            is_usable = False
        if is_usable:
            recipe = shard.recipe
            shards.append(shard)
        elif not keep_unusable:
            path.unlink(missing_ok=True)
    if shards:
        n_rows = sum(map(len, shards))
        progress.message(f"Going on where an interrupted run stopped: {n_rows:,} images are done.")
    return shards


def default_output(data: Location, layout: str = "auto") -> Path:
    """Return ``features/<name>.h5`` in the current folder, for a folder or manifest of that name.

    Without ``.h5`` for a folder of shards, and for ``auto`` if there is one and no file.
    """
    if isinstance(data, Address):
        name = data.stem if data.suffix.lower() in TABLE_SUFFIXES else data.name
    else:
        resolved = data.resolve()
        name = resolved.stem if resolved.is_file() else resolved.name
    folder = Path("features") / (name or "images")
    file = folder.with_name(f"{folder.name}.h5")
    there = is_cache(folder) and not file.exists()
    return folder if layout == "shards" or (layout == "auto" and there) else file


def device_of(folder: Location) -> int | None:
    """Return the number of the disk of a folder, which changes when it is unmounted; None without a folder.

    Not the inode, which network file systems may change while the folder stays the same. A bucket that can be listed has 0.
    """
    if isinstance(folder, Address):
        return 0 if bucket.is_there(folder) else None
    try:
        return folder.stat().st_dev if folder.is_dir() else None
    except OSError:
        return None
