"""The caches that heads choose among: their rows of the images that lie in all of them, their tables, and their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.reader import FeatureCache
from headstart.errors import DataError
from headstart.evaluate.joined_caches import AnyCache, caches_of, join_caches, same_images
from headstart.evaluate.random_crops import crops_of
from headstart.heads.grid_predictions import Table
from headstart.report.comparison import Candidate
from headstart.selection.search import make_tables
from headstart.texts import listed
from headstart.types import HeadSpec, Recipe

#: Values of a table, 64 MB, up to which it stays in memory while the heads look at another cache: averages do, maps do not.
MAX_KEPT_VALUES = 16_000_000

#: Characters of a digest that are shown.
SHOWN_DIGEST = 12


@dataclass(slots=True)
class Source:
    """One cache of the images, or several side by side."""

    cache: AnyCache
    rows: NDArray[np.int64]  # its row of each image that lies in all caches; shape (n_images,)
    backbone_ms: float | None = None  # milliseconds per image of its frozen backbone; None where they are not known
    crops: Sequence[FeatureCache] = ()  # caches of random crops of its images, for fits
    #: Tables of the images of the folds, as far as they were read
    tables: dict[tuple[tuple[str, ...], str], Table] = field(default_factory=dict)

    def read(self, specs: Sequence[HeadSpec], images: NDArray[np.int64], weights: NDArray[np.float64] | None) -> None:
        """Read the tables of some settings that are not there yet; ``weights`` are those of the images, None for ones."""
        missing = [spec for spec in specs if (spec.features, spec.scaling) not in self.tables]
        own = crops_of(self.cache, self.rows[images], self.crops) if self.crops else None
        self.tables |= make_tables(self.cache, missing, self.rows[images], weights, own)

    def let_go(self) -> None:
        """Drop the large tables; they are read again when they are asked for."""
        for key in [key for key, table in self.tables.items() if table.raw.size > MAX_KEPT_VALUES]:
            del self.tables[key]


def match(
    caches: Sequence[FeatureCache], backbone_ms: Sequence[float | None], *, join: bool = False
) -> tuple[list[Source], list[str]]:
    """Return the caches with their rows of the images that lie in all of them, and what was left out, in words.

    Images are known by their bytes. Order, labels, splits and groups are those of the first cache. With ``join``, the last
    source is all caches side by side. Raises DataError if no image lies in all caches, or one calls an image by another
    class; or two caches to join have one recipe.
    """
    first, *others = caches
    digests = first.sha256
    shared = set(digests).intersection(*(other.sha256 for other in others))
    common = np.array([row for row, digest in enumerate(digests) if digest in shared], np.int64)
    if others and not len(common):
        raise DataError(f"No image lies in all of {', '.join(str(cache.path) for cache in caches)}.")
    rows = [common, *(same_images(first, common, other) for other in others)]
    sources = [Source(*parts) for parts in zip(caches, rows, backbone_ms, strict=True)]
    if join:
        sources.append(side_by_side(sources))
    return sources, [left_out(cache, shared, len(caches)) for cache in caches if set(cache.sha256) - shared]


def side_by_side(sources: Sequence[Source]) -> Source:
    """Return several caches as one, whose backbones take the sum of their times."""
    rows = sources[0].rows
    known = [source.backbone_ms for source in sources if source.backbone_ms is not None]
    caches = [cache for source in sources for cache in caches_of(source.cache)]
    return Source(join_caches(caches, rows), rows, sum(known) if len(known) == len(sources) else None)


def left_out(cache: FeatureCache, shared: set[str], n_caches: int) -> str:
    """Return which images of a cache are not compared on, in words."""
    paths = [path for path, digest in zip(cache.paths, cache.sha256, strict=True) if digest not in shared]
    return (
        f"{len(paths):,} of the {cache.n_images:,} images of {cache.path} are left out: they do not lie in all {n_caches} "
        f"caches ({listed(paths, 3)})."
    )


def described(caches: Sequence[FeatureCache], *, join: bool = False) -> tuple[Candidate, ...]:
    """Return what to call each of several caches, and what differs between them; nothing of a single one.

    With ``join``, the last candidate is all of them side by side.
    """
    if len(caches) == 1:
        return ()
    paths = [str(cache.path) for cache in caches]
    names = [PurePath(path).name for path in paths]
    names = names if len(set(names)) == len(names) else paths
    words = differences([cache.recipe for cache in caches])
    recipes = (cache.recipe for cache in caches)
    single = tuple(Candidate(*parts) for parts in zip(names, paths, words, recipes, strict=True))
    both = Candidate(" + ".join(names), " + ".join(paths), "side by side", None)
    return (*single, both) if join else single


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
