"""Images and rate per device or node, and distinct names of nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headstart.extract.ray_engine import WorkerPool
from headstart.extract.summary import StatisticsCollector, WorkerStatistics


def clock(*times: float) -> Callable[[], float]:
    return iter(times).__next__


def test_a_rate_counts_from_the_first_image_given_to_the_last_one_done() -> None:
    collector = StatisticsCollector(clock(10.0, 11.0, 12.0, 30.0))
    collector.start("b")
    collector.start("a")
    collector.add("b", 100)
    collector.start("b")  # the first time counts
    collector.add("b", 100)
    assert collector.collect({"b": 2, "a": 1}) == (
        WorkerStatistics("a", 1, 0, 0.0),
        WorkerStatistics("b", 2, 200, 10.0),
    )


def test_a_place_without_workers_is_lost_and_keeps_what_it_did() -> None:
    collector = StatisticsCollector(clock(0.0, 4.0))
    collector.start("b")
    collector.add("b", 1000)
    assert [str(one) for one in collector.collect({})] == ["b (lost): 1,000 images at 250.0 images/s"]
    assert str(WorkerStatistics("a", 1, 12, 3.0)) == "a (1 worker): 12 images at 3.0 images/s"


def test_nodes_of_one_host_have_names_of_their_own() -> None:
    class Handle:
        def __init__(self) -> None:
            self.place = self

        def remote(self) -> Any:
            return object()

    pool = WorkerPool(Handle, 3)
    names = [pool.name_of("a", "1"), pool.name_of("b", "2"), pool.name_of("a", "3"), pool.name_of("a", "1")]
    assert names == ["a", "b", "a #2", "a"]
