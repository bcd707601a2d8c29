"""What the figures of a benchmark were measured on, and where they are written."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("headstart", "tensorflow", "keras", "numpy", "pillow", "h5py", "hdf5plugin", "scikit-learn")

#: Named where they are installed.
ENGINES = ("torch", "ncnn", "openvino", "nncf", "onnxruntime")


def machine() -> dict[str, Any]:
    """Processor, cores, memory and versions."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES}
        | {found.name: found.version for found in importlib.metadata.distributions() if found.name in ENGINES},
    }


def processor() -> str:
    """Name of the processor, with what matters for reduced precision."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    name = re.search(r"^model name\s*:\s*(.*)$", text, flags=re.MULTILINE)
    flags = sorted(set(re.findall(r"\b(?:avx512_bf16|avx512_vnni|amx_bf16|amx_int8|avx512f|avx2)\b", text)))
    return f"{name.group(1) if name else platform.processor()} ({', '.join(flags)})"


def median(values: Sequence[float]) -> float:
    """Median, the figure that every ratio is made of."""
    return float(statistics.median(values))


def write_result(name: str, result: dict[str, Any], *, keep: bool = True) -> None:
    """Print a result and keep it as ``results/<name>.json``; or print it in one line, for another script."""
    if not keep:
        print(json.dumps(result))
        return
    text = json.dumps({"benchmark": name, **result, "machine": machine()}, indent=1)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")
