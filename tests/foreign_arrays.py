"""Features of another program, to be imported: small archives, good and with changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from headstart.exchange.import_features import import_features

N, WIDTH = 12, 6


def arrays(**changes: Any) -> dict[str, Any]:
    """Return the arrays of a good archive; None leaves one out."""
    rng = np.random.default_rng(0)
    y = np.arange(N) % 2
    good = {
        "X": (rng.normal(size=(N, WIDTH)) + 3 * y[:, None]).astype(np.float32),
        "y": y,
        "paths": np.array([f"{'ab'[i % 2]}/{i}.jpg" for i in range(N)]),
        "class_names": np.array(["ants", "bees"]),
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def imported(folder: Path, options: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write an archive with these changes and import it; return the cache."""
    np.savez(folder / "x.npz", **arrays(**changes))
    return import_features(folder / "x.npz", folder / "x.h5", name="dino", **(options or {})).output
