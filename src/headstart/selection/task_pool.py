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
        """Return what a function of a module returns for each task, in their order, and what it warned of.

        It is called with ``shared``, which no task may change, and the arguments of a task. ``in_threads`` says whether
        tasks may run at the same time in threads of one process.
        """
        ...


class LocalPool:
    """Threads of this process, which share its memory; by default one per processor."""

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
    """Return the pool of an engine: ``local``, this process, or ``ray``, the workers of a cluster.

    By default a cluster is started on this machine, and there is one task at a time per processor. Raises HeadstartError if
    there is no engine of that name, or what it needs is not installed.
    """
    if engine == "local":
        return LocalPool(n_jobs)
    if engine == "ray":
        from headstart.ray_cluster import RayPool

        return RayPool(address, n_jobs)
    raise HeadstartError(f"Unknown engine {engine!r}. Expected local or ray.")
