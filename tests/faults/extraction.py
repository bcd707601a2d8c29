"""Run one extraction with the fake backbone in a process of its own, telling on standard output what it does.

    python extraction.py DATA OUTPUT [SHARD_IMAGES [LAYOUT]]

Each batch that goes through the network is a line ``forward N``; each file that is about to be flushed to the disk a
line ``publish``. The end is a line of JSON. Whoever started the process may kill it after any line.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from fakes import FakeBackbone, FakeNetwork
from headstart.errors import HeadstartError
from headstart.extract.run import extract_features
from headstart.types import FeatureBatch


def say(line: str) -> None:
    """Print a line at once, whole: threads say things at the same time."""
    os.write(1, f"{line}\n".encode())


class TellingBackbone(FakeBackbone):
    """Says how many images it has been given."""

    def forward(self, images: np.ndarray) -> FeatureBatch:
        """Features, and a line."""
        say(f"forward {len(images)}")
        return super().forward(images)


def main() -> int:
    """Extract, and say what was done."""
    data, output = Path(sys.argv[1]), Path(sys.argv[2])
    shard_images, layout = int((*sys.argv, 40)[3]), (*sys.argv, "auto")[4] if len(sys.argv) > 3 else "auto"
    network = FakeNetwork()
    network.made = TellingBackbone()
    fsync = os.fsync
    os.fsync = lambda descriptor: (say("publish"), fsync(descriptor))[1]
    try:
        summary = extract_features(data, output, network=network, shard_images=shard_images, cache_layout=layout)
    except HeadstartError as error:
        print(json.dumps({"error": str(error), "kind": type(error).__name__}))
        return 1
    print(json.dumps({"n_computed": summary.n_computed, "n_images": summary.n_images, "reused": summary.reused}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
