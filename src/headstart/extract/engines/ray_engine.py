"""Extraction on a Ray cluster: actors are started, given shards, and replaced when they exit."""

from __future__ import annotations

import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from headstart.errors import HeadstartError
from headstart.extract.network import PROOF_IMAGES, first_images
from headstart.extract.options import Share, Shares
from headstart.extract.pipeline import extract_shard
from headstart.extract.shard_jobs import Shard, ShardJob, ShardReport, Task, Tasks, given_up, to_choose_by
from headstart.ray_cluster import check_installed, connected, nodes, result_of, room
from headstart.runtime import limit_threads
from headstart.storage.objects import upload

if TYPE_CHECKING:
    from headstart.extract.network import Network, Sample
    from headstart.extract.options import ExtractOptions, OnImages
    from headstart.images.read_ahead import RunTimes
    from headstart.types import Backbone, ImageRef, Recipe


class Worker:
    """What runs in an actor: one network, one shard at a time.

    Parameters
    ----------
    network : Network
        Where the backbone comes from.
    job : ShardJob
        What is the same for every shard.
    n_cpus : int
        Cores that are this actor's own.
    """

    def __init__(self, network: Network, job: ShardJob, n_cpus: int) -> None:
        limit_threads(n_cpus)
        self._network, self._job = network, replace(job, decode_threads=n_cpus)
        self._backbone: Backbone | None = None
        self._stop = threading.Event()

    def choose(self, refs: Sequence[ImageRef]) -> tuple[Recipe, str] | None:
        """Load the network in the precision that suits this node and the first of these images.

        Returns its recipe, and why it is that one; None where no image can be decoded.
        """
        images = first_images(refs, self._network.wanted(None), self._job, PROOF_IMAGES)
        if not len(images):
            return None
        self._backbone, reason = self._network.backbone(None, images, no_sample)
        return self._backbone.recipe, reason

    def extract(self, shard: Shard, recipe: Recipe, info: dict[str, str]) -> ShardReport:
        """Write one shard, to the folder of the driver or into a bucket."""
        backbone = self.load(recipe)
        with ExitStack() as stack:
            path, shards_at = shard.path, self._job.shards_at
            if shards_at is not None:
                path = Path(stack.enter_context(TemporaryDirectory(prefix="headstart-"))) / path.name
            report = extract_shard(shard.refs, path, job=self._job, backbone=backbone, info=info, stop=self._stop)
            if shards_at is not None and (report.n_images or report.failures):
                upload(path, shards_at / path.name)
            return replace(report, path=shard.path)

    def load(self, recipe: Recipe) -> Backbone:
        """Return the network of a recipe, which stays loaded."""
        if self._backbone is None:
            self._backbone = self._network.backbone(recipe, np.empty(0, np.uint8), no_sample)[0]
        return self._backbone

    def place(self) -> tuple[str, str]:
        """Return the name of the node, and what tells it from others of that name."""
        import ray

        return platform.node(), str(ray.get_runtime_context().get_node_id())

    def stop(self) -> None:
        """End the shard that is being written after its current batch."""
        self._stop.set()


def no_sample() -> Sample:
    """Draw no images: a quantised network comes here with its recipe (:meth:`RayEngine.prepare`)."""
    raise HeadstartError("A worker of a cluster quantises no network.")


#: Seconds that answers are waited for at a time, between looks at whether the run is to stop.
LOOK_SECONDS = 0.5

#: Seconds without a single actor, as while lost nodes are replaced, before the cluster is given up.
NO_ACTOR_SECONDS = 600.0

#: Deaths in a row, per actor, with nothing finished in between, before the cluster is given up. One image that ends every
#: process takes four: two over its shard, one over the part, one over itself.
MAX_IDLE_DEATHS = 8


@dataclass(slots=True, eq=False)
class Member:
    """An actor as the driver sees it.

    Attributes
    ----------
    handle : ray.actor.ActorHandle
        The actor.
    arrival : ray.ObjectRef, optional
        The name of its node, once a node has room for it; None after that.
    node : str
        That name.
    work : (ray.ObjectRef, Task), optional
        Where the answer will be, and what it works on.
    """

    handle: Any
    arrival: Any
    node: str = ""
    work: tuple[Any, Task] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a task.

    Attributes
    ----------
    task : Task
        The task.
    node : str
        Name of the node that it was done on.
    value : Any
        What the actor answered.
    died : bool
        Whether it died instead.
    """

    task: Task
    node: str
    value: Any = None
    died: bool = False


class Crew:
    """Actors, some of which a cluster may have no room for yet.

    Parameters
    ----------
    hire : callable
        Returns the handle of a new actor, whose method ``place`` says on which node it is.
    size : int
        Actors at a time.
    """

    def __init__(self, hire: Callable[[], Any], size: int) -> None:
        self._hire = hire
        self.members = [self._new() for _ in range(size)]
        self._node_names: dict[str, str] = {}
        self._idle_deaths, self._last_sign = 0, time.monotonic()

    @property
    def idle(self) -> list[Member]:
        """Those that are there and have nothing to do."""
        return [member for member in self.members if member.arrival is None and member.work is None]

    @property
    def at_work(self) -> bool:
        """Whether any has something to do."""
        return any(member.work for member in self.members)

    def give(self, member: Member, task: Task, reference: Any) -> None:
        """Note what a member was called for."""
        member.work = reference, task

    def answers(self) -> list[Answer]:
        """Wait a moment, and return what has ended; who died is replaced.

        Raises
        ------
        HeadstartError
            What an actor raised on purpose; or that they all die, or none gets a place.
        """
        import ray

        awaited = {member.work[0] if member.work else member.arrival: member for member in self.members}
        awaited.pop(None, None)
        if not awaited:
            return []
        ready, _ = ray.wait(list(awaited), num_returns=1, timeout=LOOK_SECONDS)
        if ready or self.at_work:
            self._last_sign = time.monotonic()
        elif time.monotonic() - self._last_sign > NO_ACTOR_SECONDS:
            raise HeadstartError(
                f"The cluster has had no room for a single worker for {NO_ACTOR_SECONDS / 60:.0f} minutes: nodes are lost, "
                "or others use them. What was computed is kept: run again when there is room, or ask for less "
                "(--cpus-per-worker)."
            )
        found = (self._answer(awaited[reference], reference) for reference in ready)
        return [answer for answer in found if answer is not None]

    def _answer(self, member: Member, reference: Any) -> Answer | None:
        """Return what a member answers; None where it has only arrived, or died before it had anything to do."""
        import ray

        work, member.work = member.work, None
        try:
            value = result_of(reference)
        except ray.exceptions.RayActorError as error:
            self._count_death(error)
            self.members[self.members.index(member)] = self._new()
            return Answer(work[1], member.node, died=True) if work else None
        if work is None:
            member.node, member.arrival = self.name_of(*value), None
            return None
        self._idle_deaths = 0
        return Answer(work[1], member.node, value)

    def _count_death(self, error: Exception) -> None:
        self._idle_deaths += 1
        if self._idle_deaths > MAX_IDLE_DEATHS * len(self.members):
            raise HeadstartError(
                f"{self._idle_deaths} workers of the cluster have died one after the other, and no shard was finished. Ray's "
                "logs of the workers say more. A lack of memory is likely: give each more cores (--cpus-per-worker), so that "
                f"there are fewer. The last one: {error}"
            ) from error

    def name_of(self, host: str, number: str) -> str:
        """Return what a node is called: its host, and its place among the nodes that have come of one host."""
        names = self._node_names
        if number not in names:
            n_before = sum(name.partition(" #")[0] == host for name in names.values())
            names[number] = f"{host} #{n_before + 1}" if n_before else host
        return names[number]

    def _new(self) -> Member:
        handle = self._hire()
        return Member(handle, handle.place.remote())


class RayEngine:
    """Runs shards in the actors of a cluster. Use as a context manager: at its end the actors are gone.

    Parameters
    ----------
    network : Network
        Goes to every actor.
    job : ShardJob
        What is the same for every shard.
    options : ExtractOptions
        Those of the run; ``cluster`` says where actors run.

    Raises
    ------
    HeadstartError
        If Ray is not installed, the cluster cannot be reached, or has no room for a single actor.
    """

    def __init__(self, network: Network, job: ShardJob, options: ExtractOptions) -> None:
        check_installed()
        self.network, self.job, self.options = network, job, options
        self._shares = Shares()
        self._crew: Crew
        self._recipe: Recipe

    def __enter__(self) -> Self:
        import ray

        with ExitStack() as stack:
            stack.enter_context(connected(self.options.cluster.address))
            self._resources, n_workers = room(nodes(), self.options.cluster)
            self._network = ray.put(self.network)
            self._crew = Crew(self._hire, n_workers)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        with self._open:
            for member in self._crew.members:
                ray.kill(member.handle)

    def prepare(self, existing: Recipe | None, refs: Sequence[ImageRef]) -> tuple[Recipe, str] | None:
        """See :class:`~headstart.extract.engines.engine_choice.Engine`: one actor chooses, since images may end a process."""
        if existing is not None:
            self._recipe = existing
            return existing, f"{existing.precision}: as the rows that exist"
        if self.options.precision == "int8":
            raise HeadstartError(
                "A network is quantised on a sample of all images, which a cluster does not draw. Make a cache of some "
                "with --precision int8 and no --engine first; --engine ray then adds the others to it, by the same network."
            )
        waiting, crew = to_choose_by(refs), self._crew
        while waiting or crew.at_work:
            for member in crew.idle[: 0 if crew.at_work else 1]:
                task = waiting.next()
                crew.give(member, task, member.handle.choose.remote(task.shard.refs))
            for answer in crew.answers():
                if answer.died:
                    waiting.put_back(answer.task)
                elif answer.value is not None:
                    self._recipe, reason = answer.value
                    return self._recipe, str(reason)
        return None

    def run(
        self,
        shards: Iterable[Shard],
        *,
        info: dict[str, str],
        stop: threading.Event,
        on_images: OnImages,
        times: RunTimes,
    ) -> Generator[ShardReport]:
        """Yield a report for each shard whose file is there, in the order in which they end; ``times`` is told nothing.

        What an actor worked on when it died is done again by another. Images over which two have died are divided until the
        one is found that ends the process; it becomes a failure.

        Raises
        ------
        HeadstartError
            What a worker raised; or that actors die before they have done anything.
        """
        waiting, crew = Tasks(shards), self._crew
        stopping = False
        while crew.at_work or (waiting and not stopping):
            if stop.is_set() and not stopping:
                stopping = True
                for member in crew.members:
                    member.handle.stop.remote()
            for member in crew.idle:
                if waiting and not stopping:
                    task = waiting.next()
                    self._shares.given(member.node)
                    crew.give(member, task, member.handle.extract.remote(task.shard, self._recipe, info))
            for answer in crew.answers():
                report = self._report(answer, waiting)
                if report is not None:
                    n_images = report.n_images + len(report.failures)
                    self._shares.done(answer.node, n_images)
                    on_images(n_images, answer.node)
                    yield report

    @property
    def device(self) -> str:
        """See :class:`headstart.extract.engines.engine_choice.Engine`: a cluster is not one device."""
        return ""

    def _report(self, answer: Answer, waiting: Tasks) -> ShardReport | None:
        """Return what became of a shard; None where it is to be done again, or nothing of it was written."""
        if answer.died:
            lost = waiting.put_back(answer.task)
            return None if lost is None else given_up(lost, self._recipe, self.job)
        report: ShardReport = answer.value
        return report if report.n_images or report.failures else None

    def shares(self) -> tuple[Share, ...]:
        """See :class:`headstart.extract.engines.engine_choice.Engine`: by node."""
        return self._shares.of(Counter(member.node for member in self._crew.members if member.node))

    def _hire(self) -> Any:
        import ray

        # Two threads: one extracts, the other can be told to stop.
        actor = ray.remote(Worker).options(**self._resources, max_restarts=0, max_concurrency=2)
        return actor.remote(self._network, self.job, self._resources["num_cpus"])
