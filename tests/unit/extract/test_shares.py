"""Who computed how much: rates by place, and names of places that tell them apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headstart.extract.engines.ray_engine import Crew
from headstart.extract.options import Share, Shares


def clock(*times: float) -> Callable[[], float]:
    return iter(times).__next__


def test_a_rate_counts_from_the_first_image_given_to_the_last_one_done() -> None:
    shares = Shares(clock(10.0, 11.0, 12.0, 30.0))
    shares.given("b")
    shares.given("a")
    shares.done("b", 100)
    shares.given("b")  # the first time counts
    shares.done("b", 100)
    assert shares.of({"b": 2, "a": 1}) == (Share("a", 1, 0, 0.0), Share("b", 2, 200, 10.0))


def test_a_place_without_workers_is_lost_and_keeps_what_it_did() -> None:
    shares = Shares(clock(0.0, 4.0))
    shares.given("b")
    shares.done("b", 1000)
    assert [str(share) for share in shares.of({})] == ["b (lost): 1,000 images at 250.0 images/s"]
    assert str(Share("a", 1, 12, 3.0)) == "a (1 worker): 12 images at 3.0 images/s"


def test_nodes_of_one_host_have_names_of_their_own() -> None:
    class Handle:
        def __init__(self) -> None:
            self.place = self

        def remote(self) -> Any:
            return object()

    crew = Crew(Handle, 3)
    names = [crew.name_of("a", "1"), crew.name_of("b", "2"), crew.name_of("a", "3"), crew.name_of("a", "1")]
    assert names == ["a", "b", "a #2", "a"]
