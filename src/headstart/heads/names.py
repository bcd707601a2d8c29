"""Names of the heads and their options; importing it costs nothing."""

from __future__ import annotations

#: Poolings of the stored layer.
POOLINGS = ("flatten", "avg", "max")

#: Scalings of a row of features.
SCALINGS = ("sqrt-l2", "l2", "standard", "none")
