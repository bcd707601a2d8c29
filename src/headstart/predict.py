"""Predict class probabilities of images with a saved head and its backbone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.backbones.registry import BACKBONES, build_backbone, engine_label, pick_engine
from headstart.bundles.bundle import Bundle, load_bundle
from headstart.errors import DataError, HeadstartError, RecipeMismatchError
from headstart.images.discovery.manifest import is_manifest, read_paths
from headstart.images.discovery.refs import state_of
from headstart.images.discovery.scan import discover
from headstart.images.load import GivenImage, LoadedImage, ReadOptions, batches, given_image
from headstart.storage.bucket import Location
from headstart.types import Backbone, Failure, FeatureBatch, ImageRef

#: The path of an image, folder or manifest; the bytes of an image file; a PIL image; or a uint8 array of shape (height,
#: width), (height, width, 3), RGB, or (height, width, 4), RGBA.
Input: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Class probabilities of one image, or the reason why it could not be read.

    Attributes
    ----------
    path : str
        Path as given, or as found in the given folder; ``inputs[2]`` for the third input, if that is no path.
    probabilities : ndarray of shape (n_classes,), float64, or None
        In the order of the head's class names; None if the image could not be read.
    failure : str
        The reason; empty if the image was read.
    notes : tuple of str
        Conversions done by the decoder (:mod:`headstart.images.decode`).
    """

    path: str
    probabilities: NDArray[np.float64] | None
    failure: str = ""
    notes: tuple[str, ...] = ()

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
        Folder of the saved head, or the loaded head.
    weights : str or Path, optional
        ``imagenet`` (the default), or the file with the custom weights of the head's backbone.
    precision : str, optional
        Overrides the precision of the recipe; ``float32`` is exact.
    batch_size : int, optional
        Images per forward pass.
    device : str
        ``auto``, ``cpu`` or ``gpu:N``.
    backbone : Backbone, optional
        An existing backbone.

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
        weights: str | Path | None = None,
        precision: str | None = None,
        batch_size: int | None = None,
        device: str = "auto",
        backbone: Backbone | None = None,
    ) -> None:
        self.bundle = head if isinstance(head, Bundle) else load_bundle(Path(head))
        self.recipe = replace(self.bundle.recipe, precision=precision) if precision else self.bundle.recipe
        self._build = partial(build_backbone, self.recipe, weights, batch_size=batch_size, device=device)
        self._backbone, self._is_given = backbone or self._build(), backbone is not None
        self._process, self._device = os.getpid(), device
        differences = self.recipe.differences(self.backbone.recipe)
        if differences:
            raise RecipeMismatchError(f"The head needs other features (head ≠ backbone): {'; '.join(differences)}.")

    @property
    def backbone(self) -> Backbone:
        """The network; a forked process builds its own, since threads do not survive a fork.

        Raises
        ------
        HeadstartError
            In a forked process, if the engine does not support it.
        """
        if os.getpid() != self._process and not self._is_given:
            engine = pick_engine(self.recipe.precision, self._device, BACKBONES[self.recipe.backbone])
            if engine != "ncnn":
                raise HeadstartError(
                    f"This Predictor was made before the process forked, and {engine_label(engine)} does not run in a forked "
                    "process. Make a Predictor in each worker, and start the workers by spawn or before the first Predictor "
                    "(gunicorn: without --preload)."
                )
            self._backbone, self._process = self._build(), os.getpid()
        return self._backbone

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""
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
        single = isinstance(inputs, str | os.PathLike | bytes | Image.Image | np.ndarray)
        root, found = collect_images([inputs] if single else inputs)  # type: ignore[list-item,arg-type]
        for images, failures in self.batches(root, [ref for _, ref in found]):
            rows = self.probabilities(list(images.values())) if images else ()
            done = {
                index: Prediction(found[index][0], probabilities, notes=images[index].row.notes)
                for index, probabilities in zip(images, rows, strict=True)
            }
            done |= {index: Prediction(found[index][0], None, failure.reason) for index, failure in failures.items()}
            yield from (done[index] for index in sorted(done))

    def probabilities(self, images: Sequence[LoadedImage]) -> NDArray[np.float64]:
        """Return probabilities of decoded images, shape (n_images, n_classes), float64."""
        return self.bundle.predict_proba([self.forward(images)], self.bundle.recipe)

    def forward(self, images: Sequence[LoadedImage]) -> FeatureBatch:
        """Return the features of decoded images."""
        return self.backbone.forward(np.stack([image.pixels for image in images]))

    def batches(
        self, root: Location, refs: Sequence[ImageRef]
    ) -> Iterator[tuple[dict[int, LoadedImage], dict[int, Failure]]]:
        """Yield batches of images decoded by the head's recipe, and the failures, each by its index in ``refs``."""
        return batches(refs, self.recipe, ReadOptions(root), lambda: self.backbone.batch_size)


def collect_images(inputs: Sequence[Input]) -> tuple[Path, list[tuple[str, ImageRef]]]:
    """Return the common folder of all paths, and each image with its display name and its path below that folder."""
    given: dict[Path | str, Path | GivenImage] = {}
    for number, image in enumerate(inputs):
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
