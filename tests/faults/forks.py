"""Runs of ``extraction.py`` that have nothing left to import: forked from a process that has imported it all."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

import pytest

FORKS = multiprocessing.get_context("forkserver")

TESTS = Path(__file__).resolve().parents[1]


def preload() -> None:
    """Start the process that is forked; Python 3.11 looks for its modules in the environment's path alone."""
    from multiprocessing.forkserver import ensure_running

    FORKS.set_forkserver_preload(["faults.imported"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("OPENBLAS_NUM_THREADS", "1")  # threads are not forked
        ensure_running()


def extract(output: Connection, arguments: list[str]) -> None:
    """Run ``extraction.py``, in a process of its own that writes to a pipe."""
    if "faults.imported" not in sys.modules:
        sys.exit("faults.imported could not be imported beforehand")
    from faults import extraction

    os.dup2(output.fileno(), 1)
    sys.argv[1:] = arguments
    code = extraction.main()
    sys.stdout.flush()
    sys.exit(code)


class Run:
    """A run with these arguments; as much of a ``subprocess.Popen`` as its tests need."""

    def __init__(self, *arguments: object) -> None:
        reader, writer = FORKS.Pipe(duplex=False)
        self.process = FORKS.Process(target=extract, args=(writer, list(map(str, arguments))))
        self.process.start()
        self.pid: int = self.process.pid or 0
        writer.close()
        self.stdout = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")
        reader.close()
        self.returncode: int | None = None

    def send_signal(self, number: signal.Signals) -> None:
        """Send it, to a process that nobody has waited for yet."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stdout.close()
        self.process.join()
        self.returncode = self.process.exitcode
