"""From the command to done, where there is nothing to do.

python benchmarks/start.py [--images 1000]

Whole processes of ``extract-features`` over a folder of small images whose features exist. The features are a stand-in's
(tests/fakes.py): an unchanged folder is told by paths, sizes and times, and no network is loaded for it. Beside it the
interpreter alone, and what ``import tensorflow`` would add.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fakes import FakeNetwork, QuickBackbone
from headstart.extract.network import Network
from headstart.extract.options import ExtractOptions
from headstart.extract.run import extract_features
from incremental import write_folder
from machine import median, write_result

ROUNDS = 5

#: Seconds that an unchanged folder of 1,000 images may take, on two cores.
TARGET_SECONDS = 1.5


def make_cache(data: Path, output: Path) -> None:
    """Write the cache of a folder with the recipe that the command asks for."""
    network = FakeNetwork(batch_size=32)
    network.made = QuickBackbone(Network(ExtractOptions()).wanted(None), batch_size=32)
    extract_features(data, output, network=network)


def seconds(*command: str) -> float:
    """Return the seconds of whole processes, median of some; the first, which fills the system's caches, is left out."""
    took = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        took.append(time.perf_counter() - start)
    if command[-2:-1] == ("-o",) and "0 images computed" not in done.stdout:
        raise SystemExit(f"Expected an unchanged folder. Received: {done.stdout}")
    return median(took[1:])


def main() -> None:
    """Measure and write ``results/start.json``; exit with 1 above the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        data, output = Path(name) / "data", Path(name) / "data.h5"
        write_folder(data, options.images)
        make_cache(data, output)
        command = str(Path(sys.executable).with_name("extract-features"))
        result = {
            "images": options.images,
            "unchanged_seconds": round(seconds(command, str(data), "-o", str(output)), 3),
            "help_seconds": round(seconds(command, "--help"), 3),
            "interpreter_seconds": round(seconds(sys.executable, "-c", ""), 3),
            "import_tensorflow_seconds": round(seconds(sys.executable, "-c", "import tensorflow"), 3),
            "target_seconds": TARGET_SECONDS,
            "rounds": ROUNDS,
        }
    write_result("start", result)
    sys.exit(result["unchanged_seconds"] > TARGET_SECONDS)


if __name__ == "__main__":
    main()
