"""Several caches of the same images: their rows matched by the images' bytes, and read side by side as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.reader import FeatureCache
from headstart.errors import DataError
from headstart.texts import listed
from headstart.types import FeatureBatch, Recipe

if TYPE_CHECKING:
    from headstart.storage.bucket import Location
    from headstart.types import Failure

#: Images named in an error.
LISTED = 3

#: Attributes of a join that are those of its first cache.
OF_IMAGES = frozenset(
    {"path", "n_images", "class_names", "labels", "paths", "splits", "groups", "sha256", "weights", "failures"}
)


class JoinedCache:
    """Several caches as one: each row has the features of an image in all of them.

    Rows, and what is known of the images, are those of the first cache.

    Parameters
    ----------
    caches : sequence of FeatureCache
        At least two.
    rows : sequence of ndarray of shape (n_images,), int64
        For each further cache, its row of every image of the first; −1 for images that are not read.
    """

    path: Location
    n_images: int
    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    paths: list[str]
    splits: list[str]
    groups: list[str]
    sha256: list[str]
    weights: NDArray[np.float64] | None
    failures: tuple[Failure, ...]

    def __init__(self, caches: Sequence[FeatureCache], rows: Sequence[NDArray[np.int64]]) -> None:
        self.caches, self._rows = tuple(caches), tuple(rows)

    def __getattr__(self, name: str) -> Any:
        if name in OF_IMAGES:
            return getattr(self.caches[0], name)
        raise AttributeError(f"a join of caches has no attribute {name!r}")

    def batches(
        self, rows: NDArray[np.int64], batch_rows: int = 256, *, finite: bool = False
    ) -> Iterator[FeatureBatch]:
        """Yield the features of some rows in the given order, as :meth:`FeatureCache.batches` does."""
        step = min(cache.rows_per_batch(batch_rows) for cache in self.caches)
        for start in range(0, len(rows), step):
            own = rows[start : start + step]
            in_each = (own, *(row_of[own] for row_of in self._rows))
            first, *others = (
                next(cache.batches(part, step, finite=finite)) for cache, part in zip(self.caches, in_each, strict=True)
            )
            yield FeatureBatch(first.features, first.pooled, first.pooled_column_layer, tuple(others))


#: A cache, or several as one.
AnyCache = FeatureCache | JoinedCache


def caches_of(cache: AnyCache) -> tuple[FeatureCache, ...]:
    """Return the caches of a join; of any other cache itself alone."""
    return cache.caches if isinstance(cache, JoinedCache) else (cache,)


def recipes_of(cache: AnyCache) -> tuple[Recipe, ...]:
    """Return the recipe of each cache of a join; the only one of any other cache."""
    return tuple(one.recipe for one in caches_of(cache))


def join_caches(caches: Sequence[FeatureCache], rows: NDArray[np.int64]) -> JoinedCache:
    """Return several caches as one, for some rows of the first.

    Raises DataError if an image is missing, or has another class in one of the caches; if there is a single cache, or two
    have the same recipe.
    """
    first, *others = caches
    check_recipes(caches)
    found = []
    for other in others:
        row_of = np.full(first.n_images, -1, np.int64)
        row_of[rows] = same_images(first, rows, other)
        found.append(row_of)
    return JoinedCache(caches, found)


def check_recipes(caches: Sequence[FeatureCache]) -> None:
    """Raise DataError if there are fewer than two caches to join, or two of one recipe."""
    if len(caches) < 2:
        raise DataError(
            f"There is nothing to join to {caches[0].path}. Expected: two or more caches of the same images, e.g. of "
            "different backbones or input sizes."
        )
    for one, other in combinations(caches, 2):
        if one.recipe == other.recipe:
            same = "is named twice" if one.path == other.path else f"and {other.path} were made by the same recipe"
            raise DataError(
                f"{one.path} {same}: side by side, the same features would count twice. Expected: caches of different "
                "backbones, layers, input sizes or views."
            )


def same_images(cache: FeatureCache, rows: NDArray[np.int64], other: FeatureCache) -> NDArray[np.int64]:
    """Return the rows of another cache that hold the same images as some rows, in their order, whatever their paths.

    Raises DataError if an image is missing, or has another class there; the message names some.
    """
    row_of = first_rows(other)
    digests, paths = cache.sha256, cache.paths
    missing = [paths[row] for row in rows if digests[row] not in row_of]
    if missing:
        raise DataError(
            f"{other.path} lacks {len(missing):,} of the {len(rows):,} images of {cache.path}: {listed(missing, LISTED)}. "
            "Bring both up to date with extract-features, on the same images."
        )
    found = np.array([row_of[digests[row]] for row in rows], np.int64)
    mine, theirs = outputs_by_image(cache, rows), outputs_by_image(other, found)
    different = [paths[row] for row, a, b in zip(rows, mine, theirs, strict=True) if a != b]
    if different:
        kind = "classes" if outputs_of(cache) is None else "numbers"
        raise DataError(
            f"{other.path} has other {kind} than {cache.path} for {len(different):,} images: {listed(different, LISTED)}. "
            "Bring both up to date with extract-features, on the same folders or manifest."
        )
    return found


def first_rows(cache: FeatureCache) -> dict[str, int]:
    """Return the first row of each digest."""
    return {digest: row for row, digest in reversed(list(enumerate(cache.sha256)))}


def outputs_of(cache: AnyCache) -> NDArray[Any] | None:
    """Return what is to be predicted for each row, NaN for none (evaluate/targets.py); None if that is the class."""
    return getattr(caches_of(cache)[0], "outputs", None)


def least_classes(cache: AnyCache) -> int:
    """Return how many classes of labels a fit needs: two, or one where other outputs are predicted."""
    return 2 if outputs_of(cache) is None else 1


def outputs_by_image(cache: AnyCache, rows: NDArray[np.int64]) -> list[Any]:
    """Return what is to be predicted for each row, for a comparison: the class, an empty name for none, or the number."""
    outputs = outputs_of(cache)
    return names_of(cache, rows) if outputs is None else np.nan_to_num(outputs[rows], nan=np.inf).tolist()


def names_of(cache: AnyCache, rows: NDArray[np.int64]) -> list[str]:
    """Return the class of each row; an empty name for none."""
    names = (*cache.class_names, "")
    return [names[label] for label in cache.labels[rows].tolist()]
