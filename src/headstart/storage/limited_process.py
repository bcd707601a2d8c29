"""Processes with limits, in which files from elsewhere are read before this process reads them."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import suppress
from pathlib import Path

#: Isolated Python with the module search path of this process.
START = (
    "import json, sys; sys.path += [p for p in json.loads(sys.argv[1]) if p not in sys.path]; "
    "from MODULE import FUNCTION as run; run()"
)


def isolated_command(module: str, function: str, *arguments: str) -> list[str]:
    """Return the command that runs a function in a new Python, with ``sys.argv[2:]`` as given."""
    folders = [folder for folder in sys.path if Path(folder).is_absolute()]
    return [
        sys.executable,
        "-I",
        "-c",
        START.replace("MODULE", module).replace("FUNCTION", function),
        json.dumps(folders),
        *arguments,
    ]


def limit_process(memory_bytes: int, cpu_seconds: int) -> None:
    """Limit CPU time and additional memory of this process, where the operating system can."""
    try:
        import resource
    except ImportError:  # Windows: only the timeout of the parent applies
        return
    in_use = 0
    with suppress(OSError):
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    # The hard limit kills the process without a reason, so the soft limit is lower.
    bounds = {"CORE": (0, 0), "CPU": (cpu_seconds, cpu_seconds + 1), "AS": (in_use + memory_bytes,) * 2}
    for name, bound in bounds.items():
        with suppress(OSError, ValueError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), bound)


def end_of_process(code: int, cpu_seconds: int) -> str:
    """Return in words how a process with limits ended, by its exit code."""
    if code == -getattr(signal, "SIGXCPU", 0):
        return f"did not come to an end in {cpu_seconds:,} s"
    if code == -getattr(signal, "SIGKILL", 0):
        return "did not come to an end, or took more memory than there is"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"failed with exit code {code}"
