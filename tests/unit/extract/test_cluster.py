"""Parts of the cluster engine that need no cluster: tasks, resources of workers, and the error where Ray is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from fakes import FakeNetwork
from headstart.errors import HeadstartError
from headstart.extract.options import ExtractOptions
from headstart.extract.ray_engine import RayEngine
from headstart.extract.run import extract_features
from headstart.extract.shard_jobs import MAX_EXITS, PARTS, Shard, ShardJob, Tasks
from headstart.ray_cluster import ClusterOptions, worker_resources
from headstart.types import ImageRef
from pictures import class_folders


def shard(n_images: int) -> Shard:
    refs = [ImageRef(f"{number}.png", None, None, None, 1, 1) for number in range(n_images)]
    return Shard(Path("shards/7.h5"), refs)


def nodes(*sizes: tuple[float, float]) -> list[dict[str, Any]]:
    return [{"Alive": True, "Resources": {"CPU": cpus, "GPU": gpus}} for cpus, gpus in sizes]


def test_the_one_image_that_ends_every_process_is_found_in_a_handful_of_exits() -> None:
    waiting, exits, done = Tasks([shard(256)]), 0, []
    lost = None
    while waiting:
        task = waiting.next()
        names = [ref.path for ref in task.shard.refs]
        if "77.png" in names:
            exits += 1
            lost = waiting.put_back(task) or lost
        else:
            done += names
    assert lost is not None
    assert [ref.path for ref in lost.refs] == ["77.png"]
    assert exits == MAX_EXITS + 2
    assert sorted(done, key=lambda name: int(name.split(".")[0])) == [f"{n}.png" for n in range(256) if n != 77]


def test_a_single_exit_divides_nothing_and_parts_have_files_of_their_own() -> None:
    waiting = Tasks([shard(40)])
    waiting.put_back(waiting.next())
    again = waiting.next()
    assert len(again.shard.refs) == 40
    waiting.put_back(again)
    paths = set()
    while waiting:
        paths.add(waiting.next().shard.path)
    assert len(paths) == -(-40 // -(-40 // PARTS))
    assert {path.parent for path in paths} == {Path("shards")}
    assert Path("shards/7.h5") not in paths


def test_workers_have_four_cores_or_all_of_the_smallest_node() -> None:
    assert worker_resources(nodes((16, 0), (8, 0)), ClusterOptions()) == ({"num_cpus": 4, "num_gpus": 0.0}, 6)
    assert worker_resources(nodes((16, 0), (2, 0)), ClusterOptions()) == ({"num_cpus": 2, "num_gpus": 0.0}, 9)
    assert worker_resources(nodes((16, 0), (0, 0)), ClusterOptions(workers=3)) == ({"num_cpus": 4, "num_gpus": 0.0}, 3)


def test_where_there_are_gpus_each_has_a_worker() -> None:
    assert worker_resources(nodes((16, 2), (8, 0)), ClusterOptions()) == ({"num_cpus": 4, "num_gpus": 1.0}, 2)
    assert worker_resources(nodes((16, 2)), ClusterOptions(gpus_per_worker=0.5)) == (
        {"num_cpus": 4, "num_gpus": 0.5},
        4,
    )
    assert worker_resources(nodes((16, 2)), ClusterOptions(gpus_per_worker=0)) == ({"num_cpus": 4, "num_gpus": 0}, 4)


def test_no_room_is_said_with_what_there_is() -> None:
    dead = {"Alive": False, "Resources": {"CPU": 64.0}}
    with pytest.raises(
        HeadstartError, match=r"No node .* 8 cores and 0 GPUs .* 4 cores, 0 GPUs\. Lower `cpus_per_worker`"
    ):
        worker_resources([*nodes((4, 0)), dead], ClusterOptions(cpus_per_worker=8))
    with pytest.raises(HeadstartError, match="Nodes: none"):
        worker_resources([dead], ClusterOptions())


def test_ray_that_is_missing_is_an_error_and_no_local_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    data = class_folders(tmp_path / "data", n_per_class=2)
    with pytest.raises(HeadstartError, match=r"pip install \"headstart\[ray\]\""):
        extract_features(data, tmp_path / "x.h5", options=ExtractOptions(engine="ray"), network=FakeNetwork())
    assert not (tmp_path / "x.h5").exists()


def test_an_engine_that_does_not_exist_is_named(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", n_per_class=2)
    with pytest.raises(HeadstartError, match=r"Unknown engine .dask.\. Expected one of: local, devices, ray"):
        extract_features(data, tmp_path / "x.h5", options=ExtractOptions(engine="dask"), network=FakeNetwork())


def test_a_network_is_not_quantised_by_a_cluster(tmp_path: Path) -> None:
    options = ExtractOptions(engine="ray", precision="int8")
    engine = RayEngine(FakeNetwork(), ShardJob(tmp_path, ()), options)  # type: ignore[arg-type]
    with pytest.raises(HeadstartError, match="`precision='int8'` and no `engine` first"):
        engine.prepare(None, shard(3).refs)
    assert engine.prepare(FakeNetwork().made.recipe, shard(3).refs) is not None
