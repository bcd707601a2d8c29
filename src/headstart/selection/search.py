"""Choose the setting of a head by cross-validation on training images alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headstart.cache.reader import FeatureCache
from headstart.evaluate.folds import Folds, make_folds
from headstart.evaluate.joined_caches import AnyCache, JoinedCache, least_classes, outputs_of
from headstart.evaluate.random_crops import Crops, crops_of
from headstart.evaluate.splits import Sides
from headstart.evaluate.targets import target_of
from headstart.heads.catalogue import default_spec, head_kind
from headstart.heads.entries.head_entry import HeadType
from headstart.heads.grid_predictions import Table
from headstart.heads.head_specs import by_cache, numbered
from headstart.heads.out_of_core import ReadRows
from headstart.heads.transforms import design_matrix, join
from headstart.scores import ACCURACY, Criterion, metric_named
from headstart.selection.cross_validation import Trial, best_trial, cross_validate, make_pool, search_notes
from headstart.types import FeatureBatch, HeadSpec

#: Scope of a search: nothing, the parameters of the catalogue's grid that are not given, or the features too.
Search = Literal["none", "params", "features"]

#: Features tried where none are named, beside a head's own, the fewest columns first: on photographs the last block's average
#: is best, on textures (as solar cells) the fourth block joined to it is (benchmarks/results). For EfficientNet-Lite the last
#: inner layer joined to ``avg`` is not tried: it doubles the time, and in nested cross-validation gained −0.004 to 0.006 on
#: hymenoptera, at most 1.5 standard errors, and 0.008 ± 0.004 on flowers17 (Lite0, ridge; benchmarks/searched_features.py).
SEARCHED_FEATURES = (("avg",), ("block4_conv3", "avg"))

#: Values of a table at most, 400 MB: of flattened maps some 4,000 images are enough to choose by.
MAX_VALUES = 100_000_000

#: Folds of a search.
N_SPLITS = 5


def what_to_search(
    head_type: str, *, asked: bool | None = None, features_given: bool = False, complete: bool = False
) -> Search:
    """Return the scope of a search; unless it is asked for or not, by the type of head.

    Features that are given are not searched. Where features and parameters are given as a whole (``complete``), e.g. by a
    file, nothing is searched unless asked for.
    """
    if asked is None:
        asked = "fit-head" in head_kind(head_type).searched_by and not complete
    if not asked:
        return "none"
    return "params" if features_given or complete else "features"


def candidates(
    cache: AnyCache,
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
    return [
        on_cache(
            cache,
            default_spec(
                head_type,
                features=names,
                scaling=scaling,
                random_state=random_state,
                params={**params, **dict(zip(grid, values, strict=True))},
            ),
        )
        for names in feature_choices(cache, kind, features)
        for values in product(*grid.values())
    ]


def feature_choices(cache: AnyCache, kind: HeadType, features: Sequence[str] | None) -> list[tuple[str, ...]]:
    """Return the features to try, the fewest first; of a join, every combination of those of its caches."""
    if isinstance(cache, JoinedCache):
        given = by_cache(features, len(cache.caches)) if features else [None] * len(cache.caches)
        of_each = (feature_choices(one, kind, names) for one, names in zip(cache.caches, given, strict=True))
        return [numbered(names) for names in product(*of_each)]
    if features:
        return [tuple(features)]
    if kind.features == ("flatten",):
        return [kind.features]
    known = {"avg", *cache.recipe.pooled_layers}
    searched = [names for names in SEARCHED_FEATURES if known.issuperset(names)]
    return list(dict.fromkeys([*searched, kind.features]))


def on_cache(cache: AnyCache, spec: HeadSpec) -> HeadSpec:
    """Return a spec for a cache: for a join, its features have the numbers of their caches, and it has their widths."""
    if not isinstance(cache, JoinedCache):
        return spec
    names = by_cache(spec.features, len(cache.caches))
    widths = tuple(n_columns(one, own) for one, own in zip(cache.caches, names, strict=True))
    return replace(spec, features=numbered(names), widths=widths)


def n_columns(cache: AnyCache, features: Sequence[str]) -> int:
    """Return how many columns some features of a cache have."""
    if isinstance(cache, JoinedCache):
        names = by_cache(features, len(cache.caches))
        return sum(n_columns(one, own) for one, own in zip(cache.caches, names, strict=True))
    maps, averages = np.zeros((1, *cache.map_shape), np.float32), np.zeros((1, cache.n_pooled), np.float32)
    return int(join(FeatureBatch(maps, averages, cache.pooled_column_layer), features).shape[1])


def most_images(cache: AnyCache, specs: Sequence[HeadSpec]) -> int:
    """Return how many images a search over these settings can bear."""
    widest = specs[-1].features  # candidates come with the fewest features first
    return min(head_kind(specs[0].type).max_search_images, max(1, MAX_VALUES // n_columns(cache, widest)))


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


def outputs_for(cache: AnyCache, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return what is to be predicted for some rows: classes, or numbers."""
    outputs = outputs_of(cache)
    return (cache.labels if outputs is None else outputs)[rows]


def read_features(cache: AnyCache, features: Sequence[str], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return what a head is fitted on for some rows of a cache, shape (n_rows, n_features), float32."""
    return design_matrix(cache.batches(rows, finite=True), features, n_samples=len(rows))


def read_with_crops(
    cache: AnyCache, features: Sequence[str], rows: NDArray[np.int64], crops: Crops | None
) -> NDArray[np.float32]:
    """Return what :func:`read_features` does, followed by a row for each crop of these images."""
    own = read_features(cache, features, rows)
    if crops is None:
        return own
    parts = zip(crops.caches, crops.rows, strict=True)
    return np.concatenate([own, *(read_features(one, features, of_one) for one, of_one in parts if len(of_one))])


def stored_rows(sides: Sides, spec: HeadSpec) -> ReadRows:
    """Return the head's input for the training images and their crops, read on demand."""
    sources: list[tuple[AnyCache, NDArray[np.int64]]] = [(sides.train, sides.split.train)]
    if sides.crops is not None:
        sources += zip(sides.crops.caches, sides.crops.rows, strict=True)
    starts = np.cumsum([0, *(len(rows) for _, rows in sources)])

    def read(numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        which = np.searchsorted(starts, numbers, side="right") - 1
        parts = {
            source: read_features(cache, spec.features, rows[numbers[which == source] - starts[source]])
            for source, (cache, rows) in enumerate(sources)
            if (which == source).any()
        }
        if len(parts) == 1:
            return next(iter(parts.values()))
        found = np.empty((len(numbers), next(iter(parts.values())).shape[1]), np.float32)
        for source, part in parts.items():
            found[which == source] = part
        return found

    return ReadRows(read, (int(starts[-1]), read(np.arange(1)).shape[1]))


def make_tables(
    cache: AnyCache,
    specs: Sequence[HeadSpec],
    rows: NDArray[np.int64],
    weights: NDArray[np.float64] | None,
    crops: Crops | None = None,
) -> dict[tuple[tuple[str, ...], str], Table]:
    """Return the table of each choice of features and scaling; ``weights`` are those of the rows, None for ones.

    ``crops`` are those of the images in these rows, which a fit takes too.
    """
    if crops is not None and weights is not None:
        weights = crops.added(weights)
    matrices: dict[tuple[str, ...], NDArray[np.float32]] = {}
    tables = {}
    for spec in specs:
        if spec.features not in matrices:
            matrices[spec.features] = read_with_crops(cache, spec.features, rows, crops)
        X = matrices[spec.features]
        tables[spec.features, spec.scaling] = Table(
            X, spec.features, spec.scaling, spec.widths, weights, None if crops is None else crops.images
        )
    return tables


def search_folds(
    cache: AnyCache,
    rows: NDArray[np.int64],
    units: NDArray[np.intp] | None,
    strata: NDArray[np.int64] | None,
    n_splits: int,
    random_state: int,
) -> Folds:
    """Return the folds of a search over some rows; ``units`` and ``strata`` are those of all rows of the cache."""
    sha256, groups = cache.sha256, cache.groups
    return make_folds(
        cache.labels[rows],
        n_splits=n_splits,
        sha256=[sha256[row] for row in rows.tolist()],
        groups=[groups[row] for row in rows.tolist()],
        units=None if units is None else units[rows],
        strata=None if strata is None else strata[rows],
        random_state=random_state,
        class_names=cache.class_names,
        least=least_classes(cache),
    )


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Result of a search."""

    spec: HeadSpec  # the setting to take
    trials: tuple[Trial, ...]  # all settings, in the order of the grid: the simplest first
    folds: str
    seconds: float  # time without reading the features
    notes: tuple[str, ...] = ()
    source: int = 0  # number of the chosen cache, of several with the same images
    used: tuple[int, ...] = ()  # of an ensemble, the numbers of the caches that its members need


def search_head(
    cache: AnyCache,
    head_type: str,
    rows: NDArray[np.int64],
    *,
    features: Sequence[str] | None = None,
    scaling: str | None = None,
    params: Mapping[str, Any] | None = None,
    others: Sequence[tuple[AnyCache, NDArray[np.int64]]] = (),
    crops: Sequence[FeatureCache] = (),
    units: NDArray[np.intp] | None = None,
    strata: NDArray[np.int64] | None = None,
    n_splits: int = N_SPLITS,
    n_jobs: int | None = None,
    engine: str = "local",
    address: str | None = None,
    random_state: int = 0,
    criterion: Criterion = ACCURACY,
) -> SearchResult:
    """Return the setting of a head that predicts held-out images best, by a cross-validated score.

    The first of equal ones wins: the first cache, fewer features, then the order of the catalogue's grid.

    Parameters
    ----------
    rows : ndarray of shape (n_rows,), int64
        Training rows, ascending, all labelled. No other row is read. Fits are weighted as the cache says; scores are not.
    features, scaling, params
        Given values, which are not searched.
    others : sequence of (FeatureCache, rows), optional
        Other caches, and their rows of the same images in the same order (evaluate/splits.py): input sizes, layers and
        whatever else differs between them are chosen too.
    crops : sequence of FeatureCache
        Caches of random crops (extract/run.py): those of the training images of a fold are fitted on too.
    units : ndarray of shape (n_images,), int, optional
        Rows of one unit stay together, beside those of the same bytes or group.
    strata : ndarray of shape (n_images,), int64, optional
        What the folds keep in proportion; by default the labels.
    n_splits, n_jobs : int
        Folds, fewer where a class has fewer images; and folds at a time, by default one per processor.
    engine, address, criterion
        As ``engine``, ``address``, ``metric`` and ``positive`` of :func:`headstart.fit.fit_head`.
    random_state : int
        Seeds the folds, and what is random in the head.

    Raises
    ------
    DataError
        If there are too few images to divide.
    HeadstartError
        If there is no such head, feature, scaling, parameter or metric.
    """
    metric_named(criterion.metric, target_of(criterion).choices)
    given: dict[str, Any] = {
        "features": features, "scaling": scaling, "params": params or {}, "random_state": random_state
    }  # fmt: skip
    sources = [
        (source, source_rows, candidates(source, head_type, **given))
        for source, source_rows in [(cache, rows), *others]
    ]
    limit = min(most_images(source, specs) for source, _, specs in sources) // (1 + len(crops))
    chosen, notes = sample(cache.labels, rows, limit, random_state)
    labels = outputs_for(cache, chosen)
    weights = None if cache.weights is None else cache.weights[chosen]
    folds = search_folds(cache, chosen, units, strata, n_splits, random_state)
    trials: list[Trial] = []
    seconds = 0.0
    with make_pool(engine, address, n_jobs) as pool:
        for number, (source, source_rows, specs) in enumerate(sources):
            own = crops_of(cache, chosen, crops) if crops else None
            tables = make_tables(source, specs, source_rows[np.searchsorted(rows, chosen)], weights, own)
            start = time.perf_counter()
            found = cross_validate(specs, tables, labels, folds.splits, pool=pool, criterion=criterion)
            seconds += time.perf_counter() - start
            trials += [replace(trial, source=number) for trial in found]
    best = best_trial(trials)
    return SearchResult(
        spec=best.spec,
        trials=tuple(trials),
        folds=folds.description,
        seconds=seconds,
        notes=(*notes, *folds.notes, *search_notes(trials, best)),
        source=best.source,
    )
