"""One Ray cluster for all tests of this folder: it takes ten seconds to start."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from buckets import CREDENTIALS
from waiting import wait_for

HERE = Path(__file__).parent

#: Of two nodes, both of them on this machine.
N_CORES = 2

#: What ends the cluster.
ENDS = ExitStack()


@pytest.fixture(scope="session")
def shared_cluster(s3_endpoint: str) -> Any:
    """Two nodes of one core; their workers can import what tests define, and have the keys of a bucket."""
    if sys.platform == "win32":
        pytest.skip("clusters of several nodes on one machine need Linux or macOS")
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    path = os.pathsep.join([str(HERE), *(path for path in sys.path if path)])
    with pytest.MonkeyPatch.context() as patch:
        # Ray gives its workers a low priority (niceness 15): beside tests in other processes they would wait for minutes.
        environment = {"AWS_ENDPOINT_URL": s3_endpoint, "PYTHONPATH": path, "RAY_worker_niceness": "0"}
        for name, value in (CREDENTIALS | environment).items():
            patch.setenv(name, value)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        ENDS.callback(made.shutdown)
        for _ in range(N_CORES - 1):
            made.add_node(num_cpus=1)
        ray.init(address=made.address, log_to_driver=False)
        ENDS.callback(ray.shutdown)
    return made


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """End the cluster after the last test of this folder."""
    if nextitem is None or not nextitem.path.is_relative_to(HERE):
        ENDS.close()


@pytest.fixture
def cluster(shared_cluster: Any) -> Any:
    """The cluster with all cores free: those of an earlier engine's workers are, shortly after its end."""
    import ray

    wait_for(lambda: ray.available_resources().get("CPU", 0) == N_CORES)
    return shared_cluster
