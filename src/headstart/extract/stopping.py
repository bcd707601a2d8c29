"""Ctrl-C, SIGTERM and a closed terminal end a run after its current batch, with everything that was computed kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: What a closed terminal and a broken connection send; Windows has nothing of it.
HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)


class Stop(threading.Event):
    """Set once a run is to stop.

    Attributes
    ----------
    number : int
        The first signal that asked for it; 0 where none did.
    """

    number = 0


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Yield an event that the first SIGINT, SIGTERM or SIGHUP sets.

    A second SIGINT or SIGTERM, one of the same kind, ends the program as it always does. SIGHUP never does: shell and
    system send several as a terminal is closed, and SIGTERM with them. Where it is ignored, as by ``nohup``, it stays so.

    Outside the main thread Python allows no handlers: the event is then never set.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
        numbers.append(HANGUP)
    before = {number: signal.getsignal(number) for number in numbers}

    def on_signal(number: int, _frame: FrameType | None) -> None:
        stop.number = stop.number or number
        stop.set()
        if number != HANGUP:
            signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
