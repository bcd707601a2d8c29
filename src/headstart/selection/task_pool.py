"""Pools that run independent tasks: threads of this process, or the workers of a cluster."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from headstart.errors import HeadstartError
from headstart.runtime import usable_cores


class Pool(Protocol):
    """Runs tasks; a context manager, at whose end nothing of it is left."""

    def __enter__(self) -> Self:
        """Start what runs them."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it."""
        ...

    def map(
        self, function: Callable[..., Any], shared: Any, tasks: Sequence[tuple[Any, ...]], *, in_threads: bool = True
    ) -> tuple[list[Any], list[str]]:
        """Return what a function returns for each task, in their order, and what it warned of.

        Parameters
        ----------
        function : callable
            Function of a module; called with ``shared`` and the arguments of a task.
        shared : object
            Data that all tasks read and none changes.
        tasks : sequence of tuple
            Arguments of each call.
        in_threads : bool
            Whether tasks may run at the same time in threads of one process.
        """
        ...


class LocalPool:
    """Threads of this process, which share its memory.

    Parameters
    ----------
    n_jobs : int, optional
        Tasks at a time; the default is one per processor.
    """

    def __init__(self, n_jobs: int | None = None) -> None:
        self._n_jobs = n_jobs

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Threads end with the call that made them."""

    def map(
        self, function: Callable[..., Any], shared: Any, tasks: Sequence[tuple[Any, ...]], *, in_threads: bool = True
    ) -> tuple[list[Any], list[str]]:
        """See :class:`Pool`."""
        from joblib import Parallel, delayed
        from threadpoolctl import threadpool_limits

        jobs = min(self._n_jobs or usable_cores(), len(tasks)) if in_threads else 1
        # One processor per task beats all of them on one task's small products.
        with threadpool_limits(1 if jobs > 1 else None), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            values = Parallel(n_jobs=jobs, prefer="threads")(delayed(function)(shared, *task) for task in tasks)
        return values, [str(warning.message) for warning in caught]


def make_pool(engine: str = "local", address: str | None = None, n_jobs: int | None = None) -> Pool:
    """Return the pool of an engine.

    Parameters
    ----------
    engine : str
        ``local``, this process; or ``ray``, the workers of a cluster.
    address : str, optional
        Address of the cluster; by default one is started on this machine.
    n_jobs : int, optional
        Tasks at a time; the default is one per processor.

    Raises
    ------
    HeadstartError
        If there is no engine of that name, or what it needs is not installed.
    """
    if engine == "local":
        return LocalPool(n_jobs)
    if engine == "ray":
        from headstart.ray_cluster import RayPool

        return RayPool(address, n_jobs)
    raise HeadstartError(f"Unknown engine {engine!r}. Expected local or ray.")
