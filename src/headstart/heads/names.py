"""Names of the heads and their options; importing it costs nothing."""

from __future__ import annotations

from collections.abc import Sequence

#: Poolings of the stored layer.
POOLINGS = ("flatten", "avg", "max", "gem", "crops")

#: Averages that ``crops`` puts side by side: of the whole map and of its four corners.
N_CROPS = 5

#: Exponent of ``gem``; 1 would be ``avg``, infinity ``max``. The fixed value of Radenović, Tolias & Chum, "Fine-tuning CNN
#: image retrieval with no human annotation", PAMI 2018.
GEM_POWER = 3.0

#: Scalings of a row of features.
SCALINGS = ("sqrt-l2", "l2", "standard", "none")


def count_views(features: Sequence[str]) -> int:
    """Return of how many views of the same image a row of features is made, each in as many columns, side by side."""
    return N_CROPS if tuple(features) == ("crops",) else 1
