"""Predict class probabilities or numbers of images with a saved head and its backbone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.backbones.registry import build_backbone, engine_label, pick_engine, spec_of
from headstart.bundles.bundle import Bundle, load_bundle
from headstart.decisions.rule import Decision
from headstart.errors import DataError, HeadstartError, ParameterError, RecipeMismatchError
from headstart.images.discovery.manifest import is_manifest, read_paths
from headstart.images.discovery.refs import state_of
from headstart.images.discovery.scan import discover
from headstart.images.load import GivenImage, LoadedImage, ReadOptions, batches, given_image
from headstart.storage.bucket import Location
from headstart.types import Backbone, Failure, FeatureBatch, ImageRef, Recipe

#: The path of an image, folder or manifest; the bytes of an image file; a PIL image; or a uint8 array of shape (height,
#: width), (height, width, 3), RGB, or (height, width, 4), RGBA.
Input: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]


#: The name of published weights or the file of custom ones; None for the default.
Weights: TypeAlias = str | Path | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a head predicts for one image, or the reason why it could not be read.

    Attributes
    ----------
    path : str
        Path as given, or as found in the given folder; ``inputs[2]`` for the third input, if that is no path.
    probabilities : ndarray of shape (n_classes,), float64, or None
        In the order of the head's class names; of a head for numbers the number alone; None if the image could not be read.
    failure : str
        The reason; empty if the image was read.
    notes : tuple of str
        Conversions done by the decoder (:mod:`headstart.images.decode`).
    unfamiliarity : float or None
        Distance to the head's training images (:mod:`headstart.decisions.familiarity`): above 1, probabilities mean nothing
        for the image. None if the image could not be read, or an older version saved the head.
    nearest : tuple of str and str, or None
        Path and label of the nearest training image.
    decision : Decision or None
        The class that the head decides for, and the set of classes; None if the image could not be read, or the head has
        neither a threshold nor costs nor sets, so that the most probable class is the decision.
    """

    path: str
    probabilities: NDArray[np.float64] | None
    failure: str = ""
    notes: tuple[str, ...] = ()
    unfamiliarity: float | None = None
    nearest: tuple[str, str] | None = None
    decision: Decision | None = None

    @property
    def is_unfamiliar(self) -> bool:
        """Whether the image is unlike the training images."""
        return self.unfamiliarity is not None and self.unfamiliarity > 1

    def top(self, class_names: Sequence[str], k: int) -> list[tuple[str, float]]:
        """Return the ``k`` most probable classes with their probabilities, highest first."""
        if self.probabilities is None:
            return []
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(class_names[i], float(self.probabilities[i])) for i in order]


class Predictor:
    """A saved head with its backbone; both are loaded once.

    Parameters
    ----------
    head : str, Path or Bundle
        Folder of the saved head, or the loaded head. A head on joined features has several backbones.
    weights : str, Path or sequence of these, optional
        ``imagenet`` (the default), or the file with the custom weights of the head's backbone. Of several backbones, one
        for each, in the order of ``bundle.recipes``; a single file is that of the only one with custom weights.
    precision : str, optional
        Overrides the precision of the recipe; ``float32`` is exact.
    batch_size : int, optional
        Images per forward pass.
    device : str
        ``auto``, ``cpu`` or ``gpu:N``.
    backbone : Backbone or sequence of Backbone, optional
        An existing backbone; of several, one for each.

    Notes
    -----
    With ncnn, a Predictor may be used in forked processes (e.g. ``gunicorn --preload``); each builds its own network on first
    use.

    Examples
    --------
    >>> predictor = Predictor("heads/ants-bees")                                       # doctest: +SKIP
    >>> [p.top(predictor.class_names, 1) for p in predictor.predict(["a.jpg", array])] # doctest: +SKIP
    [[('bees', 0.98)], [('ants', 0.91)]]
    """

    def __init__(
        self,
        head: str | Path | Bundle,
        *,
        weights: Weights | Sequence[Weights] = None,
        precision: str | None = None,
        batch_size: int | None = None,
        device: str = "auto",
        backbone: Backbone | Sequence[Backbone] | None = None,
    ) -> None:
        self.bundle = head if isinstance(head, Bundle) else load_bundle(Path(head))
        self.recipes = tuple(
            replace(recipe, precision=precision) if precision else recipe for recipe in self.bundle.recipes
        )
        of_each = weights_of_each(self.recipes, weights)
        self._build = partial(build_backbones, self.recipes, of_each, batch_size=batch_size, device=device)
        given = backbone if isinstance(backbone, Sequence) or backbone is None else [backbone]
        self._backbones, self._is_given = list(given or self._build()), given is not None
        self._process, self._device = os.getpid(), device
        differences = [
            difference
            for recipe, one in zip(self.recipes, self._backbones, strict=True)
            for difference in recipe.differences(one.recipe)
        ]
        if differences:
            raise RecipeMismatchError(f"The head needs other features (head ≠ backbone): {'; '.join(differences)}.")

    @property
    def recipe(self) -> Recipe:
        """The recipe of the features; of several, the first."""
        return self.recipes[0]

    @property
    def backbones(self) -> list[Backbone]:
        """The networks; a forked process builds its own, since threads do not survive a fork.

        Raises
        ------
        HeadstartError
            In a forked process, if an engine does not support it.
        """
        if os.getpid() != self._process and not self._is_given:
            engines = [pick_engine(recipe.precision, self._device, spec_of(recipe)) for recipe in self.recipes]
            unfit = [engine for engine in engines if engine != "ncnn"]
            if unfit:
                raise HeadstartError(
                    f"This Predictor was made before the process forked, and {engine_label(unfit[0])} does not run in a "
                    "forked process. Make a Predictor in each worker, and start the workers by spawn or before the first "
                    "Predictor (gunicorn: without --preload)."
                )
            self._backbones, self._process = self._build(), os.getpid()
        return self._backbones

    @property
    def backbone(self) -> Backbone:
        """The network; of several, the first."""
        return self.backbones[0]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities; ``target`` for a number."""
        return self.bundle.class_names

    def predict(self, inputs: Input | Sequence[Input]) -> Iterator[Prediction]:
        """Yield a prediction for every image in ``inputs``, in their order.

        Parameters
        ----------
        inputs : path, bytes, PIL image or array; or a sequence of these
            Images, folders and manifests by their paths; the bytes of image files; images opened by Pillow; and uint8
            arrays of shape (height, width), (height, width, 3), RGB, or (height, width, 4), RGBA. All are decoded by the
            rules of the head's recipe: EXIF orientation, transparency over white, modes and depths. Of a PIL image the
            current frame is taken.

        Raises
        ------
        DataError
            If an input does not exist or is of another type, an array has another type or shape, a folder has no images,
            or a manifest lists no path or a missing file.
        """
        root, found = collect_images(inputs)
        for images, failures in self.batches(root, [ref for _, ref in found]):
            names, loaded = [found[index][0] for index in images], list(images.values())
            rows = self.predictions(names, loaded, self.forward(loaded)) if loaded else ()
            done = dict(zip(images, rows, strict=True))
            done |= {index: Prediction(found[index][0], None, failure.reason) for index, failure in failures.items()}
            yield from (done[index] for index in sorted(done))

    def predictions(
        self, names: Sequence[str], images: Sequence[LoadedImage], features: FeatureBatch
    ) -> Iterator[Prediction]:
        """Yield the prediction of each of some decoded images, with their names and features."""
        familiarity = self.bundle.familiarity
        outputs = self.bundle.outputs([features], self.bundle.recipes)
        rule = self.bundle.decision
        decisions = rule.decide(outputs, self.class_names) if rule else repeat(None)
        predicted = (
            Prediction(name, row, notes=image.row.notes, decision=decision)
            for name, row, image, decision in zip(names, outputs, images, decisions, strict=False)
        )
        if familiarity is None:
            yield from predicted
            return
        rows = familiarity.rows(features)
        distances, nearest = familiarity.unfamiliarity(rows).tolist(), familiarity.nearest(rows).tolist()
        for prediction, distance, number in zip(predicted, distances, nearest, strict=True):
            known = familiarity.paths[number], familiarity.labels[number]
            yield replace(prediction, unfamiliarity=distance, nearest=known)

    def probabilities(self, images: Sequence[LoadedImage]) -> NDArray[np.float64]:
        """Return probabilities of decoded images, shape (n_images, n_classes), float64; or numbers, shape (n_images, 1)."""
        return self.bundle.outputs([self.forward(images)], self.bundle.recipes)

    def forward(self, images: Sequence[LoadedImage]) -> FeatureBatch:
        """Return the features of decoded images."""
        pixels = zip(*((image.pixels, *image.others) for image in images), strict=True)
        networks = zip(self.backbones, pixels, strict=True)
        first, *others = (backbone.forward(np.stack(of_images)) for backbone, of_images in networks)
        return replace(first, others=tuple(others)) if others else first

    def batches(
        self, root: Location, refs: Sequence[ImageRef]
    ) -> Iterator[tuple[dict[int, LoadedImage], dict[int, Failure]]]:
        """Yield batches of images decoded by the head's recipes, and the failures, each by its index in ``refs``."""

        def batch_size() -> int:
            return min(backbone.batch_size for backbone in self.backbones)

        return batches(refs, self.recipe, ReadOptions(root), batch_size, *self.recipes[1:])


def build_backbones(recipes: Sequence[Recipe], weights: Sequence[Weights], **options: Any) -> list[Backbone]:
    """Return the backbone of each recipe."""
    return [build_backbone(recipe, own, **options) for recipe, own in zip(recipes, weights, strict=True)]


def weights_of_each(recipes: Sequence[Recipe], weights: Weights | Sequence[Weights]) -> list[Weights]:
    """Return the weights of each recipe's backbone; raise ParameterError if it is not clear which those are."""
    if weights is None or isinstance(weights, str | Path):
        custom = [recipe.weights == "custom" for recipe in recipes]
        if len(recipes) == 1:
            return [weights]
        if weights in (None, "imagenet"):
            return [None if own else weights for own in custom]
        if sum(custom) == 1:
            return [weights if own else None for own in custom]
        weights = [weights]
    if len(weights) != len(recipes):
        raise ParameterError(
            f"The head has {len(recipes)} backbones, {', '.join(recipe.backbone for recipe in recipes)}. Received: the "
            f"weights {', '.join(map(str, weights))}. Expected: weights for each, in this order; imagenet for published ones."
        )
    return list(weights)


def collect_images(inputs: Input | Sequence[Input]) -> tuple[Path, list[tuple[str, ImageRef]]]:
    """Return the common folder of all paths, and each image with its display name and its path below that folder."""
    given: dict[Path | str, Path | GivenImage] = {}
    single = isinstance(inputs, str | os.PathLike | bytes | Image.Image | np.ndarray)
    images: Sequence[Input] = [inputs] if single else inputs  # type: ignore[list-item,assignment]
    for number, image in enumerate(images):
        if isinstance(image, str | os.PathLike):
            path = Path(image)
            files = read_paths(path) if is_manifest(path) else [path]
            given |= {file: Path.cwd() / file for file in files}  # not resolved: a link keeps the name it was given
        else:
            given[f"inputs[{number}]"] = given_image(image, f"inputs[{number}]")
    if not given:
        raise DataError("Nothing to predict: name at least one image or folder.")
    folders = [path if path.is_dir() else path.parent for path in given.values() if isinstance(path, Path)]
    root = Path(os.path.commonpath(folders)) if folders else Path()
    return root, [image for name, path in given.items() for image in _images_at(name, path, root)]


def _images_at(name: Path | str, path: Path | GivenImage, root: Path) -> Iterator[tuple[str, ImageRef]]:
    """Yield the images of an input with their names."""
    if isinstance(path, GivenImage):
        yield path.path, path
        return
    below = path.relative_to(root).as_posix()
    if path.is_dir():
        for ref in discover(path).refs:
            inside = ref.path if below == "." else f"{below}/{ref.path}"
            yield str(name / Path(ref.path)), replace(ref, path=inside, label=None, split=None)
    elif path.exists():
        yield str(name), ImageRef(below, None, None, None, *state_of(path.stat()))
    else:
        raise DataError(f"There is no image or folder at {name}.")
