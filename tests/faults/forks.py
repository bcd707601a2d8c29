"""Start runs of ``extraction.py`` that have nothing left to import: a process that has imported it all is forked for each.

    python forks.py

Each line of standard input is a list in JSON, and is answered by a number on standard output. ``["start", PIPE, …]`` forks
a process with the arguments that follow, whose standard output is the named pipe; the answer is its process ID.
``["wait", PID]`` waits for its end; the answer is its exit code, negative for a signal.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

TESTS = Path(__file__).resolve().parents[1]


class Forks:
    """The process that is forked, and the named pipes in a folder that is there for them."""

    def __init__(self, folder: Path) -> None:
        paths = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"}  # threads are not forked
        self.folder = folder
        self.n_started = 0
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def ask(self, *question: object) -> int:
        """Ask, and wait for the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(question), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def start(self, *arguments: object) -> Run:
        """Start a run with these arguments."""
        pipe = self.folder / f"{self.n_started}"
        self.n_started += 1
        os.mkfifo(pipe)
        return Run(self, self.ask("start", str(pipe), *map(str, arguments)), pipe)

    def stop(self) -> None:
        """End the process, as it does when it is asked for nothing more."""
        self.process.communicate()


class Run:
    """As much of a ``subprocess.Popen`` as tests of a run need."""

    def __init__(self, forks: Forks, pid: int, pipe: Path) -> None:
        self.forks, self.pid = forks, pid
        self.stdout = pipe.open(encoding="utf-8")
        self.returncode: int | None = None

    def send_signal(self, number: signal.Signals) -> None:
        """Send it, to a process that nobody has waited for yet."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stdout.close()
        self.returncode = self.forks.ask("wait", self.pid)


def import_everything() -> None:
    """Import what is imported when it is needed, by a first run and one that brings its cache up to date."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(2):
            picture(Path(folder) / "data" / f"{number}.bmp", number)
            extract_features(f"{folder}/data", f"{folder}/data.h5", network=FakeNetwork())


def serve() -> None:
    """Answer until there are no more questions."""
    for line in sys.stdin:
        word, what, *arguments = json.loads(line)
        if word == "start":
            answer = os.fork()
            if not answer:
                os.dup2(os.open(what, os.O_WRONLY), 1)
                sys.argv[1:] = arguments
                sys.exit(extraction.main())
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(what, 0)[1])
        print(answer, flush=True)


if __name__ == "__main__":
    import extraction

    from fakes import FakeNetwork
    from headstart.extract.local import extract_features
    from pictures import picture

    import_everything()
    serve()
