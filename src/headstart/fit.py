"""Fit one head on a cache, score it on held-out images, and save it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.bundles.bundle import Bundle, check_target, save_bundle, short_digests
from headstart.bundles.trusted_types import check_savable
from headstart.cache.reader import open_cache
from headstart.cache.shards import is_cache
from headstart.decisions.decision_options import DecisionOptions, check_costs, decision_options
from headstart.decisions.rule import DecisionScore
from headstart.errors import DataError
from headstart.evaluate.familiar_images import familiarity_of, n_unfamiliar
from headstart.evaluate.joined_caches import JoinedCache, caches_of, recipes_of
from headstart.evaluate.leakage import seen_in_the_fit
from headstart.evaluate.random_crops import check_single, crops_of, open_crops
from headstart.evaluate.splits import Sides, connected_units, divide, divide_caches
from headstart.evaluate.targets import Target, criterion_for, encoded, target_named
from headstart.exchange.prediction_table import ScoredImages, predictions_csv, split_names
from headstart.heads.catalogue import check_crops, default_head, default_spec, make_head
from headstart.heads.head_specs import fit_with_checks, unweighted_notes
from headstart.heads.out_of_core import Memory, fit_streamed, matrix_fits
from headstart.scores import AnyScore, metric_named
from headstart.selection.choice import choose_setting, on_caches
from headstart.selection.out_of_fold import ChosenRule, check_deciding, choose_by_folds
from headstart.selection.search import (
    Search,
    SearchResult,
    on_cache,
    outputs_for,
    read_with_crops,
    stored_rows,
    what_to_search,
)
from headstart.storage.bucket import Location
from headstart.types import ENSEMBLE, SINGLE_LABEL, HeadSpec


@dataclass(frozen=True, slots=True)
class FitResult:
    """A fitted head and its score.

    Attributes
    ----------
    head : Any
        Fitted on the training rows only.
    spec : HeadSpec
        Its configuration.
    score : Score or NumberScore
        On the validation rows; which one, the target decides.
    split : str
        Description of the split.
    n_train : int
        Training images, and those left out because identical bytes are scored.
    n_dropped : int
    fit_seconds : float
        Time of the fit, without reading the features unless ``streamed``.
    warnings : tuple[str, ...]
        Warnings of the estimator, e.g. on convergence.
    folder : Path | None
        Folder of the saved head.
    streamed : bool
        Whether the head was fitted out of core because the features did not fit in memory.
    search : SearchResult | None
        Result of the hyperparameter search on the training images; None if the setting was given.
    caches : tuple[Location, ...]
        The caches searched, of which ``search.source`` is the number of the chosen one; or those that are ``joined``.
    joined : bool
        Whether the head was fitted on the features of all ``caches`` side by side.
    notes : tuple[str, ...]
        Sentences on classes without training or validation images, and other deviations from the defaults.
    scored : ScoredImages | None
        The validation images with their predictions; also saved as ``predictions.csv`` in ``folder``.
    n_unfamiliar : int | None
        Validation images that the saved head calls unfamiliar (decisions/familiarity.py); None if it was not saved.
    chosen : ChosenRule | None
        How the head decides, and what it was chosen on; None if the most probable class is the decision.
    decision : DecisionScore | None
        How these decisions do on the validation images.
    """

    head: Any
    spec: HeadSpec
    score: AnyScore
    split: str
    n_train: int
    n_dropped: int
    fit_seconds: float
    warnings: tuple[str, ...]
    folder: Path | None
    streamed: bool = False
    search: SearchResult | None = None
    caches: tuple[Location, ...] = ()
    joined: bool = False
    notes: tuple[str, ...] = ()
    scored: ScoredImages | None = None
    n_unfamiliar: int | None = None
    chosen: ChosenRule | None = None
    decision: DecisionScore | None = None


def fit_head(
    cache: str | Location,
    spec: HeadSpec | str | None = None,
    *,
    validation: float | str | Path | None = None,
    output: str | Path | None = None,
    max_memory: int | None = None,
    search: Search | None = None,
    among: Sequence[str | Location] = (),
    join: bool = False,
    crops: str | Path | None = None,
    engine: str = "local",
    address: str | None = None,
    overwrite: bool = False,
    metric: str | None = None,
    positive: str | None = None,
    target: str | Target = SINGLE_LABEL,
    at: str | None = None,
    cost_matrix: str | Path | None = None,
    coverage: float | None = None,
    coverage_per_class: bool = False,
) -> FitResult:
    """Fit a head on some images of a cache, score it on others, and save it.

    Images with identical bytes, and images of one group, are never on both sides. A class without a training image is
    left out of head and score; ``notes`` says so.

    Parameters
    ----------
    cache : str or Path
        A cache with labels.
    spec : HeadSpec or str, optional
        Configuration of the head; or its name in the catalogue, by default ``logistic``, and ``ridge-regression`` for
        numbers; or the import path of a scikit-learn classifier; or
        ``ensemble``, the mean of several heads on one or several of the caches, chosen by the search.
    validation : float, str or Path, optional
        Fraction of the images to hold out; a split of the cache, ``validation`` or ``test``; or another cache of the
        same recipe. By default the cache's own split if it can be scored, otherwise a quarter of the images.
    output : str or Path, optional
        Folder for the saved head; None saves nothing. A head that is there is replaced with ``overwrite`` only.
    max_memory : int, optional
        Memory limit in bytes, by default half of what is free. If the features do not fit, dense, logistic and ridge
        heads are fitted out of core (:mod:`headstart.heads.out_of_core`).
    search : str, optional
        What to choose by cross-validation on the training images: ``none``; ``params``, the parameters of the
        catalogue's grid not set by the spec; ``features``, those and the features. The default is ``features`` for
        ``logistic``, ``linear-svm`` and ``ridge`` given by name, otherwise ``none``.
    among : sequence of str or Path
        Further caches of the same images (e.g. of another input size) to choose from. Images and split are those of the
        first cache.
    join : bool
        Fit on the features of all of these caches side by side, each cache scaled on its own, instead of choosing one; of an
        ensemble, members may then be heads on all caches, too.
    crops : str or Path, optional
        Folder of random crops of the training images (extract/run.py), to fit on them too, also in the search.
    engine, address : str
        Where the search runs: ``local``, or ``ray`` for a cluster, at an address, e.g. ``auto``, or started on this machine.
        The final fit always runs in this process.
    metric : str
        Metric that the search goes by: ``accuracy``, the default, ``balanced_accuracy``, ``f1_macro``, ``roc_auc_ovr``,
        ``average_precision`` or ``log_loss``; for numbers ``rmse``, the default, ``mae``, ``r2`` or ``spearman``.
    positive : str, optional
        The positive class, for sensitivity, specificity, predictive values and average precision.
    target : str or Target
        What to predict: a name in ``headstart.evaluate.targets.TARGETS``; ``number`` is the column ``target`` of a manifest,
        ``order`` takes classes that are numbers as ordered levels. Or a target, e.g. ``Order(("low", "middle", "high"))``, or
        ``Normal("functional")`` for heads fitted on one class alone.
    at : str, optional
        What the threshold on the probability of the positive class is chosen for: ``recall=0.95``, ``precision=0.9`` or
        ``cost=fn:10,fp:1``, on predictions of the training images by heads that were not fitted on them.
    cost_matrix : str or Path, optional
        CSV file with what each decision costs for each true class; the decision has the lowest expected cost.
    coverage : float, optional
        Share of the images whose set of classes is to hold the true one (headstart/decisions/conformal.py).
    coverage_per_class : bool
        Reach the coverage for the images of each class.

    Raises
    ------
    DataError
        If there are no labels, the split is not possible, or another cache does not hold the same images.
    RecipeMismatchError
        If the validation cache was made by another recipe.
    ParameterError
        If there is no such metric, positive class or target, or the head cannot predict the target, or decide as asked.
    BundleError
        If ``output`` exists and may not be replaced, or the head cannot be saved.
    """
    spec = spec or default_head(target_named(target).tasks[0])
    if search is None:
        search = what_to_search(spec) if isinstance(spec, str) else "none"
    spec = default_spec(spec) if isinstance(spec, str) else spec
    predicted = target_named(target, [spec.type])
    metric_named(metric or predicted.choices[0], predicted.choices)  # refused before the work
    deciding = decision_options(at, positive, cost_matrix, coverage, per_class=coverage_per_class)
    check_deciding(deciding, spec)
    _check_caches(among, validation, search, join=join)
    _check_crops(crops, spec, among)
    if output is not None:
        check_target(Path(output), overwrite=overwrite)  # before the fit, not after it
        check_savable(spec)
    with ExitStack() as stack:
        train, *others = (encoded(stack.enter_context(open_cache(path)), predicted) for path in (cache, *among))
        tried = tuple(one.path for one in (train, *others))
        if search != "none" and "anomaly" in predicted.tasks:
            raise DataError(
                "The setting of a head for anomalies is not searched in a fit, which sees normal images alone.",
                hint="Leave out `search`; a comparison of heads chooses by the others.",
            )
        strata = predicted.stratify(outputs_for(train, np.arange(train.n_images)))
        if _is_another_cache(validation):
            scored = encoded(stack.enter_context(open_cache(str(validation))), predicted)
            sides = divide_caches(train, scored)
        else:
            sides = divide(train, validation, spec.random_state, strata)
        sides = _with_crops(sides, crops, stack)
        if join and spec.type != ENSEMBLE:
            sides, others = sides.joined(others), []
        predicted.positive_index(positive, sides.class_names)  # refused before the fit, not after it
        check_costs(deciding, sides.class_names)
        criterion = criterion_for(predicted, metric, positive, train.class_names)
        try:
            found = choose_setting(sides, others, spec, search, engine, address, criterion, strata, join=join)
        except DataError as error:  # too few images for it
            if others or engine != "local" or spec.type == ENSEMBLE:
                raise
            found, sides = None, replace(sides, notes=(*sides.notes, f"No setting was searched: {error}"))
        if found is None:
            spec = on_cache(sides.train, spec)
            return _fit_on(
                sides, spec, predicted, output, max_memory, overwrite=overwrite, positive=positive, deciding=deciding
            )
        sides = on_caches(sides, others, found.used or (found.source,))
        result = _fit_on(
            sides, found.spec, predicted, output, max_memory, overwrite=overwrite, positive=positive, deciding=deciding
        )
        return replace(result, search=found, caches=result.caches if found.used else tried)


def _check_caches(
    among: Sequence[str | Location], validation: float | str | Path | None, search: Search, *, join: bool
) -> None:
    """Raise DataError where several caches cannot be chosen among, or joined."""
    if join and _is_another_cache(validation):
        raise DataError(
            "Of several caches side by side, no other cache can be scored.",
            hint="Hold out a split or a fraction of the images (`validation`).",
        )
    if among and not join and (search == "none" or _is_another_cache(validation)):
        raise DataError(
            "Choosing among several caches needs a search on images that are in all of them.",
            hint="Leave out `search='none'`, and hold out a split or a fraction of the images instead of another cache; or "
            "use all caches side by side: `join=True`.",
        )


def _check_crops(folder: str | Path | None, spec: HeadSpec, among: Sequence[str | Location]) -> None:
    """Raise DataError where crops are given, and a head cannot be fitted on them, or there are several caches."""
    if folder is not None:
        check_crops(spec)
        check_single(among)


def _with_crops(sides: Sides, folder: str | Path | None, stack: ExitStack) -> Sides:
    """Return the sides with the crops of their training images, where there are any, and a sentence on them."""
    if folder is None:
        return sides
    crops = crops_of(sides.train, sides.split.train, open_crops(folder, sides.train, stack))
    return replace(sides, crops=crops, notes=(*sides.notes, crops.note))


def _is_another_cache(validation: float | str | Path | None) -> bool:
    return isinstance(validation, str | Path) and is_cache(validation)


def _fit_on(
    sides: Sides,
    spec: HeadSpec,
    target: Target,
    output: str | Path | None,
    max_memory: int | None,
    *,
    overwrite: bool,
    positive: str | None,
    deciding: DecisionOptions | None,
) -> FitResult:
    sides = replace(sides, notes=(*sides.notes, *seen_in_the_fit(sides)))
    train, validation, split = sides.train, sides.validation, sides.split
    joined = isinstance(train, JoinedCache)
    rows, memory = stored_rows(sides, spec), Memory(max_memory)
    streamed = not matrix_fits(spec.type, rows.shape, memory)
    features = None if streamed else read_with_crops(train, spec.features, split.train, sides.crops)
    y, weights, groups = sides.y_train, sides.weights, None
    if sides.crops is not None:
        y, weights = sides.crops.added(y), None if weights is None else sides.crops.added(weights)
        groups = sides.crops.added(np.arange(len(split.train)))
    head = make_head(spec)
    sides = replace(sides, notes=(*sides.notes, *unweighted_notes(head, spec.type, sides.weights)))
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if streamed:
            fit_streamed(head, spec.type, rows, y, memory, weights, groups)
        else:
            fit_with_checks(head, spec.type, features, y, weights, groups)
    fit_seconds = time.perf_counter() - start
    del features
    chosen = choose_by_folds(sides, spec, target, deciding, streamed=streamed) if deciding else None
    bundle = Bundle(
        head=head,
        spec=spec,
        recipe=recipes_of(train)[0],
        joined_recipes=recipes_of(train)[1:],
        class_names=sides.class_names,
        training_digests=np.unique(short_digests(train.sha256)[split.train]),
        target=target.name,
        decision=chosen.rule if chosen else None,
    )
    outputs = bundle.outputs(validation.batches(split.validation, finite=True), recipes_of(validation))
    found: AnyScore = target.metrics(
        sides.y_validation,
        outputs,
        sides.class_names,
        target.positive_index(positive, sides.class_names),
        connected_units(split.validation, validation.sha256, validation.groups),
    )
    splits = split_names(validation.splits, split.validation)
    paths = [validation.paths[row] for row in split.validation.tolist()]
    scored = ScoredImages(paths, sides.y_validation, outputs, sides.class_names, splits)
    decision = chosen.rule.score(sides.y_validation, outputs, sides.class_names) if chosen else None
    folder, unfamiliar = None, None
    if output is not None:
        bundle, unfamiliar = _with_familiarity(bundle, sides)
        details = {
            "cache": str(train.path),
            **({"joined_caches": [str(one.path) for one in caches_of(train)[1:]]} if joined else {}),
            "split": split.description,
            "n_train": len(split.train),
            "fit_seconds": fit_seconds,
            "streamed": streamed,
            "notes": list(sides.notes),
            "classes_left_out": list(sides.left_out),
            "n_unfamiliar": unfamiliar,
            **({"decision": decision.to_dict()} if decision else {}),
        }
        metrics, predictions = found.to_dict() | details, predictions_csv([scored])
        folder = save_bundle(Path(output), bundle, metrics=metrics, predictions=predictions, overwrite=overwrite)
    return FitResult(
        head=head,
        spec=spec,
        score=found,
        split=split.description,
        n_train=len(split.train),
        n_dropped=split.n_dropped,
        fit_seconds=fit_seconds,
        warnings=tuple(dict.fromkeys(str(warning.message) for warning in caught)),
        folder=folder,
        streamed=streamed,
        caches=tuple(one.path for one in caches_of(train)),
        joined=joined,
        notes=sides.notes,
        scored=scored,
        n_unfamiliar=unfamiliar,
        chosen=chosen,
        decision=decision,
    )


def _with_familiarity(bundle: Bundle, sides: Sides) -> tuple[Bundle, int | None]:
    """Return a bundle that knows its training images, and how many validation images are unfamiliar to it."""
    split = sides.split
    found = familiarity_of(sides.train, split.train, sides.y_train, sides.class_names, bundle.spec.random_state)
    n = n_unfamiliar(found, sides.validation, split.validation) if found else None
    return replace(bundle, familiarity=found), n
