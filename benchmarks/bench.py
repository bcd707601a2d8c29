"""Everything that ``make bench`` measures, and the page that it writes.

python benchmarks/bench.py [--data FOLDER] [--images 64] [--rounds 3] [--ways NAME,NAME] [--parts extraction,heads]

Every way of extracting features gets the same copies of the same images, in a process of its own, the ways by turns, round
after round; then our worker and its bare network share a process, by turns of seconds. Then heads are fitted, and features
stored, in our way and in the plain one. The results are written as JSON; ``python benchmarks/performance_page.py`` makes
tables and plot of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones.precision import row_cosines
from headstart.images.discovery.scan import discover
from machine import RESULTS, machine
from way import BATCH
from ways import WAYS

HERE = Path(__file__).parent

#: What the features of every way are compared with.
REFERENCE = "tensorflow-float32"

#: What is measured once more, beside its bare network.
WORKER = "worker-auto"

#: What can be measured; with one alone, the other stays in the results as it is.
PARTS = ("extraction", "heads")

#: Images whose features heads are fitted on, at most; of more of them, scikit-learn's search takes minutes.
HEAD_IMAGES = 256

#: Files that TensorFlow and Pillow both read.
SUFFIXES = {".jpg", ".jpeg", ".png"}


def lay_out(data: Path | None, n_images: int, folder: Path) -> str:
    """Copy images, evenly spread, in whole batches, to class folders; return in words where they are from.

    Folders and files get numbers for names, so that every way reads them in the same order.
    """
    if data is None:
        from headstart_cli.demo_command import find_table, lay_out, read_cells, take

        data = folder / "cells"
        lay_out(take(read_cells(find_table()), n_images), data)
        name = "solar cells of the demo (PNG, 300 × 300 px)"
    else:
        name = f"images of {data.resolve().name}"
    images = discover(data)
    refs = [ref for ref in images.refs if Path(ref.path).suffix.lower() in SUFFIXES]
    wanted = min(n_images, len(refs)) // BATCH * BATCH
    if not wanted:
        raise SystemExit(f"At least {BATCH} JPEG or PNG files are needed. Found: {len(refs)} in {data}.")
    for number in range(wanted):
        ref = refs[number * len(refs) // wanted]
        label = images.class_names.index(ref.label) if ref.label is not None else 0
        target = folder / "images" / f"{label:04d}" / f"{number:06d}{Path(ref.path).suffix.lower()}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(images.root / ref.path, target)
    return f"{wanted} {name}"


def run(arguments: list[str]) -> dict[str, Any]:
    """Run one of the scripts beside this in a process of its own; return what its last line says."""
    process = subprocess.run([sys.executable, *arguments], check=False, capture_output=True, text=True)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{process.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return found


def measure(names: Sequence[str], rounds: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Return the figures of every way: rates and seconds of each round, and how its features differ from float32."""
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    for number in range(rounds):
        for name in names:
            output = folder / f"{name}.h5"
            output.unlink(missing_ok=True)
            arguments = [str(HERE / "ways.py"), name, str(folder / "images"), str(output)]
            figures = run([*arguments, "--started", str(time.time())])
            found[name]["precision"] = figures.pop("precision")
            for figure, value in figures.items():
                found[name].setdefault(figure, []).append(round(value, 3))
            print(f"round {number + 1}: {name}: {figures['images_per_second']:.1f} images/s", flush=True)
    if REFERENCE in names:
        expected = features(folder / f"{REFERENCE}.h5")
        for name in names:
            found[name] |= difference(features(folder / f"{name}.h5"), expected)
    return found


def heads_and_storage(data: Path | None, rounds: int, folder: Path) -> dict[str, Any]:
    """Return the figures of heads and of storage, on the features of some images."""
    from headstart.extract.run import extract_features

    described = lay_out(data, HEAD_IMAGES, folder)
    cache = str(folder / "features.h5")
    extract_features(folder / "images", cache)
    print(f"heads and storage: {described}", flush=True)
    return {
        "images": described,
        "search": run([str(HERE / "head_search.py"), cache, "--brief", "--rounds", str(rounds)]),
        "dense": run([str(HERE / "dense_head.py"), cache, "--brief", "--seeds", str(max(rounds, 2))]),
        "storage": run([str(HERE / "storage.py"), cache, str(HEAD_IMAGES), "--brief"]),
    }


def features(path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the features in a file that a way has written."""
    import h5py
    import hdf5plugin  # noqa: F401  # our cache is compressed by a filter of it

    with h5py.File(path, "r") as file:
        return np.asarray(file["features"], np.float32)


def difference(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return the relative error of all features together, and the cosines of the rows."""
    cosines = row_cosines(found, expected)
    error = np.linalg.norm((found - expected).ravel()) / np.linalg.norm(expected.ravel())
    return {
        "relative_error": float(error),
        "cosine_mean": float(cosines.mean()),
        "cosine_min": float(cosines.min()),
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of images; default: the demo's solar cells")
    parser.add_argument("--images", type=int, default=2 * BATCH, help=f"at most so many, in batches of {BATCH}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=4, help="of the worker beside its bare network")
    parser.add_argument("--ways", type=lambda text: text.split(","), default=list(WAYS), help="only these")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS), help="only these")
    parser.add_argument("--results", type=Path, default=RESULTS / "bench.json")
    options = parser.parse_args(arguments)
    if unknown := set(options.ways) - set(WAYS):
        parser.error(f"there is no way {', '.join(sorted(unknown))}. Expected some of: {', '.join(WAYS)}")
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}. Expected some of: {', '.join(PARTS)}")
    if options.rounds < 1:
        parser.error("at least one round is needed")
    return options


def extraction(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the figures of every way, of the roof above them, and of the worker beside its bare network."""
    described = lay_out(options.data, options.images, folder)
    print(f"extraction: {described}; {options.rounds} rounds", flush=True)
    found = {"images": described, "rounds": options.rounds, **run([str(HERE / "peak.py")])}
    found["ways"] = measure(options.ways, options.rounds, folder)
    found["by_turns"] = by_turns(folder / "images", options.minutes) if WORKER in options.ways else None
    return found


def by_turns(images: Path, minutes: float) -> dict[str, Any]:
    """Return the rates of the worker and of its bare network, by turns in one process, and their ratio."""
    print(f"worker and bare network by turns: {minutes:g} minutes", flush=True)
    asked = ["--precisions", "auto", "--loop-images", "0", "--minutes", str(minutes), "--brief"]
    found = run([str(HERE / "int8.py"), "rates", str(images), *asked])
    ((precision, ratio),) = found["worker_of_bare"].items()
    rates = {name: rate["median"] for name, rate in found["images_per_second"].items()}
    return {
        "images_a_turn": found["images_a_turn"],
        "precision": precision,
        "worker": rates[f"{precision} worker"],
        "bare": rates[f"bare {precision}"],
        "worker_of_bare": ratio,
    }


def main() -> None:
    """Measure everything and write the results."""
    options = parse()
    result: dict[str, Any] = {"benchmark": "bench"}
    if set(options.parts) != set(PARTS) and options.results.exists():
        result = json.loads(options.results.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        if "extraction" in options.parts:
            result |= extraction(options, Path(name))
    with tempfile.TemporaryDirectory() as name:
        if "heads" in options.parts:
            result["heads"] = heads_and_storage(options.data, options.rounds, Path(name))
    result["machine"] = machine()
    options.results.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"Written: {options.results.name}")


if __name__ == "__main__":
    main()
