"""Extraction on several devices of one machine: a process for each, its messages, and the queue that gives shards to them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import IO, Any, NoReturn

from headstart.backbones.precision import pick_device
from headstart.errors import HeadstartError
from headstart.extract.engine import Engine, devices_of
from headstart.extract.network import Network
from headstart.extract.options import ExtractOptions, OnImages
from headstart.extract.pipeline import Pipeline
from headstart.extract.ray_engine import Worker
from headstart.extract.shard_jobs import MAX_EXITS_IN_A_ROW, Shard, ShardJob, ShardReport, Task, Tasks, to_choose_by
from headstart.images.load import RunTimes
from headstart.runtime import THREAD_VARIABLES, usable_cores
from headstart.types import ImageRef, Recipe

#: Environment variables with the GPUs that CUDA and ROCm use.
VISIBLE_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")

#: Longest wait for a message, seconds; then it is checked whether the run is to stop.
LOOK_SECONDS = 0.5


def environment(name: str, n_threads: int, here: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a process that sees one device: ``cpu``, or ``gpu:N``, counted as ``here``."""
    found = dict(here)
    for variable in VISIBLE_VARIABLES:
        found[variable] = "-1" if name == "cpu" else number_of(name, here.get(variable, ""))
    found |= dict.fromkeys(THREAD_VARIABLES, str(n_threads))
    found["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return found


def number_of(name: str, visible: str) -> str:
    """Return a GPU's entry in a list of visible ones, e.g. ``3`` or ``GPU-…``; its number without a list."""
    number = int(name.removeprefix("gpu:"))
    listed = [entry.strip() for entry in visible.split(",") if entry.strip()]
    return listed[number] if number < len(listed) else str(number)


class DevicesEngine(Engine):
    """Runs shards in one process per device of this machine; the decoding threads are divided among them."""

    def __init__(self, network: Network, job: ShardJob, options: ExtractOptions) -> None:
        super().__init__(network, job, options)
        self._names: list[str] = []
        self.processes: list[DeviceProcess] = []
        self._inbox: SimpleQueue[tuple[DeviceProcess, tuple[Any, ...] | None]] = SimpleQueue()
        self._exits_in_a_row, self._stopping = 0, False
        self._waiting: Tasks
        self._on_images: OnImages
        self._times: RunTimes

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.end()

    def prepare(self, existing: Recipe | None, refs: Sequence[ImageRef]) -> tuple[Recipe, str] | None:
        """See :class:`Engine`: one process chooses, since images may end it."""
        if existing is None and self.options.precision == "int8":
            raise HeadstartError(
                f"A network is quantised by a run on one device. Received: device {self.options.device}.",
                hint="Leave out `device`.",
            )
        n_shards = -(-len(refs) // self.options.file_images)
        self._names = [pick_device(name).name for name in devices_of(self.options, existing)[:n_shards]]
        self.device = ",".join(self._names)
        self.processes = [self._start(name) for name in self._names]
        return self._as_existing(existing) if existing is not None else self._chosen(to_choose_by(refs))

    def _chosen(self, waiting: Tasks) -> tuple[Recipe, str] | None:
        at_work: dict[DeviceProcess, Task] = {}
        while waiting or at_work:
            if waiting and not at_work:
                process, task = self.processes[0], waiting.next()
                at_work[process] = task
                process.send("choose", task.shard.refs)
            for process, message in self._messages():
                if message is None:
                    self._replace(process)
                    if process in at_work:
                        waiting.put_back(at_work.pop(process))
                elif message[0] == "chosen":
                    del at_work[process]
                    if message[1] is not None:
                        self._recipe, reason = message[1]
                        return self._recipe, str(reason)
        return None

    def run(
        self,
        shards: Iterable[Shard],
        *,
        info: dict[str, str],
        stop: threading.Event,
        on_images: OnImages,
        times: RunTimes,
    ) -> Generator[ShardReport]:
        self._waiting, self._on_images, self._times = Tasks(shards), on_images, times
        self._stopping, start = False, time.perf_counter()
        while self._at_work(info, stop):
            for process, message in self._messages():
                yield from self._taken(process, message)
        times.seconds = time.perf_counter() - start
        times.of_several(len(self.processes))

    def _at_work(self, info: dict[str, str], stop: threading.Event) -> bool:
        """Start pipelines while anything waits, or end them if the run is to stop; return whether any is running."""
        if stop.is_set() and not self._stopping:
            self._stopping = True
            for process in self.processes:
                process.send("stop")
        for process in self.processes:
            if self._waiting and not self._stopping and not process.is_running:
                process.is_running = True
                process.send("extract", self._recipe, info)
        return any(process.is_running for process in self.processes)

    def _taken(self, process: DeviceProcess, message: tuple[Any, ...] | None) -> Generator[ShardReport]:
        if message is None:
            yield from self._lost(process)
        elif message[0] == "next":
            self._give(process)
        elif message[0] == "report":
            yield from self._reported(process, message[1])
        elif message[0] == "done":
            process.is_running = process.is_alone = False
            process.tasks.clear()
            self._times.add(message[1])

    def _messages(self) -> list[tuple[DeviceProcess, tuple[Any, ...] | None]]:
        """Return a message, or nothing after a while; an error of the process is raised here."""
        try:
            process, message = self._inbox.get(timeout=LOOK_SECONDS)
        except Empty:
            return []
        if message is not None and message[0] == "error":
            raise message[1]
        return [(process, message)] if process in self.processes else []

    def _give(self, process: DeviceProcess) -> None:
        """Give a process the next shard, or end its pipeline; a shard over which another exited is given alone."""
        waiting = self._waiting
        if self._stopping or not waiting or process.is_alone or (waiting.is_suspect and process.tasks):
            process.send("end")
            return
        process.is_alone, task = waiting.is_suspect, waiting.next()
        process.tasks[task.shard.path] = task
        self._statistics.start(process.name)
        process.send("shard", task.shard)

    def _reported(self, process: DeviceProcess, report: ShardReport) -> Generator[ShardReport]:
        process.tasks.pop(report.path, None)
        self._exits_in_a_row = 0
        if self._count(report, process.name, self._on_images):
            yield report

    def _lost(self, process: DeviceProcess) -> Generator[ShardReport]:
        """Queue again what a process that exited had not reported; yield what is given up."""
        self._replace(process)
        for task in list(process.tasks.values()):
            if report := self._put_back(task, self._waiting):
                yield from self._reported(process, report)

    def _replace(self, process: DeviceProcess) -> None:
        process.end()
        self._exits_in_a_row += 1
        if self._exits_in_a_row > MAX_EXITS_IN_A_ROW * len(self.processes):
            raise HeadstartError(
                f"{self._exits_in_a_row} processes of {', '.join(dict.fromkeys(self._names))} have ended one after the "
                "other, and no shard was finished. A lack of memory is likely: use fewer devices (`device='gpu:0'`) or a "
                "smaller `batch_size`. What was computed is kept."
            )
        self.processes[self.processes.index(process)] = self._start(process.name)

    def _start(self, name: str) -> DeviceProcess:
        n_devices = len(self._names)
        n_threads = max(1, usable_cores() // n_devices)
        job = replace(self.job, decode_threads=max(1, self.job.decode_threads // n_devices))
        setup = name, self.network, job, n_threads, self.options.shard_images
        return DeviceProcess(name, environment(name, n_threads), setup, self._inbox)

    def _n_workers(self) -> Mapping[str, int]:
        return Counter(process.name for process in self.processes)


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
            [sys.executable, "-P", "-m", "headstart.extract.devices_engine"],
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
