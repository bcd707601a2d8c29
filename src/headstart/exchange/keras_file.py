"""The whole classifier as one Keras file; and what every export needs: the backbone, and the head as dense layers."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.convnet import ConvNet, Weights
from headstart.backbones.keras_applications import APPLICATIONS, application_model
from headstart.backbones.registry import check_runnable, pairwise_sum, spec_of
from headstart.backbones.tensorflow import build_model
from headstart.bundles.bundle import Bundle, load_bundle
from headstart.errors import HeadstartError
from headstart.heads.base import Layer
from headstart.heads.catalogue import heads_with
from headstart.heads.head_specs import GEM_POWER
from headstart.heads.transforms import corners
from headstart.runtime import import_keras
from headstart.storage.publishing import writing
from headstart.types import VIEWS


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


#: Said of a head that decides by a rule.
WITHOUT_DECISION = (
    "The exported model returns probabilities only: threshold, costs and sets of classes are not part of it."
)


@dataclass(frozen=True, slots=True)
class Request:
    """The content of an exported model."""

    bundle: Bundle  # the saved head
    layers: HeadLayers  # its classifier
    network: ConvNet | None  # the layers of its backbone; None for those of keras.applications, and own networks
    weights: Weights  # the weights of it


def open_request(
    head: str | Path, target: Path, suffix: str, weights: str | Path | None = None, overwrite: bool = False
) -> Request:
    """Return the content of a model to export; inexpensive checks come before reading the weights.

    Raises HeadstartError if the file exists, its suffix is wrong, or the head or its recipe cannot be expressed exactly.
    """
    if target.suffix != suffix:
        raise HeadstartError(f"This kind of model is written to a file that ends in {suffix}. Received: {target}.")
    if target.exists() and not overwrite:
        raise HeadstartError(f"{target} exists already.", hint="Replace it with `overwrite=True`.")
    bundle = load_bundle(Path(head))
    if bundle.joined_recipes:
        raise HeadstartError(
            f"The head was fitted on the features of {len(bundle.recipes)} recipes side by side, and an exported model has "
            "one backbone. Expected: a head that was fitted on a single cache. `headstart predict` predicts with any head."
        )
    recipe = bundle.recipe
    check_runnable(recipe)
    backbone = spec_of(recipe)
    if not backbone.own_network and backbone.name not in APPLICATIONS:
        backbone.convnet()
    if backbone.own_network and suffix == ".keras":
        raise HeadstartError(
            f"The network of this head is an ONNX model, {backbone.name}, which cannot be part of a Keras file. Export it to "
            "a file that ends in .onnx."
        )
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
    if bundle.decision:
        warnings.warn(f"{WITHOUT_DECISION} {bundle.decision.in_words()}", stacklevel=3)
    layers = as_layers(bundle.head.steps[-1][1])
    loaded = backbone.loaded(weights)
    if loaded.sha256 != recipe.weights_sha256:
        raise HeadstartError(
            f"The head was fitted on features of other weights (sha256 {recipe.weights_sha256[:12]}…). "
            f"Received: {loaded.source} (sha256 {loaded.sha256[:12]}…).",
            hint="Name the right file with `weights=PATH`.",
        )
    return Request(bundle, layers, backbone.network, loaded)


#: Pooling → Keras layer.
POOLING_LAYERS = {"flatten": "Flatten", "avg": "GlobalAveragePooling2D", "max": "GlobalMaxPooling2D"}


def export_keras(
    head: str | Path, output: str | Path, *, weights: str | Path | None = None, overwrite: bool = False
) -> Path:
    """Write a saved head and its backbone as one Keras model; return the file with the class names.

    The model takes a batch of RGB images, 0–255, of any height and width; it resizes, rounds, preprocesses and computes
    in float32, and returns probabilities in the order of the class names.

    Parameters
    ----------
    head, output : str or Path
        Folder of the saved head, and the file to write; its suffix is ``.keras``.
    weights : str or Path
        ``imagenet``, or the file with the custom weights of the head's backbone.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    HeadstartError
        If the file exists, its suffix is wrong, the head or its recipe cannot be expressed exactly, or the file cannot
        be written.
    """
    target, request = Path(output), open_request(head, Path(output), ".keras", weights, overwrite)
    model, names = _build_classifier(request), target.with_suffix(".classes.json")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            partial = Path(folder) / target.name
            model.save(partial)
            partial.replace(target)
        names.write_text(
            json.dumps(list(request.bundle.class_names), ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
        )
    return names


def _build_classifier(request: Request) -> Any:
    bundle, keras = request.bundle, import_keras()
    images = keras.Input((None, None, 3), name="images")
    features = _join(bundle, _layer_outputs(request, _preprocess(images, request)))
    outputs = _classify(request.layers, len(bundle.class_names), _scale(bundle, features))
    return keras.Model(images, outputs, name="headstart_classifier")


def _layer_outputs(request: Request, pixels: Any) -> dict[str, Any]:
    """Return the outputs of the stored and pooled layers by name, averaged over the recipe's views."""
    recipe = request.bundle.recipe
    names = (recipe.layer, *recipe.pooled_layers)
    exact, network = replace(recipe, precision="float32"), request.network
    if network is None:
        backbone = application_model(APPLICATIONS[recipe.backbone], exact, request.weights, names)
    else:
        backbone = build_model(exact, request.weights, network)
    outputs = backbone(pixels) if recipe.views == "single" else _mean_of_views(backbone, pixels, VIEWS[recipe.views])
    return dict(zip(names, outputs, strict=True))


def _mean_of_views(backbone: Any, pixels: Any, views: Sequence[Sequence[str]]) -> list[Any]:
    """Return the outputs of a backbone averaged over views of the images, after turning them back."""
    seen = [[_turned(output, steps[::-1]) for output in backbone(_turned(pixels, steps))] for steps in views]
    return [pairwise_sum(parts) / len(views) for parts in zip(*seen, strict=True)]


def _turned(maps: Any, steps: Iterable[str]) -> Any:
    """Return images or maps, channels last, after the steps of a view (``types.VIEWS``)."""
    ops = import_keras().ops
    for step in steps:
        maps = (
            ops.swapaxes(maps, 1, 2)
            if step == "transpose"
            else ops.flip(maps, axis=("rows", "columns").index(step) + 1)
        )
    return maps


def _preprocess(images: Any, request: Request) -> Any:
    """Return the input of the network: resized, rounded like the uint8 images of a cache, and preprocessed."""
    keras, network, size_px = import_keras(), request.network, request.bundle.recipe.input_size_px
    resized = keras.layers.Resizing(size_px, size_px, interpolation="bilinear", name="resize")(images)
    pixels = keras.ops.round(resized)
    if network is None:
        return APPLICATIONS[request.bundle.recipe.backbone].module.preprocess_input(pixels)
    pixels = keras.ops.flip(pixels, axis=-1) if network.bgr else pixels
    offset = [-mean * network.scale for mean in network.mean]
    return keras.layers.Rescaling(network.scale, offset=offset, name="subtract_means")(pixels)


def _join(bundle: Bundle, maps: dict[str, Any]) -> Any:
    keras = import_keras()
    parts = []
    for name in bundle.spec.features:
        if name in POOLING_LAYERS:
            parts.append(getattr(keras.layers, POOLING_LAYERS[name])(name=f"pool_{name}")(maps[bundle.recipe.layer]))
        elif name == "gem":
            parts.append(generalised_mean(maps[bundle.recipe.layer]))
        elif name == "crops":
            parts.append(average_crops(maps[bundle.recipe.layer]))
        else:
            parts.append(keras.layers.GlobalAveragePooling2D(name=f"average_{name}")(maps[name]))
    return keras.layers.Concatenate(name="features")(parts) if len(parts) > 1 else parts[0]


def average_crops(features: Any) -> Any:
    """Return ``crops`` of heads/transforms.py."""
    ops = import_keras().ops
    parts = [features, *(features[:, rows, columns] for rows, columns in corners(*features.shape[1:3]))]
    return ops.concatenate([ops.mean(part, axis=(1, 2)) for part in parts], axis=1)


def generalised_mean(features: Any) -> Any:
    """Return ``gem`` of heads/transforms.py."""
    ops = import_keras().ops
    positive = ops.relu(features)
    largest = ops.max(positive, axis=(1, 2), keepdims=True)
    shares = positive / ops.where(largest > 0, largest, ops.ones_like(largest))
    means = ops.mean(shares**GEM_POWER, axis=(1, 2), keepdims=True) ** (1 / GEM_POWER)
    return ops.squeeze(means * largest, axis=(1, 2))


def _scale(bundle: Bundle, features: Any) -> Any:
    keras = import_keras()
    kind = bundle.spec.scaling
    if kind == "none":
        return features
    if kind == "standard":
        scaler = bundle.head.steps[0][1]
        return keras.layers.Normalization(mean=scaler.mean_, variance=scaler.scale_**2, name="standard")(features)
    if kind == "sqrt-l2":
        features = keras.ops.sign(features) * keras.ops.sqrt(keras.ops.abs(features))
    return keras.layers.UnitNormalization(name="l2")(features)


def _classify(form: HeadLayers, n_classes: int, features: Any) -> Any:
    keras = import_keras()
    if form.views > 1:
        features = keras.layers.Reshape((form.views, -1), name="views")(features)
    for number, layer in enumerate(form.layers):
        name = "head" if number == len(form.layers) - 1 else f"hidden_{number}"
        features = _dense(layer.kernel, layer.bias, layer.activation, name)(features)
    if form.layers[-1].normalised:
        features = features / keras.ops.sum(features, axis=-1, keepdims=True)
    if form.views > 1:
        features = keras.layers.GlobalAveragePooling1D(name="mean_of_views")(features)
    placement = form.placement(n_classes)
    if placement is not None:
        features = _dense(placement, np.zeros(n_classes, np.float32), "linear", "columns")(features)
    return features


def _dense(kernel: NDArray[np.float32], bias: NDArray[np.float32], activation: str, name: str) -> Any:
    layer = import_keras().layers.Dense(kernel.shape[1], activation=activation, name=name)
    layer.build((None, kernel.shape[0]))
    layer.set_weights([kernel, bias])
    return layer
