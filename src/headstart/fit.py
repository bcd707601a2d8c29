"""Fit one head on a cache, score it on images it has not seen, and save it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.bundles.bundle import Bundle, check_target, save_bundle, short_digests
from headstart.bundles.trusted_types import check_savable
from headstart.cache.reader import FeatureCache, open_cache
from headstart.cache.sharded.shard_folder import is_cache
from headstart.errors import DataError
from headstart.evaluate.held_out import Sides, divide, divide_caches
from headstart.evaluate.leakage import seen_in_the_fit
from headstart.evaluate.metrics import score
from headstart.evaluate.splits import connected_units
from headstart.exchange.prediction_table import ScoredImages, predictions_csv, split_names
from headstart.heads.by_import_path import fit_with_checks
from headstart.heads.catalogue import default_spec, make_head
from headstart.heads.fitting.packed_rows import ReadRows
from headstart.heads.out_of_core import Memory, fit_streamed, matrix_fits
from headstart.heads.transforms import design_matrix
from headstart.scores import Criterion, class_index, metric_named
from headstart.selection.search import Search, SearchResult, candidates, search_head, what_to_search

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.scores import Score
    from headstart.storage.address import Location
    from headstart.types import HeadSpec


@dataclass(frozen=True, slots=True)
class FitResult:
    """A fitted head and how good it is.

    Attributes
    ----------
    head : estimator
        Fitted on the training rows alone.
    spec : HeadSpec
        What it was fitted on and with.
    score : Score
        On the validation rows.
    split : str
        How the rows were divided.
    n_train, n_dropped : int
        Images fitted on, and training images left out because the same bytes are scored on.
    fit_seconds : float
        Of the fit alone, features in memory.
    warnings : tuple of str
        What the estimator had to say, as of a fit that did not converge.
    folder : Path or None
        Where the bundle was saved.
    streamed : bool
        Whether the features did not fit in memory; the time of the fit then has that of reading them in it.
    search : SearchResult or None
        How its setting was chosen, on the training images alone; None where it was given.
    caches : tuple of Path or Address
        Those that were chosen among; of the first one alone where there was no choice. ``search.source`` is a place in it.
    notes : tuple of str
        Classes without an image to fit on, or none scored, and what else could not be done as it is by default.
    scored : ScoredImages or None
        The validation images, and what the head takes each one for; also ``predictions.csv`` in ``folder``.
    """

    head: Any
    spec: HeadSpec
    score: Score
    split: str
    n_train: int
    n_dropped: int
    fit_seconds: float
    warnings: tuple[str, ...]
    folder: Path | None
    streamed: bool = False
    search: SearchResult | None = None
    caches: tuple[Location, ...] = ()
    notes: tuple[str, ...] = ()
    scored: ScoredImages | None = None


def fit_head(
    cache: str | Location,
    spec: HeadSpec | str = "logistic",
    *,
    validation: float | str | Path | None = None,
    output: str | Path | None = None,
    max_memory: int | None = None,
    search: Search | None = None,
    among: Sequence[str | Location] = (),
    engine: str = "local",
    address: str | None = None,
    overwrite: bool = False,
    metric: str = "accuracy",
    positive: str | None = None,
) -> FitResult:
    """Fit a head on some images of a cache, score it on others, and save it.

    Images with identical bytes, and images of one group, never sit on both sides. A class without an image to fit on is left
    out of the head and of the score, and ``notes`` says so.

    Parameters
    ----------
    cache : str or Path
        A cache with labels.
    spec : HeadSpec or str
        What to fit, on which features; a name alone is a head with the catalogue's defaults where nothing is searched, and
        an import path any scikit-learn classifier.
    validation : float, str or Path, optional
        A fraction of the images to hold out; ``validation`` or ``test``, a split of the cache; or another cache of the same
        recipe. The default is the cache's own split if it has one that can be scored, else a quarter of the images.
    output : str or Path, optional
        Folder of the bundle; None saves nothing.
    max_memory : int, optional
        Bytes that the process may take. Where the matrix of features and the work space would not fit, dense, logistic and
        ridge are fitted without it (:mod:`headstart.heads.out_of_core`). The default is half of what is free.
    search : str, optional
        What to choose by cross-validation on the training images, which the score has no part in: ``none``; ``params``, the
        parameters of the catalogue's grid that the spec does not name; ``features``, those and the features too. The default
        is that of ``fit-head``: ``features`` for ``logistic``, ``linear-svm`` and ``ridge`` named by their type alone, and
        ``none`` for other types and for a ``HeadSpec``, which is fitted as it is.
    among : sequence of str or Path
        Other caches of the same images, as of another input size: the search chooses one of all. The images, and what of
        them is held out, are those of the first cache.
    engine : str
        Who searches: ``local``, this process; or ``ray``, the workers of a cluster. The head itself is fitted here.
    address : str, optional
        Of the cluster, as ``auto``; the default starts one on this machine.
    overwrite : bool
        Replace a head that is saved in ``output`` already.
    metric : str
        What the search goes by: ``accuracy``, ``balanced_accuracy``, ``f1_macro``, ``roc_auc_ovr``, ``average_precision`` or
        ``log_loss``.
    positive : str, optional
        The positive class, whose sensitivity, specificity, predictive values and average precision the score has.

    Raises
    ------
    DataError
        If there are no labels, they cannot be divided as asked, or another cache does not hold the same images.
    RecipeMismatchError
        If the other cache was made by another recipe; the message names the fields.
    ParameterError
        If there is no such metric, or no such positive class.
    BundleError
        If something lies where the head is to be saved that is not to be replaced, or it cannot be saved.
    """
    if search is None:
        search = what_to_search(spec) if isinstance(spec, str) else "none"
    spec = default_spec(spec) if isinstance(spec, str) else spec
    metric_named(metric)  # refused before the work
    if among and (search == "none" or _is_another_cache(validation)):
        raise DataError(
            "Which of several caches is best is found by a search, on images that lie in all of them. Leave out --no-search, "
            "and hold out a split or a fraction of the images instead of another cache."
        )
    if output is not None:
        check_target(Path(output), overwrite=overwrite)  # before the fit, not after it
        check_savable(spec)
    with ExitStack() as stack:
        train, *others = (stack.enter_context(open_cache(path)) for path in (cache, *among))
        if _is_another_cache(validation):
            scored = stack.enter_context(open_cache(str(validation)))
            sides = divide_caches(train, scored)
        else:
            sides = divide(train, validation, spec.random_state)
        class_index(positive, sides.class_names)  # refused before the fit, not after it
        criterion = Criterion(metric, class_index(positive, train.class_names))
        try:
            found = _choose(sides, others, spec, search, engine, address, criterion)
        except DataError as error:  # too few images for it
            if others or engine != "local":
                raise
            found, sides = None, replace(sides, notes=(*sides.notes, f"No setting was searched: {error}"))
        if found is None:
            return _fit_on(sides, spec, output, max_memory, overwrite=overwrite, positive=positive)
        if found.source:
            sides = sides.within(others[found.source - 1])
        result = _fit_on(sides, found.spec, output, max_memory, overwrite=overwrite, positive=positive)
        return replace(result, search=found, caches=(train.path, *(other.path for other in others)))


def _choose(
    sides: Sides,
    others: Sequence[FeatureCache],
    spec: HeadSpec,
    search: Search,
    engine: str,
    address: str | None,
    criterion: Criterion,
) -> SearchResult | None:
    """Return the setting that a search chooses; None where there is nothing to choose."""
    train, rows = sides.train, sides.split.train
    given: dict[str, Any] = {
        "features": None if search == "features" else spec.features,
        "scaling": spec.scaling,
        "params": spec.params,
        "random_state": spec.random_state,
    }
    if search == "none" or (not others and len(candidates(train, spec.type, **given)) == 1):
        if engine != "local":
            raise DataError(
                f"A cluster searches for the setting of a head, and there is nothing to choose (search: {search}). Leave out "
                "--engine, or let something be searched."
            )
        return None
    in_others = [(other, sides.within(other).split.train) for other in others]
    return search_head(
        train, spec.type, rows, others=in_others, engine=engine, address=address, criterion=criterion, **given
    )


def _is_another_cache(validation: float | str | Path | None) -> bool:
    """Return whether ``validation`` names another cache."""
    return isinstance(validation, str | Path) and is_cache(validation)


def _fit_on(
    sides: Sides,
    spec: HeadSpec,
    output: str | Path | None,
    max_memory: int | None = None,
    *,
    overwrite: bool = False,
    positive: str | None = None,
) -> FitResult:
    """Fit, score and save, with the rows already chosen."""
    sides = replace(sides, notes=(*sides.notes, *seen_in_the_fit(sides)))
    train, validation, split = sides.train, sides.validation, sides.split
    rows, memory = _stored_rows(train, spec, split.train), Memory(max_memory)
    streamed = not matrix_fits(spec.type, rows.shape, memory)
    features = None if streamed else read_features(train, spec, split.train)
    head = make_head(spec)
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if streamed:
            fit_streamed(head, spec.type, rows, sides.y_train, memory)
        else:
            fit_with_checks(head, spec.type, features, sides.y_train)
    fit_seconds = time.perf_counter() - start
    bundle = Bundle(
        head=head,
        spec=spec,
        recipe=train.recipe,
        class_names=sides.class_names,
        training_digests=np.unique(short_digests(train.sha256)[split.train]),
    )
    probabilities = bundle.predict_proba(validation.batches(split.validation, finite=True), validation.recipe)
    found = score(
        sides.y_validation,
        probabilities,
        sides.class_names,
        class_index(positive, sides.class_names),
        connected_units(split.validation, validation.sha256, validation.groups),
    )
    splits = split_names(validation.splits, split.validation)
    paths = [validation.paths[row] for row in split.validation.tolist()]
    scored = ScoredImages(paths, sides.y_validation, probabilities, sides.class_names, splits)
    folder = None
    if output is not None:
        details = {
            "cache": str(train.path),
            "split": split.description,
            "n_train": len(split.train),
            "fit_seconds": fit_seconds,
            "streamed": streamed,
            "notes": list(sides.notes),
            "classes_left_out": list(sides.left_out),
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
        caches=(train.path,),
        notes=sides.notes,
        scored=scored,
    )


def _stored_rows(cache: FeatureCache, spec: HeadSpec, rows: NDArray[np.int64]) -> ReadRows:
    """Return the head's input for some rows of a cache, which is read when it is asked for."""

    def read(numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        return read_features(cache, spec, rows[numbers])

    return ReadRows(read, (len(rows), read(np.arange(1)).shape[1]))


def read_features(cache: FeatureCache, spec: HeadSpec, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the head's input for some rows of a cache, shape (n_rows, n_features), float32."""
    return design_matrix(
        cache.batches(rows, finite=True), spec.features, pooled_layers=cache.recipe.pooled_layers, n_samples=len(rows)
    )
