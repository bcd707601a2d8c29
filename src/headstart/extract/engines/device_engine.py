"""Extraction on several devices of one machine: a process for each, and the queue that gives shards to them."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

from headstart.backbones.precision import pick_device
from headstart.errors import HeadstartError
from headstart.extract.engines.device_process import DeviceProcess
from headstart.extract.engines.engine import Engine, devices_of
from headstart.extract.network import Network
from headstart.extract.options import ExtractOptions, OnImages
from headstart.extract.shard_jobs import MAX_EXITS_IN_A_ROW, Shard, ShardJob, ShardReport, Task, Tasks, to_choose_by
from headstart.images.read_ahead import RunTimes
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
