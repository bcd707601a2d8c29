"""Sets of classes that hold the true class with a given probability (conformal prediction).

The conformity score of an image is the probability of its true class (Sadinle, Lei & Wasserman, "Least ambiguous set-valued
classifiers with bounded error levels", JASA 114, 2019), taken from the fold in which the image was left out, as in
cross-conformal prediction (Vovk, "Cross-conformal predictors", Annals of Mathematics and Artificial Intelligence 74, 2015).
The rank is that of split conformal prediction (Angelopoulos & Bates, "Conformal prediction: a gentle introduction",
Foundations and Trends in Machine Learning 16, 2023, section 1). Adaptive sets (Romano, Sesia & Candès, "Classification with
valid and adaptive coverage", NeurIPS 2020) are larger on average, and are not used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError
from headstart.scores import Estimate, proportion
from headstart.texts import listed

Floats = NDArray[np.floating[Any]]

#: Shares are compared up to this share of them, so that rounding errors do not move a rank: 0.95 · 20 is 19.
ROUNDING = 1e-9

#: Classes named in a message.
MAX_LISTED = 10


def quantile_from_above(values: Floats, level: float) -> float | None:
    """Return the ⌈level · (n + 1)⌉-th largest of n values, shape (n,); None if there are not so many.

    One more value of the same distribution is at least as large with a probability of ``level`` or more.
    """
    rank = math.ceil(level * (len(values) + 1) * (1 - ROUNDING))
    return float(np.sort(values)[-rank]) if rank <= len(values) else None


def least_images(level: float) -> int:
    """Return how many values :func:`quantile_from_above` needs: the least n with ⌈level · (n + 1)⌉ ≤ n."""
    return math.ceil(level / (1 - level) * (1 - ROUNDING))


@dataclass(frozen=True, slots=True)
class PredictionSets:
    """Which classes are in the set of an image: those with a probability of at least the cutoff.

    Attributes
    ----------
    coverage : float
        Share of the images whose set is to hold the true class, between 0 and 1.
    per_class : bool
        Whether the images of each class are to be covered, and not only all of them together.
    cutoffs : tuple of float
        Least probability of a class in the set: one for each class, or a single one for all.
    """

    coverage: float
    per_class: bool
    cutoffs: tuple[float, ...]

    def of(self, probabilities: Floats) -> NDArray[np.bool_]:
        """Return which classes are in the set of each image, both of shape (n_images, n_classes)."""
        found: NDArray[np.bool_] = probabilities >= np.array(self.cutoffs)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"coverage": self.coverage, "per_class": self.per_class, "cutoffs": list(self.cutoffs)}


def choose_sets(
    y: NDArray[np.int64],
    probabilities: Floats,
    class_names: Sequence[str],
    *,
    coverage: float,
    per_class: bool,
) -> PredictionSets:
    """Return the sets with a coverage, from probabilities of images by heads that were not fitted on them.

    ``y`` are indices into ``class_names``, shape (n_images,). Raises DataError if there are too few images, of all or of a
    class, for any cutoff.
    """
    own = probabilities[np.arange(len(y)), y]
    groups = [y == label for label in range(len(class_names))] if per_class else [np.ones(len(y), bool)]
    found = [quantile_from_above(own[rows], coverage) for rows in groups]
    lacking = [number for number, cutoff in enumerate(found) if cutoff is None]
    if lacking:
        counts = [f"{class_names[number]} ({groups[number].sum():,})" for number in lacking] if per_class else []
        of = f" Too few: {listed(counts, MAX_LISTED)}." if counts else f" Received: {len(y):,}."
        raise DataError(
            f"A coverage of {coverage:g} needs at least {least_images(coverage):,} training images"
            f"{' of each class' if per_class else ''}.{of} Expected: more images, or a lower `coverage`."
        )
    return PredictionSets(coverage, per_class, tuple(cutoff for cutoff in found if cutoff is not None))


@dataclass(frozen=True, slots=True)
class SetScore:
    """How the sets do on images that the head was not fitted on; shares with Wilson's 95 % interval."""

    asked: float  # coverage that the sets were chosen for
    coverage: Estimate  # share of the images whose set holds the true class
    mean_size: float  # classes in a set, on average
    unsure: Estimate  # share of the images with several classes or none
    accuracy_of_sure: (
        Estimate  # share of the images with one class for which it is the true one; NaN where there is none
    )
    of_each_class: Mapping[str, Estimate] = field(default_factory=dict)  # coverage of each class with an image


def score_sets(
    sets: PredictionSets, y: NDArray[np.int64], probabilities: Floats, class_names: Sequence[str]
) -> SetScore:
    """Return coverage and size of the sets of some images."""
    found = sets.of(probabilities)
    holds, sizes = found[np.arange(len(y)), y], found.sum(axis=1)
    sure = sizes == 1
    return SetScore(
        sets.coverage,
        coverage=proportion(int(holds.sum()), len(y)),
        mean_size=float(sizes.mean()),
        unsure=proportion(int((~sure).sum()), len(y)),
        accuracy_of_sure=proportion(int((holds & sure).sum()), int(sure.sum())),
        of_each_class={
            name: proportion(int(holds[y == label].sum()), int((y == label).sum()))
            for label, name in enumerate(class_names)
            if (y == label).any()
        },
    )
