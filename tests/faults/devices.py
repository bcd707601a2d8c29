"""Run one extraction on two devices, with the fake network, in a process of its own that tells what it does.

    python devices.py DATA OUTPUT SHARD_IMAGES

When images are done it prints ``done N``. The end is a line of JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fakes import FakeNetwork
from headstart.extract.run import extract_features


class Telling:
    """Progress as lines."""

    def message(self, text: str) -> None: ...

    def start(self, n_images: int) -> None: ...

    def advance(self, n_images: int, place: str = "") -> None:
        """Print it."""
        print("done", n_images, flush=True)


if __name__ == "__main__":
    data, output, shard_images = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    summary = extract_features(
        data, output, network=FakeNetwork(), shard_images=shard_images, device="cpu,cpu", progress=Telling()
    )
    print(json.dumps({"n_computed": summary.n_computed, "n_images": summary.n_images, "stopped": summary.interrupted}))
