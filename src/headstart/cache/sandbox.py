"""Files that this machine has not written or checked before are read by another process first, once each."""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py

from headstart.cache.format import SIGNATURE, SUPERBLOCK_VERSION
from headstart.storage.objects import home

#: Raise it when more is checked than before.
VERSION = 1

#: Name of the record in the user's cache folder: one identity a line.
RECORD = "checked-files.txt"

#: The record is cut to its newer half when it is larger: 30,000 files.
MAX_RECORD_BYTES = 2**20

#: What this process knows of: identities of files, and which state of the record it has read.
_known: set[str] = set()
_read: list[tuple[int, int]] = [(0, 0)]


def identity(path: Path) -> str:
    """Return what a file is known by, 32 hexadecimal digits."""
    found = path.stat()
    values = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return hashlib.sha256(f"{VERSION} {h5py.version.hdf5_version} {values}".encode()).hexdigest()[:32]


def is_known(file: str) -> bool:
    """Return whether a file, by its identity, was written or checked here."""
    if file not in _known:
        with suppress(OSError):
            path = home() / RECORD
            found = path.stat()
            if _read[0] != (state := (found.st_mtime_ns, found.st_size)):
                _known.update(path.read_text("ascii", errors="replace").split())
                _read[0] = state
    return file in _known


def remember(file: str) -> None:
    """Keep that a file, by its identity, was written or checked here: for this process, and if possible for later ones."""
    _known.add(file)
    with suppress(OSError):
        path = home() / RECORD
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="ascii") as record:
            record.write(f"{file}\n")
            size_bytes = record.tell()
        if size_bytes > MAX_RECORD_BYTES:
            _forget_older_half(path)


def _forget_older_half(path: Path) -> None:
    """Cut the record to its newer half."""
    lines = path.read_text("ascii", errors="replace").splitlines(keepends=True)
    shorter = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    shorter.write_text("".join(lines[len(lines) // 2 :]), "ascii")
    shorter.replace(path)


def remember_written(path: Path) -> None:
    """Keep that this process has written a file."""
    with suppress(OSError):
        remember(identity(path))


#: Seconds of processor time for the structure of a file, and bytes of the file that are worth another: a row of a manifest
#: has 64 bytes at least, and takes 3 µs to read (two cores of Zen 3).
CPU_SECONDS, BYTES_PER_CPU_SECOND = 3, 10 * 2**20

#: Seconds that pass for each second of processor time before it is called an end without an answer; the same without
#: bounds of the operating system (Windows), and for the start of the process.
WAIT_FACTOR, START_SECONDS = 10, 120

#: Memory for the structure of a file: a fixed part, and a part that grows with the file.
MEMORY_BYTES, MEMORY_PER_FILE_BYTE = 2**30, 4

#: Exit codes of :mod:`headstart.cache.checks.sandbox_worker` for a file that does no harm: whole, or damaged in a way that
#: its reader reports.
SOUND, DAMAGED = 0, 3

#: Runs the process: Python without the environment's or the folder's modules, but with those that this process finds.
START = (
    "import json, sys; sys.path += [p for p in json.loads(sys.argv[1]) if p not in sys.path]; "
    "from headstart.cache.checks.sandbox_worker import serve; serve()"
)

#: A :class:`subprocess.Popen` of text whose pipes are there.
Process = Any

log = logging.getLogger(__name__)

#: Files, by their identity, that were refused by this process, and why.
_refused: dict[str, str] = {}


def open_hdf5(path: Path, superblock: int = SUPERBLOCK_VERSION, **options: Any) -> Any:
    """Return a file that begins as it must, open for reading, if no harm is to be expected of it.

    Parameters
    ----------
    path : Path
        The file.
    superblock : int
        Version that its superblock must have.
    **options
        As of ``h5py.File``.

    Raises
    ------
    ValueError
        If it begins otherwise, or the process that read it first died.
    OSError
        If it cannot be opened.
    """
    with path.open("rb") as start:
        _check_start(start.read(9), superblock)
    check_harmless(path)
    return h5py.File(path, "r", locking=False, **options)


def _check_start(start: bytes, superblock: int) -> None:
    """Raise ValueError where a file does not begin as one of HDF5 with this version of the superblock does."""
    if start[:8] != SIGNATURE:
        raise ValueError("it does not begin as an HDF5 file does")
    if start[8:9] != bytes([superblock]):
        raise ValueError(f"its superblock does not have version {superblock}")


def check_harmless(path: Path) -> None:
    """Raise ValueError where the process that reads a file first dies; whether the file is whole is for its reader to say."""
    before = identity(path)
    if is_known(before):
        return
    if before in _refused:  # a command opens a file more than once, and each attempt can take seconds
        raise ValueError(_refused[before])
    size_bytes = path.stat().st_size
    cpu_seconds = CPU_SECONDS + size_bytes // BYTES_PER_CPU_SECOND
    question = {
        "path": str(path.absolute()),
        "cpu_seconds": cpu_seconds,
        "memory_bytes": MEMORY_BYTES + MEMORY_PER_FILE_BYTE * size_bytes,
    }
    code = SANDBOX.ask(question, WAIT_FACTOR * cpu_seconds)
    if code == SOUND and identity(path) == before:
        remember(before)
    elif code not in {SOUND, DAMAGED, None}:
        reason = f"its structure is one that no program writes: a process that read it {_end_of(code, cpu_seconds)}"
        if code != -getattr(signal, "SIGKILL", 0):  # that may be for want of memory or time on a busy machine
            _refused[before] = reason
        raise ValueError(reason)


def _end_of(code: int, cpu_seconds: int) -> str:
    """Return how a process ended, in words."""
    if code == -getattr(signal, "SIGXCPU", 0):
        return f"did not come to an end in {cpu_seconds:,} s"
    if code == -getattr(signal, "SIGKILL", 0):
        return "did not come to an end, or took more memory than there is"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"failed with exit code {code}"


class Sandbox:
    """The process that reads files first; started for the first question, it ends by itself when there are no more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: Process | None = None
        self._is_missing = False

    def ask(self, question: dict[str, Any], wait_seconds: float) -> int | None:
        """Return the exit code for a file, negative for a signal; None where no such process can be had on this machine."""
        with self._lock:
            while not self._is_missing:
                process = self._process or self._start()
                if process is None:
                    break
                try:
                    code = _exchange(process, question, wait_seconds)
                except BaseException:  # the answer may still come, to no question
                    self.stop()
                    raise
                if process.poll() is not None:
                    _close(process)
                    self._process = None
                if code is not None:
                    return code
        return None

    def _start(self) -> Process | None:
        self._process = _start()
        if self._process is None:
            self._is_missing = True
            log.warning("No process can be started that reads files first: files made to harm can end this one.")
        return self._process

    def forget(self) -> None:
        """Leave the process to the one that this one was forked from."""
        if self._process is not None:
            self._process.returncode = 0  # it is another's child: nothing is to be waited for
        self._lock, self._process = threading.Lock(), None

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            _kill(self._process)
            self._process = None


def _start() -> Process | None:
    """Return a new process that waits for questions; None where there can be none: a program may bring its own Python."""
    if getattr(sys, "frozen", False) or not sys.executable:
        return None
    folders = [folder for folder in sys.path if Path(folder).is_absolute()]
    command = [sys.executable, "-I", "-c", START, json.dumps(folders)]
    # One thread is enough, and memory that was never written has a value of its own, so that reading it shows.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_PERTURB_": "165"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    try:
        # A session of its own: Ctrl-C is for this process.
        process = subprocess.Popen(command, env=environment, text=True, start_new_session=True, **pipes)  # noqa: S603
    except OSError:
        return None
    if _line_of(process, START_SECONDS) == "ready\n":
        return process
    _kill(process)
    return None


def _exchange(process: Process, question: dict[str, Any], wait_seconds: float) -> int | None:
    """Return the answer of the process, or how it ended; None where it had ended by itself before."""
    line = ""
    with suppress(OSError):
        process.stdin.write(f"{json.dumps(question)}\n")
        process.stdin.flush()
        line = _line_of(process, wait_seconds)
    if line:
        return int(line)
    code: int = process.wait()
    _close(process)
    return code or None


def _line_of(process: Process, wait_seconds: float) -> str:
    """Return the next line that a process writes; empty where it ends instead, which it is made to after some seconds."""
    timer = threading.Timer(wait_seconds, _end, (process,))
    timer.daemon = True
    timer.start()
    try:
        return str(process.stdout.readline())
    finally:
        timer.cancel()


def _end(process: Process) -> None:
    """End a process, and those that it has forked."""
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _kill(process: Process) -> None:
    """End a process at once, and leave nothing of it."""
    _end(process)
    process.wait()
    _close(process)


def _close(process: Process) -> None:
    """Close the pipes to a process."""
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):
            pipe.close()


#: Of this process.
SANDBOX = Sandbox()

atexit.register(SANDBOX.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SANDBOX.forget)
