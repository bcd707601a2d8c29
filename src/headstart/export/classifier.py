"""The checked input of an export: the backbone, and the fitted head as dense layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.registry import check_runnable
from headstart.backbones.weights import Weights, load_weights
from headstart.bundles.bundle import Bundle, load_bundle
from headstart.errors import HeadstartError
from headstart.heads.base import Layer
from headstart.heads.catalogue import heads_with


@dataclass(frozen=True, slots=True)
class HeadLayers:
    """Layers from scaled features to probabilities."""

    layers: tuple[Layer, ...]  # in order
    #: Class index of each output; classes without a training image have none; shape (n_outputs,)
    columns: NDArray[np.int64]
    #: Number of equally wide parts of a row that go through the layers separately; the outputs are averaged
    views: int = 1

    def placement(self, n_classes: int) -> NDArray[np.float32] | None:
        """Return the matrix that moves outputs to the columns of their classes; None if they are in place."""
        if np.array_equal(self.columns, np.arange(n_classes)):
            return None
        matrix = np.zeros((len(self.columns), n_classes), np.float32)
        matrix[np.arange(len(self.columns)), self.columns] = 1
        return matrix


def as_layers(classifier: Any) -> HeadLayers:
    """Return a fitted classifier as layers; raise HeadstartError if dense layers cannot express it exactly."""
    if not hasattr(classifier, "to_layers"):
        raise HeadstartError(
            f"A {type(classifier).__name__} head cannot be expressed exactly as dense layers, so it cannot be exported. "
            f"Those that can: {', '.join(heads_with('to_layers'))}."
        )
    layers = classifier.to_layers()
    columns = np.asarray(classifier.classes_, np.int64)
    return HeadLayers(layers, columns, getattr(classifier, "views", 1))


@dataclass(frozen=True, slots=True)
class Request:
    """The content of an exported model."""

    bundle: Bundle  # the saved head
    layers: HeadLayers  # its classifier
    weights: Weights  # weights of its backbone


def open_request(
    head: str | Path, target: Path, suffix: str, weights: str | Path = "imagenet", overwrite: bool = False
) -> Request:
    """Return the content of a model to export; inexpensive checks come before reading the weights.

    Raises HeadstartError if the file exists, its suffix is wrong, or the head or its recipe cannot be expressed exactly.
    """
    if target.suffix != suffix:
        raise HeadstartError(f"This kind of model is written to a file that ends in {suffix}. Received: {target}.")
    if target.exists() and not overwrite:
        raise HeadstartError(f"{target} exists already.", hint="Replace it with `overwrite=True`.")
    bundle = load_bundle(Path(head))
    recipe = bundle.recipe
    check_runnable(recipe)
    if recipe.backbone != "vgg16":
        raise HeadstartError(f"An exported model can carry the backbone vgg16 only. The head needs {recipe.backbone}.")
    if recipe.resize != "keras-bilinear":
        raise HeadstartError(
            f"An exported model can carry the resize preset keras-bilinear only. The head was fitted on {recipe.resize!r}."
        )
    if recipe.precision == "int8":
        raise HeadstartError(
            "The head was fitted on features of an int8 network, which an exported model cannot carry: in floating point its "
            "images would get other features.",
            hint="Extract them with `precision='auto'`, fit the head on those, and export it.",
        )
    layers = as_layers(bundle.head.steps[-1][1])
    loaded = load_weights(weights, custom=str(weights) != "imagenet")
    if loaded.sha256 != recipe.weights_sha256:
        raise HeadstartError(
            f"The head was fitted on features of other weights (sha256 {recipe.weights_sha256[:12]}…). "
            f"Received: {loaded.source} (sha256 {loaded.sha256[:12]}…).",
            hint="Name the right file with `weights=PATH`.",
        )
    return Request(bundle, layers, loaded)
