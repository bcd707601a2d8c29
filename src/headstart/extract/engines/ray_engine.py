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
from headstart.extract.engines.local_engine import Engine
from headstart.extract.network import PROOF_IMAGES, first_images
from headstart.extract.options import StatisticsCollector, WorkerStatistics
from headstart.extract.pipeline import extract_shard
from headstart.extract.shard_jobs import (
    MAX_EXITS_IN_A_ROW,
    Shard,
    ShardJob,
    ShardReport,
    Task,
    Tasks,
    given_up,
    to_choose_by,
)
from headstart.ray_cluster import check_installed, connected, nodes, result_of, worker_resources
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


@dataclass(slots=True, eq=False)
class Actor:
    """An actor as the driver sees it.

    Attributes
    ----------
    handle : ray.actor.ActorHandle
        The actor.
    arrival : ray.ObjectRef, optional
        Resolves to the name of its node once it is placed; None after that.
    node : str
        Name of its node.
    work : (ray.ObjectRef, Task), optional
        The pending answer, and the task that it belongs to.
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
    exited : bool
        Whether the actor exited without an answer.
    """

    task: Task
    node: str
    value: Any = None
    exited: bool = False


class WorkerPool:
    """A fixed number of actors, some of which may not be placed yet.

    Parameters
    ----------
    start : callable
        Returns the handle of a new actor, whose method ``place`` returns its node.
    size : int
        Actors at a time.
    """

    def __init__(self, start: Callable[[], Any], size: int) -> None:
        self._start_actor = start
        self.actors = [self._new() for _ in range(size)]
        self._node_names: dict[str, str] = {}
        self._exits_in_a_row, self._last_sign = 0, time.monotonic()

    @property
    def idle(self) -> list[Actor]:
        """Actors that are placed and have nothing to do."""
        return [actor for actor in self.actors if actor.arrival is None and actor.work is None]

    @property
    def at_work(self) -> bool:
        """Whether any actor has something to do."""
        return any(actor.work for actor in self.actors)

    def give(self, actor: Actor, task: Task, reference: Any) -> None:
        """Record the pending answer of an actor."""
        actor.work = reference, task

    def answers(self) -> list[Answer]:
        """Wait up to :data:`LOOK_SECONDS`, and return the answers; actors that exited are replaced.

        Raises
        ------
        HeadstartError
            If an actor raised one, all actors exit, or none can be placed.
        """
        import ray

        awaited = {actor.work[0] if actor.work else actor.arrival: actor for actor in self.actors}
        awaited.pop(None, None)
        if not awaited:
            return []
        ready, _ = ray.wait(list(awaited), num_returns=1, timeout=LOOK_SECONDS)
        if ready or self.at_work:
            self._last_sign = time.monotonic()
        elif time.monotonic() - self._last_sign > NO_ACTOR_SECONDS:
            raise HeadstartError(
                f"The cluster could not place a single worker for {NO_ACTOR_SECONDS / 60:.0f} minutes: nodes are lost, or "
                "others use them. What was computed is kept: run again when cores are free, or ask for fewer of them "
                "(`cpus_per_worker`)."
            )
        found = (self._answer(awaited[reference], reference) for reference in ready)
        return [answer for answer in found if answer is not None]

    def _answer(self, actor: Actor, reference: Any) -> Answer | None:
        """Return the answer of an actor; None where it was only placed, or exited before it had a task."""
        import ray

        work, actor.work = actor.work, None
        try:
            value = result_of(reference)
        except ray.exceptions.RayActorError as error:
            self._count_exit(error)
            self.actors[self.actors.index(actor)] = self._new()
            return Answer(work[1], actor.node, exited=True) if work else None
        if work is None:
            actor.node, actor.arrival = self.name_of(*value), None
            return None
        self._exits_in_a_row = 0
        return Answer(work[1], actor.node, value)

    def _count_exit(self, error: Exception) -> None:
        self._exits_in_a_row += 1
        if self._exits_in_a_row > MAX_EXITS_IN_A_ROW * len(self.actors):
            raise HeadstartError(
                f"{self._exits_in_a_row} workers of the cluster have exited one after the other, and no shard was "
                "finished. Ray's logs of the workers say more. A lack of memory is likely: give each more cores "
                f"(`cpus_per_worker`), so that there are fewer. The last one: {error}"
            ) from error

    def name_of(self, host: str, number: str) -> str:
        """Return the host of a node, with a number where several nodes have the same host."""
        names = self._node_names
        if number not in names:
            n_before = sum(name.partition(" #")[0] == host for name in names.values())
            names[number] = f"{host} #{n_before + 1}" if n_before else host
        return names[number]

    def _new(self) -> Actor:
        handle = self._start_actor()
        return Actor(handle, handle.place.remote())


class RayEngine(Engine):
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
        If Ray is not installed, the cluster cannot be reached, or cannot place a single actor.
    """

    def __init__(self, network: Network, job: ShardJob, options: ExtractOptions) -> None:
        check_installed()
        self.network, self.job, self.options = network, job, options
        self._statistics = StatisticsCollector()
        self._pool: WorkerPool
        self._recipe: Recipe

    def __enter__(self) -> Self:
        import ray

        with ExitStack() as stack:
            stack.enter_context(connected(self.options.cluster.address))
            self._resources, n_workers = worker_resources(nodes(), self.options.cluster)
            self._network = ray.put(self.network)
            self._pool = WorkerPool(self._start_actor, n_workers)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        with self._open:
            for actor in self._pool.actors:
                ray.kill(actor.handle)

    def prepare(self, existing: Recipe | None, refs: Sequence[ImageRef]) -> tuple[Recipe, str] | None:
        """See :class:`~headstart.extract.engines.local_engine.Engine`: one actor chooses, since images may end a process."""
        if existing is not None:
            self._recipe = existing
            return existing, f"{existing.precision}: as the rows that exist"
        if self.options.precision == "int8":
            raise HeadstartError(
                "A network is quantised on a sample of all images, which a cluster does not draw. Make a cache of some "
                "with `precision='int8'` and no `engine` first; `engine='ray'` then adds the others, by the same network."
            )
        waiting, pool = to_choose_by(refs), self._pool
        while waiting or pool.at_work:
            for actor in pool.idle[: 0 if pool.at_work else 1]:
                task = waiting.next()
                pool.give(actor, task, actor.handle.choose.remote(task.shard.refs))
            for answer in pool.answers():
                if answer.exited:
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

        The shard of an actor that exited is computed again by another. Images over which two have exited are divided until
        the one is found that ends the process; it becomes a failure.

        Raises
        ------
        HeadstartError
            If a worker raised an error, or actors exit without finishing a shard.
        """
        waiting, pool = Tasks(shards), self._pool
        stopping = False
        while pool.at_work or (waiting and not stopping):
            if stop.is_set() and not stopping:
                stopping = True
                for actor in pool.actors:
                    actor.handle.stop.remote()
            for actor in pool.idle:
                if waiting and not stopping:
                    task = waiting.next()
                    self._statistics.start(actor.node)
                    pool.give(actor, task, actor.handle.extract.remote(task.shard, self._recipe, info))
            for answer in pool.answers():
                report = self._report(answer, waiting)
                if report is not None:
                    n_images = report.n_images + len(report.failures)
                    self._statistics.add(answer.node, n_images)
                    on_images(n_images, answer.node)
                    yield report

    def _report(self, answer: Answer, waiting: Tasks) -> ShardReport | None:
        """Return the report of a shard; None where it is computed again, or nothing was written."""
        if answer.exited:
            lost = waiting.put_back(answer.task)
            return None if lost is None else given_up(lost, self._recipe, self.job)
        report: ShardReport = answer.value
        return report if report.n_images or report.failures else None

    def statistics(self) -> tuple[WorkerStatistics, ...]:
        """See :class:`headstart.extract.engines.local_engine.Engine`: by node."""
        return self._statistics.collect(Counter(actor.node for actor in self._pool.actors if actor.node))

    def _start_actor(self) -> Any:
        import ray

        # Two threads: one extracts, the other can be told to stop.
        actor = ray.remote(Worker).options(**self._resources, max_restarts=0, max_concurrency=2)
        return actor.remote(self._network, self.job, self._resources["num_cpus"])
