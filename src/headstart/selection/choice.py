"""The setting of one head, or the members of an ensemble, chosen on the training side of a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache.reader import FeatureCache
from headstart.errors import DataError
from headstart.evaluate.joined_caches import caches_of
from headstart.evaluate.splits import Sides
from headstart.scores import Criterion
from headstart.selection.ensemble_members import search_ensemble
from headstart.selection.search import Search, SearchResult, candidates, search_head
from headstart.types import ENSEMBLE, HeadSpec


def choose_setting(
    sides: Sides,
    others: Sequence[FeatureCache],
    spec: HeadSpec,
    search: Search,
    engine: str,
    address: str | None,
    criterion: Criterion,
    strata: NDArray[np.int64],
    *,
    join: bool,
) -> SearchResult | None:
    """Return the result of the search; None if there is nothing to choose."""
    train, rows = sides.train, sides.split.train
    in_others = [(other, sides.within(other).split.train) for other in others]
    if spec.type == ENSEMBLE and not spec.params:
        return choose_members(sides, in_others, spec, search, engine, address, criterion, strata, join=join)
    given: dict[str, Any] = {
        "features": None if search == "features" else spec.features,
        "scaling": spec.scaling,
        "params": spec.params,
        "random_state": spec.random_state,
    }
    if search == "none" or (not others and len(candidates(train, spec.type, **given)) == 1):
        if engine != "local":
            raise DataError(
                f"`engine` is for searches, and there is nothing to choose (search: {search}).",
                hint="Leave out `engine`, or enable a search.",
            )
        return None
    return search_head(
        train,
        spec.type,
        rows,
        others=in_others,
        crops=() if sides.crops is None else sides.crops.caches,
        strata=strata,
        engine=engine,
        address=address,
        criterion=criterion,
        **given,
    )


def choose_members(
    sides: Sides,
    others: Sequence[tuple[FeatureCache, NDArray[np.int64]]],
    spec: HeadSpec,
    search: Search,
    engine: str,
    address: str | None,
    criterion: Criterion,
    strata: NDArray[np.int64],
    *,
    join: bool,
) -> SearchResult:
    """Return the members of an ensemble; ``others`` are the further caches with their training rows."""
    if search == "none":
        raise DataError("The members of an ensemble are chosen by a search.", hint="Leave out `search='none'`.")
    (first,), rows = caches_of(sides.train), sides.split.train
    return search_ensemble(
        [first, *(other for other, _ in others)],
        [rows, *(own for _, own in others)],
        join=join,
        features=None if search == "features" else spec.features,
        scaling=None if spec.scaling == "none" else spec.scaling,
        strata=strata,
        engine=engine,
        address=address,
        random_state=spec.random_state,
        criterion=criterion,
    )


def on_caches(sides: Sides, others: Sequence[FeatureCache], numbers: Sequence[int]) -> Sides:
    """Return the same images in one of several caches, the first of which has number 0, or side by side in some of them."""
    first, *more = numbers
    sides = sides.within(others[first - 1]) if first else sides
    return sides.joined([others[number - 1] for number in more]) if more else sides
