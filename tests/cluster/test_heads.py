"""Heads searched and compared in the workers of a Ray cluster: the same results as in this process."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.errors import DataError, HeadstartError
from headstart.fit import fit_head
from headstart.heads.catalogue import heads_for
from headstart.ray_cluster import RayPool
from headstart.selection.compare import compare_heads
from labelled import labelled_cache

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("cluster")]

ray = pytest.importorskip("ray")

LABELS = [row % 3 for row in range(90)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_cache(tmp_path_factory.mktemp("heads") / "c.h5", LABELS, distance=0.5)


def test_a_comparison_is_the_same_bit_for_bit(cache: Path) -> None:
    heads = (*(name for name in heads_for("classification") if name != "dense"), "majority")
    far, near = (compare_heads(cache, heads=heads, n_repeats=1, engine=engine) for engine in ("ray", "local"))
    assert [head.name for head in far.heads] == [head.name for head in near.heads]
    for one, other in zip(far.heads, near.heads, strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)
        assert (one.spec, one.metrics, one.fold_accuracy, one.fold_settings, one.notes) == (
            other.spec, other.metrics, other.fold_accuracy, other.fold_settings, other.notes
        )  # fmt: skip
    assert (far.recommended, far.left_out) == (near.recommended, near.left_out)


@pytest.mark.parametrize(("head", "scaling"), [("logistic", "standard"), ("rbf-svm", "sqrt-l2")])
def test_a_search_is_the_same_bit_for_bit(head: str, scaling: str, cache: Path) -> None:
    from headstart.heads.catalogue import default_spec

    spec = default_spec(head, scaling=scaling)
    far, near = (fit_head(cache, spec, search="features", engine=engine) for engine in ("ray", "local"))
    assert far.search is not None
    assert near.search is not None
    assert far.search.trials == near.search.trials
    assert (far.spec, far.score) == (near.spec, near.score)


def look(shared: dict[str, Any], number: int) -> dict[str, Any]:
    """Say what a task sees."""
    from threadpoolctl import threadpool_info

    warnings.warn(f"task {number}", stacklevel=1)
    rows = shared["rows"]
    return {
        "number": number,
        "process": os.getpid(),
        "sum": float(rows.sum()),
        "is_shared": not rows.flags.writeable,
        "threads": max((pool["num_threads"] for pool in threadpool_info()), default=1),
    }


def refuse(_: None, number: int) -> None:
    raise DataError(f"Not with {number}.")


def end(_: None, number: int) -> None:
    os._exit(1)


def test_errors_come_back_as_they_are_and_tasks_share_data_and_have_one_thread() -> None:
    rows = np.ones((1000, 200))
    with RayPool() as pool:
        with pytest.raises(DataError, match=r"Not with \d\."):
            pool.map(refuse, None, [(number,) for number in range(8)])
        found, said = pool.map(look, {"rows": rows}, [(number,) for number in range(8)])
    assert [one["number"] for one in found] == list(range(8))
    assert {one["sum"] for one in found} == {rows.size}
    assert all(one["is_shared"] for one in found)  # memory of the object store, not a copy that came with the task
    assert {one["threads"] for one in found} == {1}
    assert len({one["process"] for one in found}) > 1
    assert os.getpid() not in {one["process"] for one in found}
    assert sorted(said) == [f"task {number}" for number in range(8)]


def test_lost_workers_are_named() -> None:
    with RayPool() as pool, pytest.raises(HeadstartError, match="A worker of the cluster was lost"):
        pool.map(end, None, [(1,), (2,)])


def test_a_cluster_of_one_worker_is_refused_and_stays_connected() -> None:
    with pytest.raises(HeadstartError, match=r"two workers of a cluster or more.*at most 1 workers"), RayPool(n_jobs=1):
        pass
    assert ray.is_initialized()
