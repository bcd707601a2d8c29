"""A process that computes on one device: its messages, as the engine sees them, and what runs in it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from queue import SimpleQueue
from typing import IO, Any, NoReturn

from headstart.backbones.precision import pick_device
from headstart.errors import HeadstartError
from headstart.extract.engines.ray_engine import Worker
from headstart.extract.network import Network
from headstart.extract.pipeline import Pipeline
from headstart.extract.shard_jobs import Shard, ShardJob, Task
from headstart.images.read_ahead import RunTimes
from headstart.types import Recipe


class DeviceProcess:
    """A process for one device, started anew instead of forked: TensorFlow and CUDA do not survive a fork.

    Messages are tuples that begin with a word, pickled, through its standard input and output; both ends are this
    program. It does not receive the terminal's Ctrl-C. ``setup`` is the first message; ``inbox`` receives ``(process,
    message)`` for each message, and None as the last one, when the process has ended. ``tasks`` are those that it has not
    reported, by the path of the shard; ``is_alone`` means that its pipeline is for a single shard.
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
            [sys.executable, "-P", "-m", "headstart.extract.engines.device_process"],
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
        """Identifier of the process."""
        return self._process.pid

    def send(self, *message: Any) -> None:
        """Send a message, unless the process has ended, which its last message says."""
        with self._sending, suppress(OSError, ValueError):
            write_message(self._stdin, message)

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for stream in (self._stdin, self._stdout):
            with suppress(OSError):
                stream.close()

    def _listen(self, setup: tuple[Any, ...]) -> None:
        # The first message is long (weights) and read once the process has started: its starter does not wait for that.
        try:
            with suppress(OSError, ValueError):
                write_message(self._stdin, setup)
        finally:
            self._sending.release()
        while (message := read_message(self._stdout)) is not None:
            self._inbox.put((self, message))
        self._inbox.put((self, None))


def write_message(stream: IO[bytes], message: tuple[Any, ...]) -> None:
    """Write a message."""
    stream.write(pickle.dumps(message))
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[Any, ...] | None:
    """Wait for the next message and return it; None if the other process has ended."""
    try:
        message: tuple[Any, ...] = pickle.load(stream)  # noqa: S301
    except (EOFError, OSError, ValueError, pickle.UnpicklingError):
        return None
    return message


class DeviceWorker(Worker):
    """Answers the messages of the process that has started this one, and exits when that does.

    ``max_unpublished`` is the number of images that a crash may cost; messages come from the first of the two ``streams`` and
    go to the second.
    """

    def __init__(
        self, name: str, network: Network, job: ShardJob, n_threads: int, max_unpublished: int, *streams: IO[bytes]
    ) -> None:
        super().__init__(network, job, n_threads)
        self._name, self._job, self._max_unpublished = name, job, max_unpublished
        self._in, self._out = streams
        self._inbox: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        threading.Thread(target=self._listen, daemon=True, name="messages").start()

    def serve(self) -> None:
        """Answer messages until the other process ends."""
        while True:
            kind, *values = self._inbox.get()
            try:
                if kind == "choose":
                    self._check_device()
                    self._send("chosen", self.choose(*values))
                elif kind == "extract":
                    self._check_device()
                    self._extract(*values)
            except Exception as error:
                self._send("error", sendable(error))

    def _extract(self, recipe: Recipe, info: dict[str, str]) -> None:
        """Run a pipeline over the shards that come when they are asked for."""
        pipeline = Pipeline(
            self._job,
            self.load(recipe),
            info=info,
            stop=self._stop,
            times=RunTimes(),
            max_unpublished=self._max_unpublished,
        )
        with closing(pipeline.run(self._shards())) as reports:
            for report in reports:
                self._send("report", report)
        self._send("done", pipeline.times)

    def _shards(self) -> Iterator[Shard]:
        while True:
            self._send("next")
            kind, *values = self._inbox.get()
            if kind == "end":
                return
            yield values[0]

    def _check_device(self) -> None:
        """Raise HeadstartError if TensorFlow does not see the GPU of this process."""
        if self._name.startswith("gpu"):
            pick_device("gpu:0")

    def _send(self, *message: Any) -> None:
        tell(self._out, message)

    def _listen(self) -> None:
        while (message := read_message(self._in)) is not None:
            if message[0] == "stop":
                self.stop()
            else:
                self._inbox.put(message)
        leave()


def tell(stream: IO[bytes], message: tuple[Any, ...]) -> None:
    """Send a message to the process that has started this one; exit if that has ended."""
    try:
        write_message(stream, message)
    except OSError:
        leave()


def leave() -> NoReturn:
    """Exit at once, without waiting for threads that read and compute; unfinished shards are discarded as after any kill."""
    os._exit(1)


def sendable(error: Exception) -> Exception:
    """Return an error that another process can raise; with the traceback, unless it is an expected one."""
    return error if isinstance(error, HeadstartError) else RuntimeError("".join(traceback.format_exception(error)))


def main() -> None:
    """Serve messages on standard output; what libraries print goes to standard error."""
    stream_in, stream_out = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        setup = read_message(stream_in)
        if setup is None:  # who started this process has ended
            return
        worker = DeviceWorker(*setup, stream_in, stream_out)
    except Exception as error:
        tell(stream_out, ("error", sendable(error)))
        raise
    worker.serve()


if __name__ == "__main__":
    main()
