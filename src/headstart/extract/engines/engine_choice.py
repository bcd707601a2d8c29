"""The engines of an extraction, in one registry: this process, a process for each device, or the workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from headstart.errors import HeadstartError
from headstart.extract.engines.device_engine import DevicesEngine, devices_of
from headstart.extract.engines.local_engine import Engine, LocalEngine
from headstart.extract.engines.ray_engine import RayEngine
from headstart.ray_cluster import check_installed

if TYPE_CHECKING:
    from headstart.extract.network import Network
    from headstart.extract.options import ExtractOptions
    from headstart.extract.shard_jobs import ShardJob
    from headstart.types import Recipe

#: The engines by name; ``devices`` is ``local`` on several devices of this machine.
ENGINES: dict[str, Callable[[Network, ShardJob, ExtractOptions], Engine]] = {
    "local": LocalEngine,
    "devices": DevicesEngine,
    "ray": RayEngine,
}


def check_engine(options: ExtractOptions) -> None:
    """Raise HeadstartError where there is no engine of the name in the options, or what it needs is not installed."""
    if options.engine not in ENGINES:
        raise HeadstartError(f"Unknown engine {options.engine!r}. Expected one of: {', '.join(ENGINES)}.")
    if options.engine == "ray":
        check_installed()


def make_engine(network: Network, job: ShardJob, options: ExtractOptions, existing: Recipe | None) -> Engine:
    """Return the engine that the options name; for several devices of this machine, ``devices``.

    Raises
    ------
    HeadstartError
        As :func:`check_engine`; or if there is no such device.
    """
    check_engine(options)
    several = options.engine == "local" and len(devices_of(options, existing)) > 1
    return ENGINES["devices" if several else options.engine](network, job, options)
