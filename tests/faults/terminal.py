"""Run ``extract-features`` with the fake backbone in a terminal of its own, which somebody may close.

    python terminal.py TERMINAL SAY GO DATA -o OUTPUT …

The first three are open files. When the first batch is computed, a byte is written to SAY, and the second one waits until
GO is closed.
"""

from __future__ import annotations

import fcntl
import os
import sys
import termios
from functools import partial

import numpy as np

from fakes import FakeBackbone, FakeNetwork
from headstart.extract import run as local
from headstart.types import FeatureBatch
from headstart_cli.app import make_app, run

TERMINAL, SAY, GO = map(int, sys.argv[1:4])


class WaitingBackbone(FakeBackbone):
    """Says when it has begun, and waits to go on."""

    def forward(self, images: np.ndarray) -> FeatureBatch:
        """Features, after a while."""
        if self.n_images == self.batch_size:
            os.write(SAY, b".")
            os.read(GO, 1)
        return super().forward(images)


if __name__ == "__main__":
    fcntl.ioctl(TERMINAL, termios.TIOCSCTTY, 0)
    local.extract_features = partial(local.extract_features, network=FakeNetwork(kind=WaitingBackbone))  # type: ignore[arg-type]
    run(partial(make_app("extract-features"), sys.argv[4:]))  # type: ignore[arg-type]
