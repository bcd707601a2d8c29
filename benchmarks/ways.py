"""One way of extracting features, in a process of its own: from its start to a file, and then at its steady rate.

python benchmarks/ways.py WAY FOLDER OUTPUT [--started SECONDS]      prints one line of JSON

FOLDER holds class folders of JPEG or PNG files, a multiple of 32 of them. The file is what the way's users write: our
cache, or float32 in plain HDF5 by h5py. Then images go through the warm way again, from files to features (for ours: to a
shard on disk), the folder as often as it takes: the steady rate.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from other_ways import (
    OnnxRuntime,
    OpenVino,
    OpenVinoFloat32,
    OpenVinoInt8,
    Torch,
    TorchBfloat16,
    Tutorial,
    TutorialLoop,
)
from our_ways import Bare, BareAuto, TensorFlow, Worker
from way import BATCH, Way

#: Seconds that a steady pass takes, about.
STEADY_SECONDS = 12.0

#: By the name on the command line.
WAYS: dict[str, type[Way]] = {
    "tensorflow-float32": TensorFlow,
    "bare-float32": Bare,
    "bare-auto": BareAuto,
    "worker-auto": Worker,
    "tutorial-loop": TutorialLoop,
    "tutorial-predict": Tutorial,
    "torch-float32": Torch,
    "torch-bfloat16": TorchBfloat16,
    "openvino-float32": OpenVinoFloat32,
    "openvino-bfloat16": OpenVino,
    "openvino-int8": OpenVinoInt8,
    "onnxruntime-float32": OnnxRuntime,
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--started", type=float, help="time.time() when the process was started; default: now")
    return parser.parse_args(arguments)


def main() -> None:
    """Run one way and print its figures as the last line."""
    options = parse()
    started = options.started or time.time()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    way = WAYS[options.way](options.folder, options)
    loaded = time.time()
    way.whole(options.output)
    done = time.time()
    rate = way.steady(2 * BATCH)
    n_batches = round(rate * STEADY_SECONDS / BATCH)
    if n_batches > 3:  # else the first pass was long enough itself
        rate = way.steady(n_batches * BATCH)
    print(
        json.dumps(
            {
                "images_per_second": rate,
                "load_seconds": loaded - started,
                "whole_seconds": done - started,
                "precision": way.precision,
            }
        )
    )


if __name__ == "__main__":
    main()
