"""Score a saved head on a cache, or on a folder of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.cache.folder import is_cache
from headstart.cache.store import FeatureCache, open_cache
from headstart.errors import DataError
from headstart.evaluate.metrics import score
from headstart.heads.bundle import Bundle, load_bundle
from headstart.images.class_names import class_name, spellings
from headstart.images.discover import ImageSet, discover
from headstart.images.refs import ImageRefs
from headstart.predict import Predictor
from headstart.storage.address import Location, location

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.schema import Failure, Score


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a saved head is on some images; unpacks as ``score, failures``.

    Attributes
    ----------
    score : Score
        On the images that were scored.
    failures : list of Failure
        Images that could not be read.
    """

    score: Score
    failures: list[Failure]

    def __iter__(self) -> Iterator[Any]:
        return iter((self.score, self.failures))


def evaluate_head(
    head: str | Path, data: str | Location, *, split: str | None = None, **backbone_options: Any
) -> Evaluation:
    """Return the score of a saved head on a cache or a folder, and the images that could not be read.

    Parameters
    ----------
    head : str or Path
        A bundle's folder.
    data : str, Path or Address
        A cache, or what ``extract-features`` takes.
    split : str, optional
        Score on the images of this split only.
    **backbone_options
        As :class:`Predictor` takes them; used for a folder.

    Raises
    ------
    RecipeMismatchError
        If a cache was made by another recipe; the message names the fields.
    DataError
        If there is nothing to score, or a class that the head does not know.
    """
    bundle = load_bundle(Path(head))
    if is_cache(data):
        with open_cache(data) as cache:
            return evaluate_on_cache(bundle, cache, split)
    images = discover(location(data))
    chosen = replace(images, refs=ImageRefs.of(ref for ref in images.refs if split in (None, ref.split)))
    if not any(ref.label for ref in chosen.refs):
        raise DataError(f"There are no labelled images in {data}{of_split(split)}.")
    return evaluate_on_images(Predictor(bundle, **backbone_options), chosen)


def evaluate_on_cache(bundle: Bundle, cache: FeatureCache, split: str | None) -> Evaluation:
    """Return the score of a head on the labelled rows of a cache."""
    numbers = class_numbers(bundle.class_names, cache.class_names)
    labels = np.asarray(cache.labels)
    chosen = labels >= 0
    if split is not None:
        chosen &= np.array([name == split for name in cache.splits])
    rows = np.flatnonzero(chosen)
    if not len(rows):
        raise DataError(f"{cache.path} holds no labelled image{of_split(split)}.")
    positions = np.array([numbers[name] for name in cache.class_names])
    probabilities = bundle.predict_proba(cache.batches(rows), cache.recipe)
    return Evaluation(score(positions[labels[rows]], probabilities, bundle.class_names), list(cache.failures))


def evaluate_on_images(predictor: Predictor, data: ImageSet) -> Evaluation:
    """Return the score of a head on a labelled set of images."""
    refs = [ref for ref in data.refs if ref.label is not None]
    names = predictor.class_names
    numbers = class_numbers(names, data.class_names)
    labels: list[int] = []
    parts: list[NDArray[np.float64]] = []
    failed: list[Failure] = []
    for images, failures in predictor.batches(data.root, refs):
        failed += failures
        if images:
            parts.append(predictor.probabilities(images))
            labels += [numbers[str(image.row.ref.label)] for image in images]
    if not parts:
        raise DataError(f"{data.root} holds no labelled image that can be read.")
    return Evaluation(score(np.array(labels), np.concatenate(parts), names), failed)


def class_numbers(known: Sequence[str], found: Sequence[str]) -> dict[str, int]:
    """Return the index among the head's classes of each class in the data.

    Names that differ only in their Unicode form or in spaces at their ends are one class.

    Raises
    ------
    DataError
        If the data has a class that the head does not know; the message names those that differ in case alone.
    """
    numbers = {class_name(name): number for number, name in enumerate(known)}
    numbers |= {name: number for number, name in enumerate(known)}
    unknown = sorted(name for name in found if name not in numbers and class_name(name) not in numbers)
    if unknown:
        asked = "".join(f" {question}" for question in spellings([*known, *unknown]))
        raise DataError(
            f"The head does not know the class(es) {', '.join(unknown)}. It knows: {', '.join(known)}.{asked}"
        )
    return {name: numbers[name if name in numbers else class_name(name)] for name in found}


def of_split(split: str | None) -> str:
    """Return which split, in words; nothing for all."""
    return f" of the split {split}" if split else ""
