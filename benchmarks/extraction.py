"""Extraction against its limits.

python benchmarks/extraction.py steady FOLDER      decode, forward, write against the bare forward function
python benchmarks/extraction.py whole FOLDER       process start to file written, against the Keras tutorial's way
python benchmarks/extraction.py memory             peak memory with 1,000 and with 4,000 images
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from headstart.backbone.device import pick_device
from headstart.backbone.precision import choose_precision
from headstart.extract.network import Network
from headstart.extract.options import SHARD_IMAGES, ExtractOptions
from headstart.extract.worker import ShardJob, extract_shard
from headstart.images.discover import discover
from headstart.images.load import load_image
from machine import median, write_result

TUTORIAL = Path(__file__).parent / "keras_tutorial.py"


def steady(folder: Path, rounds: int, n_images: int) -> None:
    """Time the shard worker and the bare forward function by turns on the same images, with one compiled network."""
    images = discover(folder)
    refs = images.refs[: n_images // 32 * 32]
    options = ExtractOptions()
    network = Network(options)
    wanted = network.wanted(None)
    pixels = np.stack(
        [load_image(images.root, ref, size_px=wanted.input_size_px, resize_preset=wanted.resize).pixels for ref in refs]
    )
    device = pick_device("auto")
    backbone = choose_precision(network.build, device.reduced_precision, device.name, pixels[:32]).backbone
    job = ShardJob(images.root, images.class_names, options.compression, options.decode_threads)
    backbone.forward(pixels[:32])
    bare, worker = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        for first in range(0, len(refs), backbone.batch_size):
            backbone.forward(pixels[first : first + backbone.batch_size])
        bare.append(len(refs) / (time.perf_counter() - start))
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            for first in range(0, len(refs), SHARD_IMAGES):
                chunk = refs[first : first + SHARD_IMAGES]
                extract_shard(chunk, Path(out) / f"{first}.h5", job=job, backbone=backbone)
            worker.append(len(refs) / (time.perf_counter() - start))
    write_result(
        f"extraction-steady-{folder.name}",
        {
            "images": len(refs),
            "precision": backbone.recipe.precision,
            "baseline": "the bare compiled forward function on decoded images, same run",
            "baseline_images_per_second": bare,
            "images_per_second": worker,
            "ratio": median(worker) / median(bare),
        },
    )


def whole(folder: Path, rounds: int) -> None:
    """Time whole processes by turns: the Keras tutorial's way, and ``extract-features``."""
    n_images = len(discover(folder).refs)
    ours, theirs = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as out:
            theirs.append(n_images / seconds([sys.executable, str(TUTORIAL), str(folder), f"{out}/tutorial.h5"]))
            command = [str(Path(sys.executable).with_name("extract-features")), str(folder), "-o", f"{out}/ours.h5"]
            ours.append(n_images / seconds(command))
    write_result(
        f"extraction-whole-{folder.name}",
        {
            "images": n_images,
            "baseline": "image_dataset_from_directory → one model.predict → h5py float32, same run",
            "baseline_images_per_second": theirs,
            "images_per_second": ours,
            "ratio": median(ours) / median(theirs),
        },
    )


def seconds(command: list[str]) -> float:
    """Seconds that a process takes from its start to its end."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def memory(counts: tuple[int, int] = (1000, 4000)) -> None:
    """Compare the peak memory of a run over few and over many images of 256 pixels."""
    peaks = {}
    for n_images in counts:
        with tempfile.TemporaryDirectory() as folder:
            rng = np.random.default_rng(0)
            for name in ("a", "b"):
                (Path(folder) / "data" / name).mkdir(parents=True)
            for i in range(n_images):
                noise = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(noise).resize((256, 256)).save(f"{folder}/data/{'ab'[i % 2]}/{i}.jpg")
            command = [
                str(Path(sys.executable).with_name("extract-features")),
                f"{folder}/data",
                "-o",
                f"{folder}/x.h5",
            ]
            code = (
                "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, "
                "stderr=subprocess.DEVNULL); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
            )
            run = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True)
            unit = 1024 if sys.platform != "darwin" else 1
            peaks[n_images] = int(run.stdout) * unit / 2**20
    few, many = (peaks[count] for count in counts)
    write_result(
        "extraction-memory",
        {"baseline": f"peak with {counts[0]:,} images", "peak_mib": peaks, "ratio": many / few},
    )


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("steady", "whole", "memory"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=512, help="steady: at most this many")
    options = parser.parse_args()
    if options.what == "memory":
        memory()
    elif options.folder is None:
        parser.error("a folder of images is needed")
    elif options.what == "steady":
        steady(options.folder, options.rounds, options.images)
    else:
        whole(options.folder, options.rounds)


if __name__ == "__main__":
    main()
