"""What benchmark-heads recommends, from training images alone, and how good that is.

    python benchmarks/recommended_head.py features/hymenoptera.h5 features/flowers17.h5 features/elpv300.h5

For each cache the command runs as a user runs it, in a process of its own, with its defaults. Printed and kept: how long it
took from start to end, the recommended head, its cross-validated accuracy with interval, and its accuracy on the given test
split where there is one. The published figures for solar cells are those of Deitsch et al., Solar Energy 185, 2019.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import write_result


def run(cache: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result.json"
        command = [
            str(Path(sys.executable).with_name("benchmark-heads")),
            str(cache),
            "-o",
            str(output),
            "--no-latency",
        ]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        found = json.loads(output.read_text())
    heads = {head["name"]: head for head in found["heads"]}
    best = heads[found["recommended"]]
    held_out = best["held_out"]
    return {
        "cache": cache.name,
        "seconds": seconds,
        "recommended": best["name"],
        "spec": best["spec"],
        "cross_validated": best["metrics"]["accuracy"],
        "held_out": held_out and {key: held_out[key] for key in ("n_samples", "accuracy", "accuracy_interval")},
        "folds": found["folds"],
        "accuracy_of_all": {name: head["metrics"]["accuracy"]["value"] for name, head in heads.items()},
        "sentence": found["recommendation"],
    }


def main() -> None:
    results = []
    for cache in map(Path, sys.argv[1:]):
        found = run(cache)
        figures = found["cross_validated"]
        print(
            f"{found['cache']}: {found['recommended']} {figures['value']:.3f} ({figures['low']:.3f}–{figures['high']:.3f})"
            f", held out {found['held_out'] and round(found['held_out']['accuracy'], 3)}, {found['seconds']:.0f} s",
            flush=True,
        )
        results.append(found)
    write_result("recommended-head", {"caches": results})


if __name__ == "__main__":
    main()
