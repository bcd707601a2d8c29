"""The settings that a search tries, and the images it looks at for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from headstart.heads.catalogue import default_spec, head_kind
from headstart.heads.transforms import design_matrix
from headstart.heads.trials import Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.cache.store import FeatureCache
    from headstart.schema import HeadSpec

#: What a search may choose: nothing, the parameters of the catalogue's grid that are not given, or the features too.
Search = Literal["none", "params", "features"]

#: Heads that are searched unless asked otherwise: it takes them a second or two.
SEARCHED_BY_DEFAULT = frozenset({"logistic", "linear-svm", "ridge"})

#: Features tried where none are named, beside a head's own, the fewest columns first: on photographs the last block's average
#: is best, on textures (as solar cells) the fourth block joined to it is (benchmarks/results).
SEARCHED_FEATURES = (("avg",), ("block4_conv3", "avg"))

#: Images a search looks at, at most; drawn by class. Kernels take time and memory that grow with their square.
MAX_IMAGES = 20_000
MAX_KERNEL_IMAGES = 5_000

#: Values of a table at most, 400 MB: of flattened maps some 4,000 images are enough to choose by.
MAX_VALUES = 100_000_000

#: Folds of a search.
N_SPLITS = 5


def what_to_search(
    head_type: str, *, asked: bool | None = None, features_given: bool = False, complete: bool = False
) -> Search:
    """Return what is chosen by cross-validation, for ``fit-head`` and ``fit_head`` alike.

    Parameters
    ----------
    head_type : str
        Name in the catalogue.
    asked : bool, optional
        Whether a search was asked for; the default is that of the type.
    features_given : bool
        Features that are named are not searched.
    complete : bool
        Whether features and parameters are given as a whole, as by a file: then nothing is searched unless asked for.
    """
    if not (head_type in SEARCHED_BY_DEFAULT and not complete if asked is None else asked):
        return "none"
    return "params" if features_given or complete else "features"


def candidates(
    cache: FeatureCache,
    head_type: str,
    *,
    features: Sequence[str] | None,
    scaling: str | None,
    params: Mapping[str, Any],
    random_state: int,
) -> list[HeadSpec]:
    """Return the settings to try, the simplest first: the catalogue's grid, but for what is given."""
    kind = head_kind(head_type, scaling)
    grid = {name: values for name, values in kind.grid.items() if name not in params}
    known = {"avg", *cache.recipe.pooled_layers}
    searched = [names for names in SEARCHED_FEATURES if known.issuperset(names)]
    default = [kind.features] if kind.features == ("flatten",) else [*searched, kind.features]
    return [
        default_spec(
            head_type,
            features=names,
            scaling=scaling,
            random_state=random_state,
            params={**params, **dict(zip(grid, values, strict=True))},
        )
        for names in ([tuple(features)] if features else dict.fromkeys(default))
        for values in product(*grid.values())
    ]


def most_images(cache: FeatureCache, specs: Sequence[HeadSpec]) -> int:
    """Return how many images a search over these settings can bear."""
    widest = specs[-1].features  # candidates come with the fewest features first
    width: int = design_matrix(cache.batches([0]), widest, pooled_layers=cache.recipe.pooled_layers).shape[1]
    limit = MAX_KERNEL_IMAGES if specs[0].type == "rbf-svm" else MAX_IMAGES
    return min(limit, max(1, MAX_VALUES // width))


def sample(
    labels: NDArray[np.int64], rows: NDArray[np.int64], limit: int, random_state: int
) -> tuple[NDArray[np.int64], list[str]]:
    """Return the rows that a search looks at, ascending, and what to say of it: as many as it can bear, drawn by class."""
    if len(rows) <= limit:
        return rows, []
    rng = np.random.default_rng(random_state)
    kept = []
    for label in np.unique(labels[rows]):
        members = rows[labels[rows] == label]
        wanted = min(len(members), max(N_SPLITS, round(limit * len(members) / len(rows))))
        kept.append(rng.choice(members, wanted, replace=False))
    chosen = np.sort(np.concatenate(kept))
    return chosen, [f"The setting was chosen on {len(chosen):,} of {len(rows):,} training images, drawn by class."]


def make_tables(
    cache: FeatureCache, specs: Sequence[HeadSpec], rows: NDArray[np.int64]
) -> dict[tuple[tuple[str, ...], str], Table]:
    """Return the table of each choice of features and scaling."""
    matrices: dict[tuple[str, ...], NDArray[np.float32]] = {}
    tables = {}
    for spec in specs:
        if spec.features not in matrices:
            matrices[spec.features] = design_matrix(
                cache.batches(rows, finite=True),
                spec.features,
                pooled_layers=cache.recipe.pooled_layers,
                n_samples=len(rows),
            )
        tables[spec.features, spec.scaling] = Table(matrices[spec.features], spec.features, spec.scaling)
    return tables
