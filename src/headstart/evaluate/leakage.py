"""Near-duplicate images, and images shared between splits or with those that a head was fitted on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.registry import BACKBONES
from headstart.bundles.bundle import short_digests
from headstart.cache.reader import open_cache
from headstart.cache.shards import is_cache
from headstart.errors import DataError, HeadstartError
from headstart.evaluate.folds import check_lengths
from headstart.evaluate.joined_caches import AnyCache, caches_of
from headstart.evaluate.splits import Sides, coded, connected_units
from headstart.heads.transforms import design_matrix, signed_sqrt
from headstart.texts import counted
from headstart.types import SPLITS, FeatureBatch, Recipe

#: Cosine of mean-subtracted features from which images are near-duplicates. Measured on 35 photographs of ants and bees:
#: JPEG quality 60 ≥ 0.978, brightened by 15 % ≥ 0.96 in 95 %, half the size or cropped by 6 % about 0.95; different
#: photographs ≤ 0.72. Of 3.4 million pairs of 2,624 solar cells, which are very similar, 0.07 % are above; without
#: subtracting the mean, 14 %.
NEAR_DUPLICATE_COSINE = 0.95

#: The same without subtracting the mean, which is the common scene if nearly all images show it.
SAME_SCENE_COSINE = 0.99

#: Stricter thresholds for use without human review: only re-encoded copies are meant. Measured on the averages of the last
#: block. Of 32 photographs of ants and bees, all are found at JPEG quality 75, 97 % at 60, 84 % brightened by 15 %, 13 %
#: at half the size; of 32 solar cells all at quality 90, 78 % at 75, 34 % at 60. False positives: none of 398
#: photographs, and 42 of 2,624 solar cells, in 15 groups of up to 6 (at 300 pixels 4, in 2). 0.95 and 0.99 would join 674
#: of them, in groups of up to 74. Of 1,360 flowers, 130 are pairs, each of one picture.
SAME_PICTURE_COSINE, SAME_PICTURE_SCENE_COSINE = 0.985, 0.995

#: Backbones whose last pooled layer lies in their last block.
LAST_BLOCK_POOLED = frozenset({"vgg16", "vgg19"})

#: Rows and columns of the block of cosines in memory at a time: 16 MiB.
BLOCK = 2048

#: Members of a group compared by :func:`cosine_range`.
MAX_COMPARED_MEMBERS = 64


def near_units(pooled: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
    """Return a unit number per image; images connected by a chain of near-duplicates have the same number.

    ``pooled`` are averages of the deepest layer (:func:`last_block`), shape (n_images, n_features): earlier layers
    describe textures and colours, by which 2,437 of 2,624 solar cells are near-duplicates. Images with non-finite
    features are alone. Time is quadratic: 100,000 images take a minute or two on two cores. Raises DataError if
    ``pooled`` is not two-dimensional.
    """
    if pooled.ndim != 2:
        raise DataError(f"Expected averages of shape (n_images, n_features). Received: {pooled.shape}.")
    finite, units = np.isfinite(pooled).all(axis=1), np.arange(len(pooled))
    groups = group_by_cosine(
        unit_rows(pooled[finite].astype(np.float32)), SAME_PICTURE_COSINE, SAME_PICTURE_SCENE_COSINE
    )
    units[finite] = np.flatnonzero(finite)[groups]
    _, numbers = np.unique(units, return_inverse=True)
    return numbers


def deepest_feature(recipe: Recipe) -> str:
    """Return the feature by which near-duplicates are found: a pooled layer, or ``avg`` of the stored one.

    Pooled layers of VGG16 reach the last block, with which the thresholds were chosen. Those of other networks are inner
    ones, by which EfficientNet-Lite2 joins 2,601 of 2,624 solar cells; by the average of its last map 317, in groups of up
    to 22 (mean of eight views), and of 1,360 flowers 126, all pairs.
    """
    layers = recipe.pooled_layers
    if not layers or recipe.backbone not in BACKBONES or recipe.backbone in LAST_BLOCK_POOLED:
        return layers[-1] if layers else "avg"
    order = list(BACKBONES[recipe.backbone].layers)
    return "avg" if order.index(recipe.layer) > order.index(layers[-1]) else layers[-1]


def last_block(cache: AnyCache) -> NDArray[np.float32]:
    """Return the averages of the deepest layer of a cache (:func:`deepest_feature`), of the first of a join."""
    first = caches_of(cache)[0]
    feature = deepest_feature(first.recipe)
    if feature == "avg":
        return design_matrix(first.batches(), (feature,), n_samples=first.n_images)
    return first.pooled()[:, np.array(first.pooled_column_layer, object) == feature]


def last_block_of(batch: FeatureBatch, recipe: Recipe) -> NDArray[np.float32]:
    """Return the same for newly computed features; ``recipe`` is the first of a join."""
    return design_matrix([replace(batch, others=())], (deepest_feature(recipe),))


def unit_rows(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return square roots divided by their norm; rows of zeros stay zeros."""
    rooted = signed_sqrt(features)
    norms = np.linalg.norm(rooted, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(rooted, norms, out=np.zeros_like(rooted), where=norms > 0)
    return unit


def group_by_cosine(
    unit: NDArray[np.float32], cosine: float, same_scene: float = SAME_SCENE_COSINE
) -> NDArray[np.intp]:
    """Return the group of each of the :func:`unit_rows`; groups are connected through chains of near-duplicates.

    Thresholds are with and without subtracting the mean over all rows. Memory is linear in the number of rows, time
    quadratic.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(unit)
    component = np.arange(n)
    mean = unit.mean(axis=0) if n else np.zeros(unit.shape[1], np.float32)
    along, centred_norm = unit @ mean, np.maximum(np.linalg.norm(unit - mean, axis=1), 1e-6)
    for a in range(0, n, BLOCK):
        edges = []
        for b in range(a, n, BLOCK):
            raw = unit[a : a + BLOCK] @ unit[b : b + BLOCK].T
            centred = raw - along[a : a + BLOCK, None] - along[b : b + BLOCK] + mean @ mean
            centred /= centred_norm[a : a + BLOCK, None] * centred_norm[b : b + BLOCK]
            i, j = np.nonzero((raw >= same_scene) | (centred >= cosine))
            edges.append(np.unique(np.stack([component[i + a], component[j + b]]), axis=1))
        i, j = np.concatenate(edges, axis=1)
        _, merged = connected_components(coo_array((np.ones(len(i), np.int8), (i, j)), shape=(n, n)), directed=False)
        component = merged[component]
    return component


def cosine_range(unit: NDArray[np.float32]) -> tuple[float, float]:
    """Return the lowest and highest cosine between different rows; at most the first 64 are compared."""
    few = unit[:MAX_COMPARED_MEMBERS]
    cosines = (few @ few.T)[np.triu_indices(len(few), 1)]
    return round(float(cosines.min()), 4), round(float(min(cosines.max(), 1.0)), 4)


Kind = Literal["identical", "group", "near"]

#: Kind of leak → words for a sentence.
IN_COMMON: dict[Kind, str] = {
    "identical": "have the same bytes as",
    "group": "are of one group with",
    "near": "look nearly the same as",
}

#: Relation of an image to the training images → words for a sentence.
RELATIONS = {
    "fitted_on": "fitted on",
    "same_group": "of one group with such an image",
    "nearly_the_same": "nearly the same picture as one",
}

#: Maximum number of images to search for near-duplicates; the time is quadratic, a minute or two for this many.
MAX_COMPARED = 100_000

#: The same as part of a fit, which takes seconds.
MAX_COMPARED_IN_FIT = 20_000


@dataclass(frozen=True, slots=True)
class Leak:
    """Images of one split that are related to images of another."""

    kind: Kind  # ``identical`` bytes, same ``group``, or ``near``-duplicates of different bytes
    fitted: str  # names of the two splits; the first is closer to training
    scored: str
    fitted_rows: NDArray[np.int64]  # rows of each with a relative in the other, ascending
    scored_rows: NDArray[np.int64]
    n_scored: int  # labelled images of the split ``scored``

    @property
    def count(self) -> int:
        """Number of scored images with a relative."""
        return len(self.scored_rows)

    @property
    def sentence(self) -> str:
        """The leak as a sentence."""
        images = "images" if len(self.fitted_rows) > 1 else "image"
        return (
            f"{self.count:,} of the {self.n_scored:,} {self.scored} images ({self.count / self.n_scored:.1%}) "
            f"{IN_COMMON[self.kind]} {len(self.fitted_rows):,} {self.fitted} {images}."
        )


def find_leaks(
    labels: NDArray[np.integer[Any]],
    splits: Sequence[str],
    *,
    sha256: Sequence[str],
    groups: Sequence[str] | None = None,
    pooled: NDArray[np.floating[Any]] | None = None,
) -> list[Leak]:
    """Return the leaks between each two splits (empty for none), by kind; unlabelled rows (−1) are ignored.

    ``pooled`` are averages of features (evaluate/leakage.py); without them, near-duplicates are not searched for.
    Raises DataError if lengths differ.
    """
    labels = np.asarray(labels)
    check_lengths(len(labels), splits=splits, sha256=sha256, groups=groups, pooled=pooled)
    names = np.array(
        [split if label >= 0 else "" for split, label in zip(splits, labels.tolist(), strict=True)], object
    )
    rows = np.flatnonzero(names != "")
    ordered = sorted(set(names[rows].tolist()), key=lambda name: (*SPLITS, name).index(name))
    if len(ordered) < 2:
        return []
    units: dict[Kind, NDArray[np.intp]] = {"identical": coded(sha256)}
    if groups is not None:
        units["group"] = coded(group or None for group in groups)
    if pooled is not None:
        units["near"] = np.full(len(labels), -1, np.intp)
        units["near"][rows] = near_units(pooled[rows])
    found = (
        _leak(kind, names, fitted, scored, own, units["identical"])
        for fitted, scored in combinations(ordered, 2)
        for kind, own in units.items()
    )
    return [one for one in found if one.count]


def _leak(
    kind: Kind,
    names: NDArray[np.object_],
    fitted: str,
    scored: str,
    units: NDArray[np.intp],
    identical: NDArray[np.intp],
) -> Leak:
    """Return the rows of two splits in common units; for near-duplicates, without rows of identical bytes."""
    sides = [np.flatnonzero((names == name) & (units >= 0)) for name in (fitted, scored)]
    if kind == "near":
        same = np.intersect1d(identical[sides[0]], identical[sides[1]])
        sides = [side[~np.isin(identical[side], same)] for side in sides]
    common = np.intersect1d(units[sides[0]], units[sides[1]])
    first, second = (side[np.isin(units[side], common)].astype(np.int64) for side in sides)
    return Leak(kind, fitted, scored, first, second, int((names == scored).sum()))


@dataclass(frozen=True, slots=True)
class Seen:
    """How many of the images to be scored a head has seen in training, and how they are treated."""

    #: ``left out``; ``included``, on request; or ``unknown``, if the head has no digests of its training images
    handling: Literal["left out", "included", "unknown"]
    counts: Mapping[str, int]  # images per relation in :data:`RELATIONS`; each is counted once
    compared: bool  # whether near-duplicates were searched for

    @property
    def total(self) -> int:
        """Number of images that the head has seen."""
        return sum(self.counts.values())

    @property
    def sentence(self) -> str:
        """What a reader of the score needs to know."""
        if self.handling == "unknown":
            return (
                "It cannot be known whether the head was fitted on some of these images, since an older version saved it. "
                "If it was, the score is too good. Fit the head again to know."
            )
        if not self.total:
            text = "The head was fitted on none of these images."
        else:
            said = ", ".join(f"{n:,} {RELATIONS[name]}" for name, n in self.counts.items() if n)
            images = f"{counted(self.total)} that"
            text = (
                f"{images} the head has seen {'is' if self.total == 1 else 'are'} left out: {said} "
                "(`include_training=True` scores them too)."
                if self.handling == "left out"
                else f"The score is too good: it includes {images} the head has seen ({said})."
            )
        return text if self.compared else f"{text} Near-duplicates of its training images were not looked for."

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON types."""
        return {"handling": self.handling, **self.counts, "near_duplicates_looked_for": self.compared}


@dataclass(frozen=True, slots=True)
class ImageKeys:
    """Identifying properties of images, one value per image."""

    sha256: Sequence[str]  # digest, and group (empty for none)
    groups: Sequence[str]
    pooled: NDArray[np.float32]  # averages of the last block; shape (n_images, n_features)

    @classmethod
    def of(cls, cache: AnyCache, rows: NDArray[np.int64]) -> ImageKeys:
        """Return the properties of some rows of a cache."""
        sha256, groups = cache.sha256, cache.groups
        return cls([sha256[i] for i in rows.tolist()], [groups[i] for i in rows.tolist()], last_block(cache)[rows])

    def joined(self, other: ImageKeys) -> ImageKeys:
        """Return the concatenation with another set."""
        return ImageKeys(
            [*self.sha256, *other.sha256], [*self.groups, *other.groups], np.concatenate([self.pooled, other.pooled])
        )


def fitted_on(sha256: Sequence[str], digests: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return a mask of the training images, given the digests stored in a saved head."""
    found: NDArray[np.bool_] = np.isin(short_digests(sha256), digests, kind="sort")
    return found


def relations(
    images: ImageKeys, digests: NDArray[np.uint64], training: ImageKeys | None = None
) -> tuple[dict[str, NDArray[np.bool_]], bool]:
    """Return how the head has seen each image, and whether near-duplicates were searched for.

    ``digests`` are those of the training images; ``training`` are training images not among ``images``, from
    :func:`training_images`. The result has a mask for each of :data:`RELATIONS`; the masks are disjoint.
    """
    n = len(images.sha256)
    own = fitted_on(images.sha256, digests)
    if training is not None:
        images, own = images.joined(training), np.concatenate([own, np.ones(len(training.sha256), bool)])
    units = connected_units(np.arange(len(own)), images.sha256, images.groups)
    of_group = np.isin(units, units[own]) & ~own
    near = np.zeros_like(own)
    compared = int(own.sum()) >= len(digests) and len(own) <= MAX_COMPARED
    if own.any() and len(own) <= MAX_COMPARED:
        same = near_units(images.pooled)
        near = np.isin(same, same[own]) & ~own & ~of_group
    masks = dict(zip(RELATIONS, (own[:n], of_group[:n], near[:n]), strict=True))
    return masks, compared


def seen_in_the_fit(sides: Sides) -> tuple[str, ...]:
    """Return a sentence on validation images related to training images by group or similarity; empty if there are none.

    Images of identical bytes are on one side already.
    """
    train, validation, split = sides.train, sides.validation, sides.split
    if max(train.n_images, validation.n_images) > MAX_COMPARED_IN_FIT:
        return ()
    digests = np.unique(short_digests(train.sha256)[split.train])
    masks, compared = relations(ImageKeys.of(validation, split.validation), digests, ImageKeys.of(train, split.train))
    seen = Seen("included", {name: int(mask.sum()) for name, mask in masks.items()}, compared=compared)
    return (seen.sentence,) if seen.total else ()


def training_images(
    places: Iterable[Path], recipe: Recipe, digests: NDArray[np.uint64], known: Sequence[str]
) -> ImageKeys | None:
    """Return a head's training images from the cache it was fitted on, if still available on this machine.

    ``places`` are possible paths of the cache, of which the first with some of the images is used; ``digests`` those of
    the training images, ``known`` those of images already available.
    """
    wanted = np.setdiff1d(digests, short_digests(known))
    if not len(wanted):
        return None
    return next(filter(None, (_images_in(place, recipe, wanted) for place in places)), None)


def _images_in(place: Path, recipe: Recipe, wanted: NDArray[np.uint64]) -> ImageKeys | None:
    """Return the images with given digests from a cache of a recipe; None if there are none."""
    try:
        if not place.exists() or not is_cache(place):
            return None
        with open_cache(place) as opened:
            if recipe.differences(opened.recipe):
                return None
            rows = np.flatnonzero(np.isin(short_digests(opened.sha256), wanted, kind="sort"))
            return ImageKeys.of(opened, rows) if len(rows) else None
    except (HeadstartError, OSError):
        return None
