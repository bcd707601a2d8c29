"""Which images a worker process gets next, and what becomes of those over which workers die."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.cache.shard import ShardWriter
from headstart.extract.shard import Shard, ShardReport
from headstart.schema import Failure

if TYPE_CHECKING:
    from headstart.extract.shard import ShardJob
    from headstart.schema import ImageRef, Recipe

#: Deaths over the same images after which these are divided, and a single one is given up.
MAX_DEATHS = 2

#: Images among which a worker looks for some that it can decode, to choose the precision by.
CHOICE_IMAGES = 256

#: Parts that such a shard is divided into: of 256 images, two divisions lead to a single one.
PARTS = 16


@dataclass(frozen=True, slots=True)
class Task:
    """A shard on its way.

    Attributes
    ----------
    shard : Shard
        The images and their file.
    deaths : int
        Workers that died over it.
    """

    shard: Shard
    deaths: int = 0


class Tasks:
    """Shards that wait for a worker; those that one died over come first."""

    def __init__(self, shards: Iterable[Shard]) -> None:
        self._again: deque[Task] = deque()
        self._rest = iter(shards)

    def __bool__(self) -> bool:
        """Return whether anything waits."""
        if not self._again:
            self._again.extend(Task(shard) for shard in islice(self._rest, 1))
        return bool(self._again)

    @property
    def is_suspect(self) -> bool:
        """Whether a worker has died over what comes next."""
        return bool(self) and self._again[0].deaths > 0

    def next(self) -> Task:
        """Return what to do next."""
        if not self:
            raise IndexError("Nothing waits.")
        return self._again.popleft()

    def put_back(self, task: Task) -> Shard | None:
        """Take back what a worker has died over, divided once it was one too many; return what is not to be tried again."""
        again = replace(task, deaths=task.deaths + 1)
        if again.deaths < MAX_DEATHS:
            self._again.append(again)
        elif len(again.shard.refs) > 1:
            self._again.extend(divided(again))
        else:
            return again.shard
        return None


def to_choose_by(refs: Sequence[ImageRef]) -> Tasks:
    """Return parts of the images, one of which a worker chooses the precision by: the first with images it can decode."""
    starts = range(0, len(refs), CHOICE_IMAGES)
    return Tasks(Shard(Path("none"), refs[start : start + CHOICE_IMAGES]) for start in starts)


def divided(task: Task) -> Iterator[Task]:
    """Yield the parts of a shard in files of their own; the next death over one of them divides it again."""
    refs, path = task.shard.refs, task.shard.path
    size = -(-len(refs) // PARTS)
    for number, start in enumerate(range(0, len(refs), size)):
        name = f"{path.stem}-{number:02d}{path.suffix}"
        yield Task(Shard(path.with_name(name), refs[start : start + size]), MAX_DEATHS - 1)


def given_up(shard: Shard, recipe: Recipe, job: ShardJob) -> ShardReport:
    """Write a shard that says of its image that it cannot be read."""
    failure = Failure(
        shard.refs[0],
        f"The process that read it ended without a word, {MAX_DEATHS} times: it was decoded alone at last.",
    )
    with ShardWriter(shard.path, recipe=recipe, class_names=job.class_names, compression=job.compression) as writer:
        writer.add_failure(failure)
    return ShardReport(shard.path, failures=[failure])
