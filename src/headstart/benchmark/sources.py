"""The caches that heads are compared on: one, or several of the same images, among which each head chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import DataError
from headstart.evaluate.same_images import same_images, shortened
from headstart.report.comparison import Candidate
from headstart.search.settings import make_tables

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.cache.store import FeatureCache
    from headstart.heads.trials import Table
    from headstart.schema import HeadSpec, Recipe

#: Values of a table, 64 MB, up to which it stays in memory while the heads look at another cache: averages do, maps do not.
MAX_KEPT_VALUES = 16_000_000

#: Characters of a digest that are shown.
SHOWN_DIGEST = 12


@dataclass(slots=True)
class Source:
    """One cache of the images.

    Attributes
    ----------
    cache : FeatureCache
        Features.
    rows : ndarray of shape (n_images,), int64
        Its row of each image that lies in all caches.
    backbone_ms : float or None
        Milliseconds per image of its frozen backbone; None where they are not known.
    tables : dict of (features, scaling) to Table
        What was read of the images of the folds.
    """

    cache: FeatureCache
    rows: NDArray[np.int64]
    backbone_ms: float | None = None
    tables: dict[tuple[tuple[str, ...], str], Table] = field(default_factory=dict)

    def read(self, specs: Sequence[HeadSpec], images: NDArray[np.int64]) -> None:
        """Read the tables of some settings that are not there yet."""
        missing = [spec for spec in specs if (spec.features, spec.scaling) not in self.tables]
        self.tables |= make_tables(self.cache, missing, self.rows[images])

    def let_go(self) -> None:
        """Drop the large tables; they are read again when they are asked for."""
        for key in [key for key, table in self.tables.items() if table.raw.size > MAX_KEPT_VALUES]:
            del self.tables[key]


def join(caches: Sequence[FeatureCache], backbone_ms: Sequence[float | None]) -> tuple[list[Source], list[str]]:
    """Return the caches with their rows of the images that lie in all of them, and what was left out, in words.

    Images are known by their bytes. Order, labels, splits and groups are those of the first cache.

    Raises
    ------
    DataError
        If no image lies in all caches, or one calls an image by another class.
    """
    first, *others = caches
    digests = first.sha256
    shared = set(digests).intersection(*(other.sha256 for other in others))
    common = np.array([row for row, digest in enumerate(digests) if digest in shared], np.int64)
    if others and not len(common):
        raise DataError(f"No image lies in all of {', '.join(str(cache.path) for cache in caches)}.")
    rows = [common, *(same_images(first, common, other) for other in others)]
    sources = [Source(*parts) for parts in zip(caches, rows, backbone_ms, strict=True)]
    return sources, [left_out(cache, shared, len(caches)) for cache in caches if set(cache.sha256) - shared]


def left_out(cache: FeatureCache, shared: set[str], n_caches: int) -> str:
    """Return which images of a cache are not compared on, in words."""
    paths = [path for path, digest in zip(cache.paths, cache.sha256, strict=True) if digest not in shared]
    return (
        f"{len(paths):,} of the {cache.n_images:,} images of {cache.path} are left out: they do not lie in all {n_caches} "
        f"caches ({shortened(paths)})."
    )


def described(caches: Sequence[FeatureCache]) -> tuple[Candidate, ...]:
    """Return what to call each of several caches, and what differs between them; nothing of a single one."""
    if len(caches) == 1:
        return ()
    paths = [str(cache.path) for cache in caches]
    names = [PurePath(path).name for path in paths]
    names = names if len(set(names)) == len(names) else paths
    words = differences([cache.recipe for cache in caches])
    return tuple(
        Candidate(*parts) for parts in zip(names, paths, words, (cache.recipe for cache in caches), strict=True)
    )


def differences(recipes: Sequence[Recipe]) -> list[str]:
    """Return of each recipe the fields that are not the same in all, in words."""
    names = [one.name for one in fields(recipes[0]) if len({getattr(recipe, one.name) for recipe in recipes}) > 1]
    return [
        ", ".join(f"{name} {shown(getattr(recipe, name))}" for name in names) or "the same recipe" for recipe in recipes
    ]


def shown(value: Any) -> str:
    """Return a field of a recipe in words."""
    text = " + ".join(value) or "none" if isinstance(value, tuple) else str(value)
    return text[:SHOWN_DIGEST] if len(text) == 64 else text
