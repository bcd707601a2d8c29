"""How well the distance to training images tells familiar images from others of the user's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.registry import build_backbone
from headstart.cache.reader import FeatureCache, open_cache
from headstart.cache.shards import is_cache
from headstart.decisions.familiarity import Familiarity
from headstart.errors import DataError, RecipeMismatchError
from headstart.evaluate.familiar_images import familiarity_of
from headstart.evaluate.intervals import estimates
from headstart.evaluate.splits import connected_units, divide
from headstart.images.discovery.scan import discover
from headstart.images.load import ReadOptions, batches
from headstart.storage.bucket import Location, location
from headstart.types import FeatureBatch, Recipe


@dataclass(frozen=True, slots=True)
class OutsideScore:
    """Familiar against unfamiliar images.

    Attributes
    ----------
    n_familiar, n_outside : int
        Held-out images of the cache, and images from outside.
    familiar_share, outside_share : float
        Shares of them that are called unfamiliar.
    roc_auc, roc_auc_interval : float, tuple of float
        Area under the ROC curve of the distance, and its 95 % interval.
    """

    n_familiar: int
    n_outside: int
    familiar_share: float
    outside_share: float
    roc_auc: float
    roc_auc_interval: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self) | {"roc_auc_interval": list(self.roc_auc_interval)}

    @property
    def sentence(self) -> str:
        """The score in words."""
        low, high = self.roc_auc_interval
        return (
            f"Unfamiliar: {self.familiar_share:.1%} of {self.n_familiar:,} held-out images, {self.outside_share:.1%} of "
            f"{self.n_outside:,} from outside; ROC-AUC {self.roc_auc:.3f} (95 % interval {low:.3f}–{high:.3f})."
        )


def score_outside(
    cache: str | Location,
    outside: str | Location,
    *,
    validation: float | str | None = None,
    random_state: int = 0,
    device: str = "auto",
) -> OutsideScore:
    """Return how well the distance to training images tells images from outside.

    The distance is that of saved heads (:mod:`headstart.decisions.familiarity`); it does not depend on the head.

    Parameters
    ----------
    cache : str or Path
        A cache with labels.
    outside : str, Path or Address
        Images of other things: a cache of the same recipe, or any input of ``extract-features``.
    validation : float or str, optional
        As for :func:`headstart.fit.fit_head`: the familiar images that are held out.
    random_state : int
        For a fraction that is held out, and the folds behind the threshold.
    device : str
        For the network, where ``outside`` is no cache.

    Raises
    ------
    DataError
        If the images cannot be divided, there are too few of them, or none from outside can be read.
    RecipeMismatchError
        If ``outside`` is a cache of another recipe.
    """
    with ExitStack() as stack:
        familiar = stack.enter_context(open_cache(cache))
        sides = divide(familiar, validation, random_state)
        train, held_out = sides.split.train, sides.split.validation
        found = familiarity_of(familiar, train, sides.y_train, sides.class_names, random_state)
        if found is None:
            raise DataError("The distance to training images needs at least two independent ones that differ.")
        own = _unfamiliarity(found, familiar.batches(held_out, finite=True))
        if is_cache(outside):
            batches = _rows_of(stack.enter_context(open_cache(outside)), familiar.recipe)
        else:
            batches = _computed(location(outside), familiar.recipe, device)
        others = _unfamiliarity(found, batches)
    units = connected_units(held_out, familiar.sha256, familiar.groups)
    return _score(own, others, units)


def _rows_of(cache: FeatureCache, recipe: Recipe) -> Iterator[FeatureBatch]:
    differences = recipe.differences(cache.recipe)
    if differences:
        raise RecipeMismatchError(
            f"{cache.path} was made by another recipe (cache ≠ outside): {'; '.join(differences)}."
        )
    return cache.batches(finite=True)


def _computed(place: Location, recipe: Recipe, device: str) -> Iterator[FeatureBatch]:
    """Yield the features of images, without those that cannot be read."""
    images = discover(place)
    backbone = build_backbone(recipe, None, device=device)
    for read, _ in batches(images.refs, recipe, ReadOptions(images.root), lambda: backbone.batch_size):
        if read:
            yield backbone.forward(np.stack([image.pixels for image in read.values()]))


def _unfamiliarity(found: Familiarity, batches: Iterator[FeatureBatch]) -> NDArray[np.float64]:
    parts = [found.unfamiliarity(found.rows(batch)) for batch in batches]
    if not parts:
        raise DataError("No image from outside can be read.")
    return np.concatenate(parts)


def _score(own: NDArray[np.float64], others: NDArray[np.float64], units: NDArray[np.intp]) -> OutsideScore:
    distances = np.concatenate([own, others])
    unfamiliar = distances / (1 + distances)  # between 0 and 1, in the same order
    y = np.repeat([0, 1], [len(own), len(others)])
    all_units = np.concatenate([units, units.max() + 1 + np.arange(len(others))])
    auc = estimates(y, np.stack([1 - unfamiliar, unfamiliar], axis=1), all_units)["roc_auc_ovr"]
    return OutsideScore(
        n_familiar=len(own),
        n_outside=len(others),
        familiar_share=float((own > 1).mean()),
        outside_share=float((others > 1).mean()),
        roc_auc=auc.value,
        roc_auc_interval=(auc.low, auc.high),
    )
