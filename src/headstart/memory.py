"""How much memory there is, and how much of it a process has: read from the operating system."""

from __future__ import annotations

import os
import re
from pathlib import Path

from headstart.errors import ParameterError

#: Where control groups (v2, then v1) say what a container may have.
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
CGROUP_USES = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")

#: What the system is taken to have free where it does not say: 4 GiB.
UNKNOWN_BYTES = 4 * 2**30

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_size(text: str) -> int:
    """Return the bytes that a text as ``4GiB``, ``500 MB`` or ``4000000000`` means.

    Raises
    ------
    ParameterError
        If it is no size above 0.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text, flags=re.IGNORECASE)
    unit = found.group(2).lower() if found else None
    if found is None or unit not in UNITS or (size := int(float(found.group(1)) * UNITS[unit])) < 1:
        raise ParameterError(f"{text!r} is no size of memory. Expected one as 4GiB, 500MB, or a number of bytes.")
    return size


def size_text(n_bytes: float) -> str:
    """Return a number of bytes for a person, as ``3.7 GiB``."""
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"


def free_bytes() -> int:
    """Return the memory that this process may still take: of the machine, or of its control group where that is less."""
    machine = _of_file("/proc/meminfo", r"MemAvailable:\s*(\d+) kB")
    free = 1024 * machine if machine is not None else _physical() // 2
    for limit_file, use_file in zip(CGROUP_LIMITS, CGROUP_USES, strict=True):
        limit, used = _of_file(limit_file, r"(\d+)"), _of_file(use_file, r"(\d+)")
        if limit is not None and used is not None:
            free = min(free, max(0, limit - used))
    return free


def used_bytes() -> int:
    """Return the memory of this process that is in use now, bytes; 0 where the system does not say."""
    resident = _of_file("/proc/self/status", r"VmRSS:\s*(\d+) kB")
    return 0 if resident is None else 1024 * resident


def _physical() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 2 * UNKNOWN_BYTES


def _of_file(path: str, pattern: str) -> int | None:
    try:
        found = re.search(pattern, Path(path).read_text())
    except OSError:
        return None
    return int(found.group(1)) if found else None
