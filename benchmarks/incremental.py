"""A folder that changes a little: what goes through the network, and what it costs to find that nothing does.

python benchmarks/incremental.py [--images 10000]

Small synthetic images and a fake backbone (tests/fakes.py): measured is all that is not the network. The start-up is the
same run on a folder of few images.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
from PIL import Image

from fakes import FakeNetwork, QuickBackbone
from headstart.extract.run import extract_features
from headstart.extract.summary import ExtractionSummary
from machine import median, write_result

CLASSES, STARTUP_IMAGES, CHANGES, ROUNDS = 10, 10, 10, 5

#: Images of an unchanged folder that are to be passed over in a second.
TARGET_PER_SECOND = 20_000


def write_image(path: Path, seed: int) -> None:
    """Write a picture of 16 × 16 pixels that differs for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(blocks).save(path, "BMP")


def write_folder(root: Path, n_images: int) -> list[Path]:
    """Write a folder of class folders; return its images."""
    paths = [root / f"class_{i % CLASSES}" / f"{i:06d}.bmp" for i in range(n_images)]
    for seed, path in enumerate(paths):
        write_image(path, seed)
    return paths


def change(root: Path, paths: list[Path]) -> None:
    """Change, add, rename and delete some images each."""
    step = len(paths) // (3 * CHANGES)
    chosen = paths[:: max(1, step)]
    changed, renamed, deleted = (chosen[start * CHANGES : (start + 1) * CHANGES] for start in range(3))
    for number, path in enumerate(changed):
        write_image(path, 10_000_000 + number)
    for number in range(CHANGES):
        write_image(root / f"class_{number % CLASSES}" / f"new_{number}.bmp", 20_000_000 + number)
    for path in renamed:
        path.rename(path.with_name(f"renamed_{path.name}"))
    for path in deleted:
        path.unlink()


def run(root: Path, output: Path) -> tuple[ExtractionSummary, int, float]:
    """Return the summary of an extraction, how many images the network saw, and the seconds."""
    network = FakeNetwork(batch_size=32, kind=QuickBackbone)
    start = time.perf_counter()
    summary = extract_features(root, output, network=network)
    return summary, network.made.n_images, time.perf_counter() - start


def unchanged_seconds(root: Path, output: Path) -> float:
    """Return the seconds of runs that find nothing to do, median of some."""
    seconds = []
    for _ in range(ROUNDS):
        _, n_passes, duration = run(root, output)
        check("images through the network of an unchanged folder", n_passes, 0)
        seconds.append(duration)
    return median(seconds)


def check(what: str, found: object, expected: object) -> None:
    """Print a count, and stop where it is not what it has to be."""
    print(f"{what}: {found}")
    if found != expected:
        raise SystemExit(f"Expected {expected}.")


def measure(folder: Path, n_images: int) -> dict[str, Any]:
    """Return the counts and the rates."""
    root, output = folder / "data", folder / "features" / "data.h5"
    paths = write_folder(root, n_images)
    _, first_passes, first_seconds = run(root, output)
    check("images through the network at first", first_passes, n_images)
    change(root, paths)
    summary, passes, update_seconds = run(root, output)
    check("images through the network after changes", passes, 2 * CHANGES)
    check("images in the cache", summary.n_images, n_images)
    check("reused", dict(summary.reused), {"unchanged": n_images - 3 * CHANGES, "moved": CHANGES})
    before = output.stat()
    seconds = unchanged_seconds(root, output)
    after = output.stat()
    check("cache left alone", (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino), True)
    write_folder(folder / "few", STARTUP_IMAGES)
    run(folder / "few", folder / "features" / "few.h5")
    startup = unchanged_seconds(folder / "few", folder / "features" / "few.h5")
    return {
        "images": n_images,
        "changed_added_renamed_deleted": CHANGES,
        "network_passes_after_changes": passes,
        "first_run_seconds": round(first_seconds, 2),
        "update_seconds": round(update_seconds, 2),
        "unchanged_seconds": round(seconds, 4),
        "startup_seconds": round(startup, 4),
        "unchanged_images_per_second": round((n_images - STARTUP_IMAGES) / (seconds - startup)),
        "target_images_per_second": TARGET_PER_SECOND,
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "rounds": ROUNDS,
        "load_average": [round(load, 1) for load in os.getloadavg()],
    }


def profile(action: Callable[[], object]) -> None:
    """Print where the time of an action goes."""
    import cProfile
    import pstats

    with cProfile.Profile() as profiler:
        action()
    pstats.Stats(profiler).sort_stats("cumulative").print_stats(35)


def main() -> None:
    """Measure and write ``results/incremental.json``; exit with 1 below the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--profile", action="store_true", help="print where the time of an unchanged folder goes, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        result = measure(Path(name), options.images)
        if options.profile:
            profile(lambda: run(Path(name) / "data", Path(name) / "features" / "data.h5"))
    write_result("incremental", result)
    sys.exit(result["unchanged_images_per_second"] < TARGET_PER_SECOND)


if __name__ == "__main__":
    main()
