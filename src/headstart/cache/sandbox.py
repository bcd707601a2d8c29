"""The opening of HDF5 files: new ones are published in one step, and files from others first read by a separate process."""

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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
from h5py import h5f, h5fd, h5p

from headstart.cache.format import CACHE_VERSIONS, MAX_COMPACT_ATTRIBUTES, SIGNATURE, SUPERBLOCK_VERSION
from headstart.storage.limited_process import end_of_process, isolated_command
from headstart.storage.objects import home
from headstart.storage.publishing import PartialFile, partial_name, sync_folder, writing

#: Increment it when checks are added.
VERSION = 1

#: File in the user's cache folder: one identity per line.
RECORD = "checked-files.txt"

#: Size at which the older half of the record is dropped: 30,000 files.
MAX_RECORD_BYTES = 2**20

#: Identities known to this process, and the state of the record they were read from.
_known: set[str] = set()
_read: list[tuple[int, int]] = [(0, 0)]

#: CPU seconds allowed for a file, and file bytes per additional second: a row of a manifest has at least 64 bytes and takes
#: 3 µs to read (Zen 3).
CPU_SECONDS, BYTES_PER_CPU_SECOND = 3, 10 * 2**20

#: Wall-clock seconds per CPU second before the process is killed, and seconds allowed for its start.
WAIT_FACTOR, START_SECONDS = 10, 120

#: Memory limit: a constant, and a factor of the file size.
MEMORY_BYTES, MEMORY_PER_FILE_BYTE = 2**30, 4

#: Exit codes of :mod:`headstart.cache.sandbox_worker` for harmless files: intact, or damaged in a way that the reader
#: reports.
SOUND, DAMAGED = 0, 3

#: A :class:`subprocess.Popen` with text pipes.
Process = Any

log = logging.getLogger(__name__)

#: Identity → reason of refusal, in this process.
_refused: dict[str, str] = {}


def identity(path: Path) -> str:
    """Return an identifier of a file's state, 32 hexadecimal digits."""
    found = path.stat()
    values = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return hashlib.sha256(f"{VERSION} {h5py.version.hdf5_version} {values}".encode()).hexdigest()[:32]


def is_known(file: str) -> bool:
    """Return whether a file was written or checked here."""
    if file not in _known:
        with suppress(OSError):
            path = home() / RECORD
            found = path.stat()
            if _read[0] != (state := (found.st_mtime_ns, found.st_size)):
                _known.update(path.read_text("ascii", errors="replace").split())
                _read[0] = state
    return file in _known


def remember(file: str) -> None:
    """Record that a file was written or checked here, if possible for later processes too."""
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
    lines = path.read_text("ascii", errors="replace").splitlines(keepends=True)
    shorter = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    shorter.write_text("".join(lines[len(lines) // 2 :]), "ascii")
    shorter.replace(path)


def remember_written(path: Path) -> None:
    """Record that this process has written a file."""
    with suppress(OSError):
        remember(identity(path))


@contextmanager
def published(path: Path, versions: tuple[int, int] = CACHE_VERSIONS) -> Iterator[tuple[Any, PartialFile]]:
    """Yield a new HDF5 file that becomes ``path`` when the block ends without an exception, and its :class:`PartialFile`.

    An existing file stays until then, and afterwards for processes that have it open. The temporary file is removed on
    any exception, Ctrl-C included. ``versions`` are the oldest and newest HDF5 version of the structures, as
    ``h5py.h5f.LIBVER_*``. Raises CacheError if the file cannot be written: no such folder, no permission, no space …
    """
    partial = partial_name(path)
    try:
        with writing(path):
            below = PartialFile(partial)
        try:
            with writing(path):
                file = _create(below, versions)
            try:
                yield file, below
            finally:
                with writing(path):
                    file.close()
            with writing(path):
                below.check()
                below.sync()
        finally:
            below.close()
        with writing(path):
            partial.replace(path)
            sync_folder(path.parent)
        remember_written(path)
    finally:
        with suppress(OSError):
            partial.unlink()


def _create(below: PartialFile, versions: tuple[int, int]) -> Any:
    """Return a new HDF5 file that uses only the given versions of the format."""
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_libver_bounds(*versions)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    access.set_fileobj_driver(h5fd.fileobj_driver, below)
    creation = h5p.create(h5p.FILE_CREATE)
    creation.set_attr_phase_change(MAX_COMPACT_ATTRIBUTES, 0)
    creation.set_obj_track_times(False)
    return h5py.File(h5f.create(repr(below).encode(), h5f.ACC_EXCL, creation, access))


def open_hdf5(path: Path, superblock: int | None = SUPERBLOCK_VERSION, **options: Any) -> Any:
    """Return an HDF5 file, open for reading, after the sandbox has read it; ``options`` are passed to ``h5py.File``.

    Raises ValueError if it has another signature or superblock version, or crashed the sandbox, and OSError if it cannot be
    opened. With any superblock (None) it is also refused if the sandbox found damage: only of caches, whose structure is
    checked before it is used, is the rest still read.
    """
    with path.open("rb") as file:
        start = file.read(len(SIGNATURE) + 1)
    if not start.startswith(SIGNATURE):
        raise ValueError("it does not begin as an HDF5 file does")
    if superblock is not None and start[len(SIGNATURE) :] != bytes([superblock]):
        raise ValueError(f"its superblock does not have version {superblock}")
    if check_harmless(path) == DAMAGED and superblock is None:
        raise ValueError("it is damaged, and not all of it can be read")
    return h5py.File(path, "r", locking=False, **options)


def check_harmless(path: Path) -> int | None:
    """Return SOUND or DAMAGED, None if there can be no sandbox; raise ValueError if the file crashes it."""
    before = identity(path)
    if is_known(before):
        return SOUND
    if before in _refused:  # files are opened more than once, and each check can take seconds
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
        reason = (
            f"its structure is one that no program writes: a process that read it {end_of_process(code, cpu_seconds)}"
        )
        if code != -getattr(signal, "SIGKILL", 0):  # may be due to lack of memory or time
            _refused[before] = reason
        raise ValueError(reason)
    return code


class Sandbox:
    """The process that reads files first; started on first use, it exits when idle."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: Process | None = None
        self._is_missing = False

    def ask(self, question: dict[str, Any], wait_seconds: float) -> int | None:
        """Return the exit code for a file, negative for a signal; None if no process can be started."""
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
            log.warning("The sandbox process cannot be started: malicious files can crash this process.")
        return self._process

    def forget(self) -> None:
        """Leave the process to the parent after a fork."""
        if self._process is not None:
            self._process.returncode = 0  # it is another's child: nothing is to be waited for
        self._lock, self._process = threading.Lock(), None

    def stop(self) -> None:
        """Terminate the process."""
        if self._process is not None:
            _kill(self._process)
            self._process = None


def _start() -> Process | None:
    """Return a new process that waits for questions; None if there can be none, e.g. in a frozen program."""
    if getattr(sys, "frozen", False) or not sys.executable:
        return None
    command = isolated_command("headstart.cache.sandbox_worker", "serve")
    # MALLOC_PERTURB_ fills unwritten memory, so that reading it is noticed.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_PERTURB_": "165"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    try:
        # A new session, so that Ctrl-C does not reach it.
        process = subprocess.Popen(command, env=environment, text=True, start_new_session=True, **pipes)  # noqa: S603
    except OSError:
        return None
    if _line_of(process, START_SECONDS) == "ready\n":
        return process
    _kill(process)
    return None


def _exchange(process: Process, question: dict[str, Any], wait_seconds: float) -> int | None:
    """Return the answer of the process, or its exit code; None if it had exited before."""
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
    """Return the next line of a process; empty if it exits. It is killed after ``wait_seconds``."""
    timer = threading.Timer(wait_seconds, _end, (process,))
    timer.daemon = True
    timer.start()
    try:
        return str(process.stdout.readline())
    finally:
        timer.cancel()


def _end(process: Process) -> None:
    """Kill a process and its children."""
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _kill(process: Process) -> None:
    _end(process)
    process.wait()
    _close(process)


def _close(process: Process) -> None:
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):
            pipe.close()


#: The sandbox of this process.
SANDBOX = Sandbox()

atexit.register(SANDBOX.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SANDBOX.forget)
