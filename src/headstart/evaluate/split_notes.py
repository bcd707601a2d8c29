"""Sentences on classes that are not both fitted on and scored, and on the weights of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.texts import counted

#: Classes that are named one by one, of each kind.
MAX_LISTED = 10


def weight_notes(weights: NDArray[np.float64] | None, outputs: NDArray[Any] | None = None) -> list[str]:
    """Return sentences on the weights of images, None for ones; ``outputs`` if other things than classes are predicted."""
    if weights is None:
        return []
    n_unused, used = int((weights == 0).sum()), weights[weights > 0]
    words = "of weight 0" if outputs is None or outputs.dtype.kind == "f" else "not normal, or of weight 0"
    notes = [f"{counted(n_unused)} {words}: not fitted on."] if n_unused else []
    if len(used) and (used != 1).any():
        notes.append(f"Fits are weighted, by {used.min():g} to {used.max():g} for an image; scores are not.")
    return notes


def class_notes(
    class_names: Sequence[str], fitted: Counter[str], scored: Counter[str], failed: Counter[str] | None = None
) -> list[str]:
    """Return sentences on classes that are not both fitted on and scored, given the images per class on each side."""
    notes = []
    for name in dict.fromkeys([*class_names, *scored]):
        if scored[name] and not fitted[name]:
            notes.append(f"{name}: {counted(scored[name], 'scored image')}, none to fit on.")
        elif fitted[name] and not scored[name]:
            notes.append(f"{name}: {counted(fitted[name])} to fit on, none scored.")
        elif not fitted[name] and failed and failed[name]:
            notes.append(f"{name}: none to fit on; {counted(failed[name])} could not be read.")
        elif not fitted[name]:
            notes.append(f"{name}: no image to fit on.")
    more = len(notes) - MAX_LISTED
    return notes if more <= 0 else [*notes[:MAX_LISTED], f"{more:,} more classes are not both fitted on and scored."]
