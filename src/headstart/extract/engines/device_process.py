"""A process that computes on one device, as the one that started it sees it: messages there and back, and its end."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.extract.shard_jobs import Task


class DeviceProcess:
    """A process of its own, started anew instead of forked: TensorFlow and CUDA do not survive a fork.

    Messages are tuples that begin with a word; they go through its standard input and output, which end when it does,
    whatever ends it. Both ends are this program, so they are pickled. Nobody else's Ctrl-C reaches it.

    Parameters
    ----------
    name : str
        Of its device.
    environment : mapping
        Of the process.
    setup : tuple
        Its first message.
    inbox : SimpleQueue
        Gets ``(process, message)`` for each of its messages; the last one, when it has ended, is None.

    Attributes
    ----------
    tasks : dict
        What it was given and has not reported, by the path of the shard.
    is_running, is_alone : bool
        Whether it runs a pipeline, and whether that is for a single shard.
    """

    def __init__(
        self,
        name: str,
        environment: Mapping[str, str],
        setup: tuple[Any, ...],
        inbox: SimpleQueue[tuple[DeviceProcess, tuple[Any, ...] | None]],
    ) -> None:
        self.name, self._inbox = name, inbox
        self.tasks: dict[Any, Task] = {}
        self.is_running = self.is_alone = False
        self._sending = threading.Lock()
        self._sending.acquire()  # until the first message is sent
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "headstart.extract.engines.device_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # what Windows has for it
        )
        self._stdin: IO[bytes] = self._process.stdin  # type: ignore[assignment]
        self._stdout: IO[bytes] = self._process.stdout  # type: ignore[assignment]
        self._listener = threading.Thread(target=self._listen, args=(setup,), daemon=True, name=f"device {name}")
        self._listener.start()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def send(self, *message: Any) -> None:
        """Send a message; where the process has ended, nothing: that comes as its last message."""
        with self._sending, suppress(OSError, ValueError):
            write_message(self._stdin, message)

    def end(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for stream in (self._stdin, self._stdout):
            with suppress(OSError):
                stream.close()

    def _listen(self, setup: tuple[Any, ...]) -> None:
        # The first message is long (weights), and read once the process has started: not for who starts it to wait for.
        try:
            with suppress(OSError, ValueError):
                write_message(self._stdin, setup)
        finally:
            self._sending.release()
        while (message := read_message(self._stdout)) is not None:
            self._inbox.put((self, message))
        self._inbox.put((self, None))


def write_message(stream: IO[bytes], message: tuple[Any, ...]) -> None:
    """Write a message whole."""
    stream.write(pickle.dumps(message))
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[Any, ...] | None:
    """Return the next message, waiting for it; None where the other process has ended, in the middle of one too."""
    try:
        message: tuple[Any, ...] = pickle.load(stream)  # noqa: S301
    except (EOFError, OSError, ValueError, pickle.UnpicklingError):
        return None
    return message
