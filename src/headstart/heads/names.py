"""Names of the heads and their options; importing it costs nothing."""

from __future__ import annotations

#: Poolings of the stored layer.
POOLINGS = ("flatten", "avg", "max", "gem")

#: Exponent of ``gem``; 1 would be ``avg``, infinity ``max``. The fixed value of Radenović, Tolias & Chum, "Fine-tuning CNN
#: image retrieval with no human annotation", PAMI 2018.
GEM_POWER = 3.0

#: Scalings of a row of features.
SCALINGS = ("sqrt-l2", "l2", "standard", "none")
