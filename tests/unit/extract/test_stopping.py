from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from headstart.extract import run
from headstart.extract.run import stop_on_signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.fixture(autouse=True)
def _hangups_are_not_ignored() -> Iterator[None]:
    """Tests that run under nohup begin with SIGHUP ignored."""
    with handled(signal.SIGHUP, signal.SIG_DFL):
        yield


@contextmanager
def handled(number: signal.Signals, handler: object) -> Iterator[None]:
    before = signal.signal(number, handler)  # type: ignore[arg-type]
    try:
        yield
    finally:
        signal.signal(number, before)


def send(number: signal.Signals) -> None:
    signal.raise_signal(number)  # its handler has run when this returns


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_stops_the_run(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop.is_set()
        send(number)
        assert (stop.is_set(), stop.number) == (True, number)
    assert signal.getsignal(number) is before


def test_the_second_ctrl_c_ends_the_program() -> None:
    with stop_on_signals():
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_a_closed_terminal_may_say_so_several_times_and_send_sigterm_too() -> None:
    with handled(signal.SIGTERM, signal.default_int_handler), stop_on_signals() as stop:
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            send(number)
        assert stop.number == signal.SIGHUP


def test_a_hangup_that_is_ignored_stays_so() -> None:
    with handled(signal.SIGHUP, signal.SIG_IGN), stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert not stop.is_set()


def test_a_system_without_hangups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "HANGUP", None)
    before = signal.getsignal(signal.SIGHUP)
    with stop_on_signals() as stop:
        assert signal.getsignal(signal.SIGHUP) is before
        send(signal.SIGTERM)
        assert stop.number == signal.SIGTERM
