"""Image files → the same decoding and backbone as in training → a saved head → class probabilities."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.backbone.build import build_backbone
from headstart.cache.folder import is_cache
from headstart.cache.store import open_cache
from headstart.errors import DataError, RecipeMismatchError
from headstart.evaluate.metrics import score
from headstart.extract.reading import batches
from headstart.extract.shard import ShardJob
from headstart.heads.bundle import Bundle, load_bundle
from headstart.images.discover import ImageSet, discover
from headstart.images.refs import ImageRefs
from headstart.runtime import usable_cores
from headstart.schema import Failure, ImageRef
from headstart.storage.address import Location, location

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.images.load import LoadedImage
    from headstart.schema import Backbone, Score


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a head says of one image, or why the image could not be read.

    Attributes
    ----------
    path : str
        As it was given, or found in the folder that was given.
    probabilities : ndarray of shape (n_classes,), float64, or None
        In the order of the head's class names; None where the image could not be read.
    failure : str
        Why not; empty where it could.
    """

    path: str
    probabilities: NDArray[np.float64] | None
    failure: str = ""

    def top(self, class_names: Sequence[str], k: int) -> list[tuple[str, float]]:
        """Return the ``k`` most probable classes with their probabilities, best first."""
        if self.probabilities is None:
            return []
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(class_names[i], float(self.probabilities[i])) for i in order]


class Predictor:
    """A saved head and the backbone it was fitted for; both are loaded once.

    Parameters
    ----------
    head : str, Path or Bundle
        A bundle's folder.
    weights : str or Path
        ``imagenet``, or the file of the custom weights that the head was fitted for.
    precision : str, optional
        Compute in this precision instead of the recipe's; ``float32`` is the exact one.
    batch_size : int, optional
        Images per forward pass.
    device : str
        ``auto``, ``cpu`` or ``gpu:N``.
    backbone : Backbone, optional
        One that exists already.

    Examples
    --------
    >>> predictor = Predictor("heads/ants-bees")                                       # doctest: +SKIP
    >>> [p.top(predictor.class_names, 1) for p in predictor.predict(["a.jpg"])]        # doctest: +SKIP
    [[('bees', 0.98)]]
    """

    def __init__(
        self,
        head: str | Path | Bundle,
        *,
        weights: str | Path = "imagenet",
        precision: str | None = None,
        batch_size: int | None = None,
        device: str = "auto",
        backbone: Backbone | None = None,
    ) -> None:
        self.bundle = head if isinstance(head, Bundle) else load_bundle(Path(head))
        self.recipe = replace(self.bundle.recipe, precision=precision) if precision else self.bundle.recipe
        self.backbone = backbone or build_backbone(self.recipe, weights, batch_size=batch_size, device=device)
        differences = self.recipe.differences(self.backbone.recipe)
        if differences:
            raise RecipeMismatchError(f"The head needs other features (head ≠ backbone): {'; '.join(differences)}.")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return self.bundle.class_names

    def predict(self, inputs: Sequence[str | Path]) -> Iterator[Prediction]:
        """Yield a prediction for every image among ``inputs``, files or folders.

        Raises
        ------
        DataError
            If an input does not exist, or a folder holds no images.
        """
        root, found = collect_images(inputs)
        names = {id(ref): name for name, ref in found}
        for images, failures in self._batches(root, [ref for _, ref in found]):
            if images:
                rows = self._probabilities(images)
                yield from (Prediction(names[id(i.row.ref)], p) for i, p in zip(images, rows, strict=True))
            yield from (Prediction(names[id(f.ref)], None, f.reason) for f in failures)

    def evaluate(self, data: ImageSet) -> tuple[Score, list[Failure]]:
        """Return the score on a labelled set of images, and the images that could not be read."""
        refs = [ref for ref in data.refs if ref.label is not None]
        check_classes(self.class_names, data.class_names)
        labels: list[int] = []
        rows: list[NDArray[np.float64]] = []
        failed: list[Failure] = []
        for images, failures in self._batches(data.root, refs):
            failed += failures
            if images:
                rows.append(self._probabilities(images))
                labels += [self.class_names.index(str(image.row.ref.label)) for image in images]
        if not rows:
            raise DataError(f"{data.root} holds no labelled image that can be read.")
        return score(np.array(labels), np.concatenate(rows), self.class_names), failed

    def _probabilities(self, images: Sequence[LoadedImage]) -> NDArray[np.float64]:
        features = self.backbone.forward(np.stack([image.pixels for image in images]))
        return self.bundle.predict_proba([features], self.bundle.recipe)

    def _batches(self, root: Location, refs: Sequence[ImageRef]) -> Iterator[tuple[list[LoadedImage], list[Failure]]]:
        job = ShardJob(root, (), decode_threads=usable_cores())
        return batches(refs, self.recipe, job, lambda: self.backbone.batch_size)


def collect_images(inputs: Sequence[str | Path]) -> tuple[Path, list[tuple[str, ImageRef]]]:
    """Return the folder that all inputs lie in, and each image as it is called and as it is found from there."""
    given = {Path(path): Path.cwd() / path for path in inputs}  # not resolved: a link keeps the name it was given
    if not given:
        raise DataError("Nothing to predict: name at least one image or folder.")
    root = Path(os.path.commonpath([path if path.is_dir() else path.parent for path in given.values()]))
    found: list[tuple[str, ImageRef]] = []
    for name, path in given.items():
        below = path.relative_to(root).as_posix()
        if path.is_dir():
            for ref in discover(path).refs:
                inside = ref.path if below == "." else f"{below}/{ref.path}"
                found.append((str(name / ref.path), replace(ref, path=inside, label=None, split=None)))
        elif path.exists():
            stat = path.stat()
            found.append((str(name), ImageRef(below, None, None, None, stat.st_size, stat.st_mtime_ns)))
        else:
            raise DataError(f"There is no image or folder at {name}.")
    return root, found


def check_classes(known: Sequence[str], found: Sequence[str]) -> None:
    """Raise DataError where the data has a class that the head does not know."""
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise DataError(f"The head does not know the class(es) {', '.join(unknown)}. It knows: {', '.join(known)}.")


def evaluate_head(
    head: str | Path, data: str | Location, *, split: str | None = None, **backbone_options: Any
) -> tuple[Score, list[Failure]]:
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
    if is_cache(data):
        bundle = load_bundle(Path(head))
        with open_cache(data) as cache:
            return score_cache(bundle, cache, split), list(cache.failures)
    images = discover(location(data))
    chosen = replace(images, refs=ImageRefs.of(ref for ref in images.refs if split in (None, ref.split)))
    if not any(ref.label for ref in chosen.refs):
        raise DataError(f"There are no labelled images in {data}{f' of the split {split}' if split else ''}.")
    return Predictor(head, **backbone_options).evaluate(chosen)


def score_cache(bundle: Bundle, cache: Any, split: str | None) -> Score:
    """Return the score of a head on the labelled rows of a cache."""
    check_classes(bundle.class_names, cache.class_names)
    labels = np.asarray(cache.labels)
    chosen = labels >= 0
    if split is not None:
        chosen &= np.array([name == split for name in cache.splits])
    rows = np.flatnonzero(chosen)
    if not len(rows):
        raise DataError(f"{cache.path} holds no labelled image{f' of the split {split}' if split else ''}.")
    positions = np.array([bundle.class_names.index(name) for name in cache.class_names])
    return score(positions[labels[rows]], bundle.predict_proba(cache.batches(rows), cache.recipe), bundle.class_names)
