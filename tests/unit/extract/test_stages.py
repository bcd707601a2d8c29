from __future__ import annotations

import pytest

from headstart.images.load import RunTimes, Stage, StageTime


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def work(self, seconds: float) -> float:
        """Take so long."""
        self.seconds += seconds
        return seconds


def test_a_stage_gives_results_in_order_and_counts_its_work() -> None:
    clock, time = Clock(), StageTime()
    with Stage("work", 1, time, clock=clock) as stage:
        for seconds in (1.0, 2.0, 4.0):
            stage.submit(clock.work, seconds)
        assert [stage.take() for _ in range(len(stage))] == [1.0, 2.0, 4.0]
    assert (time.threads, time.busy_seconds) == (1, 7.0)
    assert 0 <= time.awaited_seconds <= 7.0


def test_what_fails_counts_as_work_and_is_raised_where_it_is_taken() -> None:
    clock, time = Clock(), StageTime()

    def fail() -> None:
        clock.work(3.0)
        raise ValueError("broken")

    with Stage("work", 1, time, clock=clock) as stage:
        stage.submit(fail)
        stage.submit(clock.work, 1.0)
        with pytest.raises(ValueError, match="broken"):
            stage.take()
        assert stage.take() == 1.0
    assert time.busy_seconds == 4.0


@pytest.mark.parametrize("finish", [True, False])
def test_an_error_drops_the_work_that_has_not_begun_unless_it_must_be_finished(finish: bool) -> None:
    from threading import Event

    begun, go, done = Event(), Event(), []

    def first() -> None:
        begun.set()
        go.wait(60)
        done.append(1)

    def end() -> None:
        with Stage("work", 1, StageTime(), finish=finish) as stage:
            stage.submit(first)
            stage.submit(done.append, 2)
            begun.wait(60)
            stage._pool.submit = None  # type: ignore[assignment,method-assign]  # nothing is given any more
            shutdown = stage._pool.shutdown

            def shutdown_then_go(**options: bool) -> None:
                shutdown(**options | {"wait": False})
                go.set()
                shutdown(wait=True)

            stage._pool.shutdown = shutdown_then_go  # type: ignore[assignment,method-assign]
            raise ValueError("elsewhere")

    with pytest.raises(ValueError, match="elsewhere"):
        end()
    assert done == ([1, 2] if finish else [1])


def test_shares_are_of_all_threads_and_the_stage_waited_for_most_bounds_the_run() -> None:
    times = RunTimes(StageTime(2, 10.0, 6.0), StageTime(1, 4.0, 1.0), StageTime(1, 20.0, 2.0), seconds=10.0)
    assert [times.share(stage) for stage in (times.decode, times.forward, times.write)] == [0.5, 0.4, 1.0]
    assert times.bound() == "decode"
    assert RunTimes().share(StageTime()) == 0.0
    assert RunTimes().bound() == "forward"
