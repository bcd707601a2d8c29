"""Extraction on a Ray cluster: actors are started, given shards, and replaced when they exit."""

from __future__ import annotations

import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np

from headstart.errors import HeadstartError
from headstart.extract.engine import Engine
from headstart.extract.network import PROOF_IMAGES, Network, Sample, first_images
from headstart.extract.options import ExtractOptions, OnImages
from headstart.extract.pipeline import extract_shard
from headstart.extract.shard_jobs import MAX_EXITS_IN_A_ROW, Shard, ShardJob, ShardReport, Task, Tasks, to_choose_by
from headstart.images.load import RunTimes
from headstart.ray_cluster import check_installed, connected, nodes, result_of, worker_resources
from headstart.runtime import limit_threads
from headstart.storage.objects import upload
from headstart.types import Backbone, ImageRef, Recipe

#: Longest wait for an answer, seconds; then it is checked whether the run is to stop.
LOOK_SECONDS = 0.5

#: Seconds without a single actor, e.g. while lost nodes are replaced, after which the cluster is given up.
NO_ACTOR_SECONDS = 600.0


class Worker:
    """Runs in an actor, which has ``n_cpus`` cores: one network, one shard at a time."""

    def __init__(self, network: Network, job: ShardJob, n_cpus: int) -> None:
        limit_threads(n_cpus)
        self._network, self._job = network, replace(job, decode_threads=n_cpus)
        self._backbone: Backbone | None = None
        self._stop = threading.Event()

    def choose(self, refs: Sequence[ImageRef]) -> tuple[Recipe, str] | None:
        """Load the network in the precision for this node and the first of these images; return as ``Engine.prepare``."""
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
        """Return the name and the identifier of the node."""
        import ray

        return platform.node(), str(ray.get_runtime_context().get_node_id())

    def stop(self) -> None:
        """End the shard that is being written after its current batch."""
        self._stop.set()


def no_sample() -> Sample:
    """Raise HeadstartError: a quantised network comes with its recipe (:meth:`RayEngine.prepare`)."""
    raise HeadstartError("A worker of a cluster quantises no network.")


@dataclass(slots=True, eq=False)
class Actor:
    """An actor as seen by the driver."""

    handle: Any
    arrival: Any  # resolves to the name of its node once it is placed; None after that
    node: str = ""
    work: tuple[Any, Task] | None = None  # the pending answer and its task


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a task."""

    task: Task
    node: str
    value: Any = None
    exited: bool = False  # whether the actor exited without an answer


class WorkerPool:
    """A fixed number of actors, some of which may not be placed yet; ``start`` returns the handle of a new one."""

    def __init__(self, start: Callable[[], Any], size: int) -> None:
        self._start_actor = start
        self.actors = [self._new() for _ in range(size)]
        self._node_names: dict[str, str] = {}
        self._exits_in_a_row, self._last_sign = 0, time.monotonic()

    @property
    def idle(self) -> list[Actor]:
        """Actors that are placed and have no task."""
        return [actor for actor in self.actors if actor.arrival is None and actor.work is None]

    @property
    def at_work(self) -> bool:
        """Whether any actor has a task."""
        return any(actor.work for actor in self.actors)

    def answers(self) -> list[Answer]:
        """Wait up to :data:`LOOK_SECONDS`, and return the answers; actors that exited are replaced.

        Raises HeadstartError if an actor raised one, all actors exit, or none can be placed.
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
        """Return the answer of an actor; None if it was only placed, or exited before it had a task."""
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
    """Runs shards in the actors of a Ray cluster; HeadstartError if there is no cluster, or it cannot place an actor."""

    def __init__(self, network: Network, job: ShardJob, options: ExtractOptions) -> None:
        check_installed()
        super().__init__(network, job, options)
        self._pool: WorkerPool

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
        """See :class:`Engine`: one actor chooses, since images may end a process."""
        if existing is not None:
            return self._as_existing(existing)
        if self.options.precision == "int8":
            raise HeadstartError(
                "A network is quantised on a sample of all images, which a cluster does not draw. Make a cache of some "
                "with `precision='int8'` and no `engine` first; `engine='ray'` then adds the others, by the same network."
            )
        waiting, pool = to_choose_by(refs), self._pool
        while waiting or pool.at_work:
            for actor in pool.idle[: 0 if pool.at_work else 1]:
                task = waiting.next()
                actor.work = actor.handle.choose.remote(task.shard.refs), task
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
                    actor.work = actor.handle.extract.remote(task.shard, self._recipe, info), task
            for answer in pool.answers():
                report = self._put_back(answer.task, waiting) if answer.exited else answer.value
                if report is not None and self._count(report, answer.node, on_images):
                    yield report

    def _n_workers(self) -> Mapping[str, int]:
        return Counter(actor.node for actor in self._pool.actors if actor.node)

    def _start_actor(self) -> Any:
        import ray

        # Two threads: one extracts, the other can be told to stop.
        actor = ray.remote(Worker).options(**self._resources, max_restarts=0, max_concurrency=2)
        return actor.remote(self._network, self.job, self._resources["num_cpus"])
