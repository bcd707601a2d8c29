"""Evaluate a saved head on a cache or a folder of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headstart.bundles.bundle import Bundle, load_bundle
from headstart.bundles.metadata import recipe_in_short
from headstart.cache.reader import FeatureCache, open_cache
from headstart.cache.shards import is_cache
from headstart.decisions.rule import DecisionScore
from headstart.errors import DataError, RecipeMismatchError
from headstart.evaluate.joined_caches import AnyCache, join_caches, outputs_of, recipes_of
from headstart.evaluate.leakage import ImageKeys, Seen, fitted_on, last_block_of, relations, training_images
from headstart.evaluate.random_crops import refuse_crops
from headstart.evaluate.split_notes import class_notes
from headstart.evaluate.splits import connected_units
from headstart.evaluate.targets import Target, encoded, target_named
from headstart.exchange.prediction_table import ScoredImages
from headstart.images.decode import sentences
from headstart.images.discovery.classes_and_splits import spellings
from headstart.images.discovery.refs import ImageRefs
from headstart.images.discovery.scan import ImageSet, discover
from headstart.predict import Predictor
from headstart.scores import AnyScore
from headstart.storage.bucket import Address, Location, location
from headstart.texts import class_name, counted, did_you_mean
from headstart.types import Failure, ImageRef, ImageRow, Recipe

#: Treatment of images that the head has seen.
Handling = Literal["left out", "included"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of a saved head; unpacks as ``score, failures``.

    Attributes
    ----------
    score : Score or NumberScore
        Metrics on the scored images.
    failures : list[Failure]
        Images that could not be read.
    seen : Seen
        How many images the head had seen in training, and whether they are left out of the score.
    notes : tuple[str, ...]
        Sentences on classes that are not scored and on conversions done by the decoder.
    scored : ScoredImages | None
        The images with their predictions.
    decision : DecisionScore | None
        How the decisions do; None if the most probable class is the decision.
    """

    score: AnyScore
    failures: list[Failure]
    seen: Seen
    notes: tuple[str, ...] = ()
    scored: ScoredImages | None = None
    decision: DecisionScore | None = None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.score, self.failures))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        decision = {"decision": self.decision.to_dict()} if self.decision else {}
        said = {"training_images": self.seen.to_dict(), "notes": list(self.notes)}
        return {**self.score.to_dict(), **decision, **said}


def evaluate_head(
    head: str | Path,
    data: str | Location | Sequence[str | Location],
    *,
    split: str | None = None,
    include_training: bool = False,
    positive: str | None = None,
    **backbone_options: Any,
) -> Evaluation:
    """Return the score of a saved head on the images of a cache or a folder that it was not fitted on.

    Training images are recognised by their digests. Images of the same group and near-duplicates
    (:func:`headstart.evaluate.leakage.near_units`) are left out too, if the training images are in ``data`` or
    the training cache is still available.

    Parameters
    ----------
    head : str or Path
        Folder of the saved head.
    data : str, Path or Address; or a sequence of these
        A cache, or any input of ``extract-features``. Of a head on joined features: a cache of each of its recipes, in any
        order, or images.
    split : str, optional
        Score images of this split only.
    include_training : bool
        Also score images that the head has seen; ``seen`` then counts them.
    positive : str, optional
        The positive class, for its rates; by default that of the fit.
    **backbone_options
        Options of :class:`Predictor`, used for folders.

    Raises
    ------
    RecipeMismatchError
        If the cache was made by another recipe, or a recipe of the head has no cache.
    ParameterError
        If the head has no such positive class.
    DataError
        If there is nothing to score that the head has not seen, or a class is unknown to the head.
    """
    bundle = load_bundle(Path(head))
    index = target_for(bundle).positive_index(positive or _fitted_positive(bundle), bundle.class_names)
    handling: Handling = "included" if include_training else "left out"
    several = [data] if isinstance(data, str | PurePath | Address) else list(data)
    if len(several) > 1 or is_cache(several[0]):
        with ExitStack() as stack:
            caches = [stack.enter_context(open_cache(path)) for path in several]
            for one in caches:
                refuse_crops(one)
            target = target_for(bundle)
            ordered = [encoded(cache, target) for cache in in_order_of(bundle.recipes, caches)]
            return _evaluate_on_caches(bundle, ordered, split, handling, index)
    data = several[0]
    images = discover(location(data))
    chosen = replace(images, refs=ImageRefs.of(ref for ref in images.refs if split in (None, ref.split)))
    return _evaluate_on_images(Predictor(bundle, **backbone_options), chosen, handling, index)


def target_for(bundle: Bundle) -> Target:
    """Return what a saved head predicts."""
    return target_named(bundle.target).for_head(bundle.class_names)


def _fitted_positive(bundle: Bundle) -> str | None:
    """Return the positive class used in the fit, if any."""
    rates = bundle.metrics.get("positive")
    name = rates.get("class_name") if isinstance(rates, Mapping) else None
    return name if name in bundle.class_names else None


def in_order_of(recipes: Sequence[Recipe], caches: Sequence[FeatureCache]) -> list[FeatureCache]:
    """Return the cache of each recipe; raise RecipeMismatchError if there is none of one, or one of no recipe."""
    if len(recipes) == len(caches) == 1:
        return list(caches)  # the head compares its recipe, and names the fields
    found = {cache.recipe: cache for cache in caches}
    missing = [", ".join(recipe_in_short(recipe)) for recipe in recipes if recipe not in found]
    unknown = [str(cache.path) for cache in caches if cache.recipe not in recipes]
    if missing or unknown or len(caches) != len(recipes):
        lacking = f" None is of: {'; '.join(missing)}." if missing else ""
        others = f" Of no recipe of the head: {', '.join(unknown)}." if unknown else ""
        raise RecipeMismatchError(
            f"The head needs one cache of each of its {counted(len(recipes), 'recipe')}. Received: "
            f"{', '.join(str(cache.path) for cache in caches)}.{lacking}{others}"
        )
    return [found[recipe] for recipe in recipes]


def _evaluate_on_caches(
    bundle: Bundle, caches: Sequence[FeatureCache], split: str | None, handling: Handling, positive: int | None
) -> Evaluation:
    cache = caches[0]
    labels = cache.labels
    chosen = labels >= 0
    if split is not None:
        chosen &= np.array([name == split for name in cache.splits])
    if not chosen.any():
        raise DataError(f"{cache.path} holds no {_labelled(bundle)}{_of_split(split)}.")
    counts = np.bincount(labels[chosen], minlength=len(cache.class_names)).tolist()
    numbers, notes = _classes_to_score(bundle, dict(zip(cache.class_names, counts, strict=True)))
    y = np.array([*(numbers.get(name, -1) for name in cache.class_names), -1])[labels]
    chosen &= y >= 0
    own = chosen if bundle.training_digests is None else fitted_on(cache.sha256, bundle.training_digests)
    rows = np.flatnonzero(chosen | own)
    seen, scored = _look(bundle, ImageKeys.of(cache, rows), chosen[rows], handling, str(cache.path))
    scored = rows[scored]
    features: AnyCache = join_caches(caches, scored) if len(caches) > 1 else cache
    predicted = ScoredImages(
        [cache.paths[row] for row in scored.tolist()],
        (y if outputs_of(cache) is None else outputs_for(cache))[scored],
        bundle.outputs(features.batches(scored, finite=True), recipes_of(features)),
        bundle.class_names,
        [cache.splits[row] for row in scored.tolist()],
    )
    units = connected_units(scored, cache.sha256, cache.groups)
    return _scored(bundle, predicted, units, positive, list(cache.failures), seen, notes)


def _evaluate_on_images(predictor: Predictor, data: ImageSet, handling: Handling, positive: int | None) -> Evaluation:
    bundle = predictor.bundle
    refs, truth, notes = _images_to_score(bundle, data)
    rows: list[ImageRow] = []
    probabilities, averages = [], []
    failed: list[Failure] = []
    y: list[Any] = []
    for images, failures in predictor.batches(data.root, refs):
        failed += failures.values()
        if images:
            y += [truth[number] for number in images]
            features = predictor.forward(list(images.values()))
            rows += [image.row for image in images.values()]
            probabilities.append(bundle.outputs([features], bundle.recipes))
            averages.append(last_block_of(features, bundle.recipe))
    if not rows:
        raise DataError(f"{data.root} holds no {_labelled(bundle)} that can be read.")
    known = ImageKeys([row.sha256 for row in rows], [row.ref.group or "" for row in rows], np.concatenate(averages))
    seen, scored = _look(bundle, known, np.ones(len(rows), bool), handling, str(data.root))
    refs = [rows[row].ref for row in scored.tolist()]
    predicted = ScoredImages(
        [ref.path for ref in refs],
        np.array(y)[scored],
        np.concatenate(probabilities)[scored],
        bundle.class_names,
        [ref.split or "" for ref in refs],
    )
    units = connected_units(scored, known.sha256, known.groups)
    lost = Counter(note for row in scored.tolist() for note in rows[row].notes)
    said = (f"{sentence}." for sentence in sentences(lost, with_options=False))
    return _scored(bundle, predicted, units, positive, failed, seen, notes, said)


def _images_to_score(bundle: Bundle, data: ImageSet) -> tuple[list[ImageRef], list[Any], tuple[str, ...]]:
    """Return the images that have an output the head knows, these outputs, and sentences on the others."""
    number = {name: place for place, name in enumerate(data.class_names)}
    labels = np.array([-1 if ref.label is None else number[ref.label] for ref in data.refs], np.int64)
    codes, names, outputs = target_for(bundle).outputs(labels, data.class_names, data.refs.targets)
    if not (codes >= 0).any():
        raise DataError(f"There is no {_labelled(bundle)} in {data.root}.")
    found, notes = _classes_to_score(bundle, Counter(names[code] for code in codes.tolist() if code >= 0))
    index = np.array([*(found.get(name, -1) for name in names), -1])[codes]
    rows = np.flatnonzero(index >= 0).tolist()
    truth = index if outputs is codes else outputs
    return [data.refs[row] for row in rows], truth[rows].tolist(), notes


def _labelled(bundle: Bundle) -> str:
    return "labelled image" if bundle.task != "regression" else f"image with a {bundle.target} to predict"


def outputs_for(cache: AnyCache) -> NDArray[Any]:
    """Return what is to be predicted for each row of a cache, where that is not the class."""
    found = outputs_of(cache)
    assert found is not None  # noqa: S101
    return found


def _look(
    bundle: Bundle, images: ImageKeys, chosen: NDArray[np.bool_], handling: Handling, data: str
) -> tuple[Seen, NDArray[np.intp]]:
    """Return which chosen images the head has seen, and the places of the images to score."""
    digests = bundle.training_digests
    if digests is None:
        return Seen("unknown", {}, compared=False), np.flatnonzero(chosen)
    training = training_images(_places_of_cache(bundle), bundle.recipe, digests, images.sha256)
    masks, compared = relations(images, digests, training)
    seen = Seen(handling, {name: int((mask & chosen).sum()) for name, mask in masks.items()}, compared)
    if handling == "left out":
        chosen = chosen & ~np.any(list(masks.values()), axis=0)
    if not chosen.any():
        raise DataError(
            f"Nothing in {data} is left to score: {seen.sentence} Expected: images that the head was not fitted on, since a "
            "score on others says nothing about new images."
        )
    return seen, np.flatnonzero(chosen)


def _scored(
    bundle: Bundle,
    predicted: ScoredImages,
    units: NDArray[np.intp],
    positive: int | None,
    failures: list[Failure],
    seen: Seen,
    notes: Iterable[str],
    more: Iterable[str] = (),
) -> Evaluation:
    y_true, class_names = predicted.y_true, bundle.class_names
    found: AnyScore = target_for(bundle).metrics(y_true, predicted.probabilities, class_names, positive, units)
    missing = np.setdiff1d(fitted_classes(bundle), y_true).tolist() if bundle.task != "regression" else []
    not_scored = (f"{class_names[label]}: no image to score." for label in missing)
    rule = bundle.decision
    decision = rule.score(y_true, predicted.probabilities, class_names) if rule else None
    return Evaluation(found, failures, seen, (*notes, *not_scored, *more), predicted, decision)


def _places_of_cache(bundle: Bundle) -> list[Path]:
    """Return possible paths of the training cache: relative to the current folder, or to a parent of the head's folder."""
    name = str(bundle.metrics.get("cache", ""))
    if not name or "://" in name:
        return []
    above = bundle.folder.parents if bundle.folder else ()
    return list(dict.fromkeys([Path(name), *(folder / name for folder in above)]))


def _classes_to_score(bundle: Bundle, counts: Mapping[str, int]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return class name → index among the head's classes for each class to score, and sentences on the others.

    Classes that were in the training cache but not fitted on are not scored.
    """
    names = bundle.class_names
    fitted = {names[label] for label in fitted_classes(bundle)}  # older versions kept classes without an image
    noted = bundle.metrics.get("classes_left_out", [])
    absent = {*(noted if isinstance(noted, list) else []), *names} - fitted
    lacking = {name: n for name, n in counts.items() if n and name in absent}
    present = [name for name, n in counts.items() if n and name not in absent]
    notes = class_notes((), Counter(), Counter(lacking))
    numbers = class_numbers(names, present)
    if not numbers:
        raise DataError(f"There is nothing to score. {' '.join(notes)} The head knows: {', '.join(sorted(fitted))}.")
    return numbers, tuple(notes)


def fitted_classes(bundle: Bundle) -> list[int]:
    """Return the outputs that a head was fitted on, by their place: of a classifier its classes, otherwise all."""
    return list(getattr(bundle.head, "classes_", range(len(bundle.class_names))))


def class_numbers(known: Sequence[str], found: Sequence[str]) -> dict[str, int]:
    """Return the index among the head's classes of each class in the data; raise DataError if the head does not know one.

    Names that differ only in their Unicode form or in surrounding spaces are one class.
    """
    numbers = {class_name(name): number for number, name in enumerate(known)}
    numbers |= {name: number for number, name in enumerate(known)}
    unknown = sorted(name for name in found if name not in numbers and class_name(name) not in numbers)
    if unknown:
        asked = "".join(f" {question}" for question in spellings([*known, *unknown])) or did_you_mean(unknown, known)
        raise DataError(
            f"The head does not know {'this class' if len(unknown) == 1 else 'these classes'}: {', '.join(unknown)}. "
            f"It knows: {', '.join(known)}.{asked}"
        )
    return {name: numbers[name if name in numbers else class_name(name)] for name in found}


def _of_split(split: str | None) -> str:
    return f" of the split {split}" if split else ""
