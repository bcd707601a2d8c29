"""Random crops of training images, in caches of their own beside that of the images, for fits alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.reader import FeatureCache, open_cache
from headstart.cache.shards import is_cache
from headstart.errors import DataError, RecipeMismatchError
from headstart.evaluate.joined_caches import AnyCache, caches_of, first_rows
from headstart.storage.bucket import Address, Location
from headstart.texts import counted


def crops_folder(cache: Location) -> Path:
    """Return the folder for the crops of a cache: ``features/photos-crops`` for ``features/photos.h5``.

    Raises DataError for a cache in a bucket.
    """
    if isinstance(cache, Address):
        raise DataError(f"Crops are kept in a folder on a disk, beside their cache. Received: {cache}.")
    return cache.with_name(f"{cache.stem if cache.suffix == '.h5' else cache.name}-crops")


def images_of(crops: Location) -> str:
    """Return the name of the cache whose crops lie in this file or folder of shards, as :func:`crops_folder` has it."""
    folder = Path(str(crops)).parent
    return str(folder.with_name(f"{folder.name.removesuffix('-crops')}.h5"))


@dataclass(frozen=True, slots=True)
class Crops:
    """Crops of some images of a cache."""

    caches: tuple[FeatureCache, ...]  # one for each number of a crop
    rows: tuple[NDArray[np.int64], ...]  # rows of each cache; shape (n_of_cache,)
    images: NDArray[
        np.int64
    ]  # for each of these rows, one cache after the other, the place of its image among the images

    def __len__(self) -> int:
        return len(self.images)

    def added(self, column: NDArray[Any]) -> NDArray[Any]:
        """Return a column of the images followed by what it says of the image of each crop."""
        return np.concatenate([column, column[self.images]])

    @property
    def note(self) -> str:
        """A sentence on how many there are."""
        n_images = len(np.unique(self.images))
        return (
            f"Fitted on {len(self):,} random crops of {counted(n_images, 'training image')} too; they are never scored."
        )


def open_crops(folder: str | Path, cache: AnyCache, stack: ExitStack) -> tuple[FeatureCache, ...]:
    """Return the caches of crops in a folder, open until the stack ends, by the number of the crop.

    Raises DataError if there are none, and RecipeMismatchError if one was not made as the cache was.
    """
    paths = [path for path in sorted(Path(folder).glob("*")) if not path.name.startswith(".") and is_cache(path)]
    if not paths:
        raise DataError(
            f"There are no crops in {folder}. Expected: a folder that `extract-features --augment N` wrote, e.g. "
            f"{crops_folder(Path(str(cache.path)))}."
        )
    found = {}
    for path in paths:
        opened = stack.enter_context(open_cache(path))
        differences = caches_of(cache)[0].recipe.differences(replace(opened.recipe, random_crop=0))
        if differences:
            raise RecipeMismatchError(
                f"{path} was made by another recipe than {cache.path} (there ≠ here): {'; '.join(differences)}."
            )
        if not opened.recipe.random_crop or opened.recipe.random_crop in found:
            raise DataError(f"{path} holds no crops, or those of another file again. Name a folder of crops alone.")
        found[opened.recipe.random_crop] = opened
    return tuple(found[number] for number in sorted(found))


def crops_of(cache: AnyCache, rows: NDArray[np.int64], caches: Sequence[FeatureCache]) -> Crops:
    """Return the crops of the images in some rows of a cache, known by the digests of the images' bytes."""
    digests = cache.sha256
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows.tolist()):
        places.setdefault(digests[row], []).append(place)
    own_rows, images = [], []
    for one in caches:
        pairs = [(row, place) for digest, row in first_rows(one).items() for place in places.get(digest, ())]
        pairs.sort(key=lambda pair: pair[1])
        own_rows.append(np.array([row for row, _ in pairs], np.int64))
        images.append(np.array([place for _, place in pairs], np.int64))
    return Crops(tuple(caches), tuple(own_rows), np.concatenate([np.empty(0, np.int64), *images]))


def check_single(others: Sequence[Any]) -> None:
    """Raise DataError if crops are given for several caches."""
    if others:
        raise DataError("Crops are those of a single cache.", hint="Leave out `crops`, or all caches but one.")


def refuse_crops(cache: AnyCache) -> None:
    """Raise DataError if a cache holds crops, which are for fits alone."""
    for one in caches_of(cache):
        if one.recipe.random_crop:
            raise DataError(
                f"{one.path} holds random crops of training images, which are for fits alone. Name the cache of the images "
                "themselves.",
                hint="Give the folder of the crops to a fit with `crops`.",
            )
