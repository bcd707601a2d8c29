"""The driver: actors are hired, given shards, and replaced when they die."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from headstart.cluster.connection import check_installed, connected, nodes, room
from headstart.errors import HeadstartError
from headstart.extract.cluster.crew import Answer, Crew
from headstart.extract.cluster.worker import Worker
from headstart.extract.shard import Shard, ShardJob, ShardReport
from headstart.extract.shares import Share, Shares
from headstart.extract.tasks import Tasks, given_up, to_choose_by

if TYPE_CHECKING:
    from headstart.extract.network import Network
    from headstart.extract.options import ExtractOptions
    from headstart.extract.shares import OnImages
    from headstart.extract.stages import RunTimes
    from headstart.schema import ImageRef, Recipe


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
        """See :class:`headstart.extract.engine.Engine`: one of the actors chooses, since its images may end a process."""
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
        """See :class:`headstart.extract.engine.Engine`: a cluster is not one device."""
        return ""

    def _report(self, answer: Answer, waiting: Tasks) -> ShardReport | None:
        """Return what became of a shard; None where it is to be done again, or nothing of it was written."""
        if answer.died:
            lost = waiting.put_back(answer.task)
            return None if lost is None else given_up(lost, self._recipe, self.job)
        report: ShardReport = answer.value
        return report if report.n_images or report.failures else None

    def shares(self) -> tuple[Share, ...]:
        """See :class:`headstart.extract.engine.Engine`: by node."""
        return self._shares.of(Counter(member.node for member in self._crew.members if member.node))

    def _hire(self) -> Any:
        import ray

        # Two threads: one extracts, the other can be told to stop.
        actor = ray.remote(Worker).options(**self._resources, max_restarts=0, max_concurrency=2)
        return actor.remote(self._network, self.job, self._resources["num_cpus"])
