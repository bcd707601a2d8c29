"""A Ray cluster: connecting to it, the number of workers that fit, and joblib tasks on its workers."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Self

from headstart.errors import HeadstartError
from headstart.runtime import limit_threads

#: Default cores of an actor, if a node has as many: each has its own network in memory (1.3 GB).
CPUS_PER_WORKER = 4


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Address of a cluster, and the number and size of the workers."""

    address: str | None = None  # e.g. ``auto`` or ``ray://host:10001``; None starts a cluster on this machine
    workers: int | None = None  # None for as many as fit
    cpus_per_worker: int | None = None  # None for ``CPUS_PER_WORKER``, or all of the smallest node
    gpus_per_worker: float | None = None  # None for one if the cluster has any


def check_installed() -> None:
    """Raise HeadstartError if Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise HeadstartError(
            'The engine ray needs Ray, which is not installed. Install it with: pip install "headstart[ray]".'
        )


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster, or start one on this machine, within the block; an existing connection is kept.

    Raises HeadstartError if Ray is not installed, or there is no cluster at the address.
    """
    check_installed()
    import ray

    was_there = ray.is_initialized()
    if not was_there:
        try:
            ray.init(
                address=address or "local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise HeadstartError(
                f"There is no Ray cluster at {address!r}: {error}.",
                hint="Start one (ray start --head), give its `address`, or leave that out to start one on this machine.",
            ) from error
    try:
        yield
    finally:
        if not was_there:
            ray.shutdown()


def nodes() -> Sequence[Mapping[str, Any]]:
    """Return the nodes of the cluster."""
    import ray

    found: Sequence[Mapping[str, Any]] = ray.nodes()
    return found


def worker_resources(nodes: Sequence[Mapping[str, Any]], options: ClusterOptions) -> tuple[dict[str, Any], int]:
    """Return the resources of each worker, and the number of workers that fit, for nodes as listed by Ray.

    Raises HeadstartError if not a single worker fits.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    n_cpus = [int(resources.get("CPU", 0)) for resources in alive]
    n_gpus = [resources.get("GPU", 0.0) for resources in alive]
    smallest = min((count for count in n_cpus if count), default=1)
    cpus = options.cpus_per_worker or min(CPUS_PER_WORKER, smallest)
    gpus = (1.0 if any(n_gpus) else 0.0) if options.gpus_per_worker is None else options.gpus_per_worker
    fit = sum(
        min(count // cpus, int(own_gpus // gpus)) if gpus else count // cpus
        for count, own_gpus in zip(n_cpus, n_gpus, strict=True)
    )
    if not fit:
        raise HeadstartError(
            f"No node of the cluster has the {cpus} cores and {gpus:g} GPUs that a worker is to have. Nodes: "
            f"{'; '.join(f'{count} cores, {own:g} GPUs' for count, own in zip(n_cpus, n_gpus, strict=True)) or 'none'}.",
            hint="Lower `cpus_per_worker` or `gpus_per_worker`.",
        )
    return {"num_cpus": cpus, "num_gpus": gpus}, min(options.workers or fit, fit)


def result_of(reference: Any) -> Any:
    """Return the answer of an actor; a HeadstartError that it raised is raised here."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HeadstartError):
            raise error.cause from None
        raise


class RayPool:
    """Runs independent tasks in workers of one core each; a context manager that ends the workers.

    Shared data goes into the cluster's object store once, and from there once to every node; only its own arguments are
    sent with each task. ``n_jobs`` is the largest number of workers; by default the number of free cores. Raises
    HeadstartError if Ray is not installed.
    """

    def __init__(self, address: str | None = None, n_jobs: int | None = None) -> None:
        check_installed()
        self._address, self._n_jobs = address, n_jobs
        self._cluster, self._workers = ExitStack(), ExitStack()
        self._parallel: Any = None
        self._n_workers = 0

    def __enter__(self) -> Self:
        from ray.util.joblib import register_ray

        logging.getLogger("ray.util.multiprocessing.pool").setLevel(logging.ERROR)  # warns of joblib's arguments
        self._cluster.enter_context(connected(self._address))
        try:
            self._most = most_workers(self._n_jobs)
        except BaseException:
            self._cluster.close()
            raise
        register_ray()
        return self

    def __exit__(self, *_: object) -> None:
        with self._cluster:
            self._workers.close()

    def map(
        self, function: Callable[..., Any], shared: Any, tasks: Sequence[tuple[Any, ...]], *, in_threads: bool = True
    ) -> tuple[list[Any], list[str]]:
        """Return the results of a module's function for the tasks, and its warnings (selection/cross_validation.py).

        Raises HeadstartError if a task raised one, or a worker exited.
        """
        import ray
        from joblib import delayed

        workers, reference = self._started(len(tasks)), ray.put(shared)
        try:
            found = workers(delayed(alone)(function, reference, task) for task in tasks)
        except ray.exceptions.RayError as error:
            raise HeadstartError(
                f"A worker of the cluster was lost while heads were fitted: {error}. Run again; a lack of memory is likely "
                "where it happens again: take fewer workers, or larger nodes."
            ) from error
        return [value for value, _ in found], [message for _, messages in found for message in messages]

    def _started(self, n_tasks: int) -> Any:
        """Return joblib's ``Parallel`` over the workers; starts more workers if there are more tasks than before."""
        from joblib import Parallel, parallel_config

        wanted = max(2, min(self._most, n_tasks))  # joblib runs a single one in this process
        if wanted > self._n_workers:
            self._workers.close()
            with parallel_config(backend="ray", ray_remote_args={"num_cpus": 1}):
                self._parallel = self._workers.enter_context(Parallel(n_jobs=wanted))
            self._n_workers = wanted
        return self._parallel


def most_workers(n_jobs: int | None) -> int:
    """Return the largest possible number of workers of one core; raise HeadstartError if fewer than two fit."""
    import ray

    free = int(ray.available_resources().get("CPU", 0))
    if free < 2 or (n_jobs or 2) < 2:
        raise HeadstartError(
            f"Heads are fitted by two workers of a cluster or more, one core each. Received: {free} free cores, and at most "
            f"{n_jobs or 'as many'} workers.",
            hint="Leave out `engine='ray'` to fit them in this process.",
        )
    return min(n_jobs or free, free)


def alone(function: Callable[..., Any], shared: Any, task: tuple[Any, ...]) -> tuple[Any, list[str]]:
    """Return the result of a function on one core of a worker, and its warnings."""
    import ray
    from threadpoolctl import threadpool_limits

    limit_threads(1)
    if isinstance(shared, ray.ObjectRef):  # with some versions of joblib it is the object itself
        shared = ray.get(shared)
    with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = function(shared, *task)
    return value, [str(warning.message) for warning in caught]
