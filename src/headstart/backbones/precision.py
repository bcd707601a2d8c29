"""The reduced precision is taken only where it is proven, on the user's own images, to give the same features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.types import Backbone

#: Every row's cosine to float32 must reach this. bfloat16 on AVX512_BF16 gives 0.9999, so a fault stands out.
MIN_COSINE = 0.999


@dataclass(frozen=True, slots=True)
class PrecisionChoice:
    """The backbone that was chosen, and why.

    Attributes
    ----------
    backbone : Backbone
        Computes in the chosen precision.
    reason : str
        One sentence for the summary and the cache.
    """

    backbone: Backbone
    reason: str


def choose_precision(
    build: Callable[[str], Backbone], reduced: str | None, device: str, images: NDArray[np.uint8]
) -> PrecisionChoice:
    """Return the backbone in the reduced precision if it gives the features of float32 on these images.

    Parameters
    ----------
    build : callable
        Precision → backbone.
    reduced : str or None
        A reduced type that is faster on the device; None where there is none.
    device : str
        Name of the device, for the reason.
    images : ndarray of shape (n_images, size, size, 3), uint8
        The first batch of the user's own images.
    """
    exact = build("float32")
    if reduced is None:
        return PrecisionChoice(exact, f"float32: no type that is faster on this {device} gives the same features")
    candidate = build(reduced)
    cosines = row_cosines(exact.forward(images).features, candidate.forward(images).features)
    lowest = float(cosines.min())
    proof = f"lowest cosine to float32 on your first {len(images)} images {lowest:.5f}, wanted ≥ {MIN_COSINE}"
    if lowest >= MIN_COSINE:
        return PrecisionChoice(candidate, f"{reduced}: native on this {device}; {proof}")
    return PrecisionChoice(exact, f"float32: {reduced} did not pass its proof; {proof}")


def row_cosines(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the cosine between rows of equal index, shape (n_rows,), float64.

    Two rows of zeros are equal (1); zeros against anything else, or a value that is not finite, agree in nothing (0).
    """
    x, y = (np.reshape(rows, (len(rows), -1)).astype(np.float64) for rows in (a, b))
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    both_zero = ~x.any(axis=1) & ~y.any(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.einsum("ij,ij->i", x, y) / norms
    return np.where(both_zero, 1.0, np.nan_to_num(cosines, nan=0.0, posinf=0.0, neginf=0.0))
