"""Every command on caches whose structures were changed and whose checksums are right: an exit code, soon, and no traceback.

python benchmarks/fuzz_caches.py [--files 5000] [--first 0] [--seed 0] [--only NUMBER]

The caches (tests/harmful_caches.py) are read by inspect, verify and fit-head in a child process, one after the other. A
finding is: a child that dies, an exception that is no expected failure, or a command that takes too long. The files of
findings are kept.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from harmful_caches import Original, harmful, originals

MAX_SECONDS = 10.0

#: After so long a child is ended.
GIVEN_UP_SECONDS = 60.0

COMMANDS = (["inspect"], ["verify"], ["fit-head", "--no-search", "--validation", "0.5", "--overwrite", "-o"])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command did with a file: its exit code, or what it must not do."""

    command: str
    kind: str
    seconds: float = 0.0
    detail: str = ""


def run_command(words: list[str]) -> Outcome:
    """Run a command in this process."""
    from headstart_cli import app

    printed = io.StringIO()
    start = time.perf_counter()
    sys.argv = ["headstart", *words]
    kind, detail = "exit 0", ""
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            app.run(app.make_app(*app.COMMANDS))
        except SystemExit as end:
            kind = f"exit {end.code or 0}"
        except BaseException:
            kind, detail = "traceback", traceback.format_exc()
    seconds = time.perf_counter() - start
    if kind not in ("exit 0", "exit 1", "traceback"):
        kind, detail = "exit code", printed.getvalue()
    return Outcome(words[0], "slow" if seconds > MAX_SECONDS else kind, seconds, detail)


def work(connection: Connection) -> None:
    """Run the commands on each file that comes."""
    with contextlib.suppress(EOFError):
        while True:
            path = connection.recv()
            for words in COMMANDS:
                more = [str(Path(path).with_suffix(".head"))] if words[-1] == "-o" else []
                connection.send(run_command([words[0], path, *words[1:], *more]))
            connection.send(None)


class Child:
    """A process that runs commands; another takes its place when it dies."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._connection, other = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=work, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def outcomes(self, path: Path) -> list[Outcome]:
        """Return what became of each command."""
        found: list[Outcome] = []
        self._connection.send(str(path))
        try:
            while True:
                if not self._connection.poll(GIVEN_UP_SECONDS):
                    return [*found, self._ended("hung")]
                outcome = self._connection.recv()
                if outcome is None:
                    return found
                found.append(outcome)
        except (EOFError, OSError):
            return [*found, self._ended("died")]

    def _ended(self, kind: str) -> Outcome:
        self._process.kill() if kind == "hung" else None
        self._process.join()
        code = self._process.exitcode
        self._start()
        return Outcome("?", kind, 0.0, f"exit code {code}")


def main() -> int:
    """Make the files, run the commands, say what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    options = parser.parse_args()
    numbers = range(options.first, options.first + options.files) if options.only is None else [options.only]
    kept = Path(tempfile.mkdtemp(prefix="fuzz-caches-"))
    counts, slowest = Counter[str](), 0.0
    with tempfile.TemporaryDirectory() as folder:
        sources: list[Original] = originals(Path(folder))
        child = Child()
        for number in numbers:
            path = Path(folder) / f"seed{number}.h5"
            path.write_bytes(harmful(sources, options.seed, number))
            for outcome in child.outcomes(path):
                counts[f"{outcome.command}: {outcome.kind}"] += 1
                slowest = max(slowest, outcome.seconds)
                if not outcome.kind.startswith("exit ") or outcome.kind == "exit code":
                    (kept / path.name).write_bytes(path.read_bytes())
                    print(
                        f"{number} {outcome.command}: {outcome.kind}, {outcome.seconds:.1f} s\n{outcome.detail}",
                        flush=True,
                    )
            path.unlink()
    print(f"{len(numbers):,} files, the slowest command {slowest:.1f} s; files of findings in {kept}")
    for name, count in sorted(counts.items()):
        print(f"  {name} {count:,}")
    return int(any(": exit " not in name or "exit code" in name for name in counts))


if __name__ == "__main__":
    sys.exit(main())
