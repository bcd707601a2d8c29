"""Keras with TensorFlow (imported only here), threads, memory and installed packages; the rate of a repeated step."""

from __future__ import annotations

import importlib
import os
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from headstart.errors import HeadstartError, ParameterError

#: Memory limit and use of control groups v2 and v1.
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
CGROUP_USES = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")

#: Free memory assumed if the system does not report it: 4 GiB.
UNKNOWN_BYTES = 4 * 2**30

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}

#: Read by TensorFlow and OpenMP on import.
THREAD_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


def parse_size(text: str) -> int:
    """Return the bytes of a size like ``4GiB``, ``500 MB`` or ``4000000000``; raise ParameterError if it is invalid."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text, flags=re.IGNORECASE)
    unit = found.group(2).lower() if found else None
    if found is None or unit not in UNITS or (size := int(float(found.group(1)) * UNITS[unit])) < 1:
        raise ParameterError(f"{text!r} is not a memory size. Expected e.g. 4GiB, 500MB, or a number of bytes.")
    return size


def size_text(n_bytes: float) -> str:
    """Return a number of bytes as a readable text, e.g. ``3.7 GiB``."""
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"


def free_bytes() -> int:
    """Return the memory available to this process: of the machine, or of its control group if that is less."""
    machine = _of_file("/proc/meminfo", r"MemAvailable:\s*(\d+) kB")
    free = 1024 * machine if machine is not None else _physical() // 2
    for limit_file, use_file in zip(CGROUP_LIMITS, CGROUP_USES, strict=True):
        limit, used = _of_file(limit_file, r"(\d+)"), _of_file(use_file, r"(\d+)")
        if limit is not None and used is not None:
            free = min(free, max(0, limit - used))
    return free


def used_bytes() -> int:
    """Return the resident memory of this process in bytes; 0 if unknown."""
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


def import_keras() -> Any:
    """Return the ``keras`` module, running on TensorFlow; the import takes seconds.

    Sets ``TF_CPP_MIN_LOG_LEVEL`` and ``KERAS_BACKEND`` unless the user has set them; the latter takes precedence over
    ``keras.json``. Images are channels last. Raises HeadstartError if Keras runs on another backend: the compiled forward
    function is a ``tf.function``.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    _check_backend(os.environ.setdefault("KERAS_BACKEND", "tensorflow"))  # that of another package may not be installed
    keras = importlib.import_module("keras")
    _check_backend(keras.backend.backend())  # Keras may have been imported before
    keras.config.set_image_data_format("channels_last")
    return keras


def _check_backend(backend: str) -> None:
    if backend != "tensorflow":
        raise HeadstartError(
            f"headstart runs Keras on TensorFlow. Received: KERAS_BACKEND={backend}. "
            "Set KERAS_BACKEND=tensorflow and try again."
        )


def import_tensorflow() -> Any:
    """Return the ``tensorflow`` module, configured as by :func:`import_keras`."""
    import_keras()
    return importlib.import_module("tensorflow")


def limit_threads(n_threads: int) -> None:
    """Limit the threads of a network in this process; has no effect on TensorFlow once it is imported."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(n_threads)


def thread_limit() -> int | None:
    """Return the thread limit of this process; None for all cores."""
    limit = os.environ.get(THREAD_VARIABLES[0], "")
    return int(limit) if limit.isdigit() and int(limit) else None


def usable_cores() -> int:
    """Return the number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_threads() -> int:
    """Return the number of threads a network should use: the limit, or one per usable core."""
    return thread_limit() or usable_cores()


def per_second(
    step: Callable[[], object], n_images: int, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return images per second of a step that handles ``n_images``, repeated for so long."""
    n_steps, started = 0, clock()
    while n_steps == 0 or clock() - started < seconds:
        step()
        n_steps += 1
    return n_steps * n_images / (clock() - started)


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
