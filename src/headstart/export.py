"""The whole classifier, image in and probabilities out, as one Keras file that needs nothing of headstart."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbone.vgg16 import BGR_MEANS, build_model, check_runnable
from headstart.backbone.weights import Weights, load_weights
from headstart.errors import HeadstartError
from headstart.heads.bundle import Bundle, load_bundle
from headstart.heads.names import GEM_POWER
from headstart.runtime import import_keras

#: What Keras calls the poolings of the stored layer.
POOLING_LAYERS = {"flatten": "Flatten", "avg": "GlobalAveragePooling2D", "max": "GlobalMaxPooling2D"}


def export_keras(
    head: str | Path, output: str | Path, *, weights: str | Path = "imagenet", overwrite: bool = False
) -> Path:
    """Write a saved head and its backbone as one Keras model; return the file with its class names.

    The model takes a batch of RGB images, 0–255, of any height and width; it resizes, rounds, preprocesses and computes
    in float32, and gives probabilities in the order of the class names.

    Parameters
    ----------
    head : str or Path
        A bundle's folder.
    output : str or Path
        The file to write; its name ends in ``.keras``.
    weights : str or Path
        ``imagenet``, or the file of the custom weights that the head was fitted for.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    HeadstartError
        If the file exists, its name is of another kind, or Keras cannot express the head or its recipe exactly.
    """
    target = Path(output)
    if target.suffix != ".keras":
        raise HeadstartError(f"A Keras model is written to a file that ends in .keras. Received: {target}.")
    if target.exists() and not overwrite:
        raise HeadstartError(f"{target} exists already. Use --overwrite to replace it.")
    bundle = load_bundle(Path(head))
    check_runnable(bundle.recipe)
    model = build_classifier(bundle, load_weights(weights, custom=str(weights) != "imagenet"))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        partial = Path(folder) / target.name
        model.save(partial)
        partial.replace(target)
    names = target.with_suffix(".classes.json")
    names.write_text(json.dumps(list(bundle.class_names), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return names


def build_classifier(bundle: Bundle, weights: Weights) -> Any:
    """Return the Keras model of a head: images of shape (n, height, width, 3) to probabilities of shape (n, n_classes)."""
    recipe = bundle.recipe
    if recipe.resize != "keras-bilinear":
        raise HeadstartError(
            f"A Keras model can carry the resize preset keras-bilinear only. The head was fitted on {recipe.resize!r}."
        )
    if weights.sha256 != recipe.weights_sha256:
        raise HeadstartError(
            f"The head was fitted on features of other weights (sha256 {recipe.weights_sha256[:12]}…). "
            f"Received: {weights.source} (sha256 {weights.sha256[:12]}…). Name the right file with --weights PATH."
        )
    keras = import_keras()
    backbone = build_model(replace(recipe, precision="float32"), weights)
    images = keras.Input((None, None, 3), name="images")
    maps = dict(
        zip((recipe.layer, *recipe.pooled_layers), backbone(preprocess(images, recipe.input_size_px)), strict=False)
    )
    features = join(bundle, maps)
    outputs = classify(bundle.head.steps[-1][1], scale(bundle, features))
    return keras.Model(images, outputs, name="headstart_classifier")


def preprocess(images: Any, size_px: int) -> Any:
    """Return what VGG16 takes: resized, rounded as the cache's uint8 images are, blue first, means subtracted."""
    keras = import_keras()
    resized = keras.layers.Resizing(size_px, size_px, interpolation="bilinear", name="resize")(images)
    bgr = keras.ops.flip(keras.ops.round(resized), axis=-1)
    return keras.layers.Rescaling(1.0, offset=[-mean for mean in BGR_MEANS], name="subtract_means")(bgr)


def join(bundle: Bundle, maps: dict[str, Any]) -> Any:
    """Return the head's features from the layers' outputs, as heads/transforms.py makes them from a cache."""
    keras = import_keras()
    parts = []
    for name in bundle.spec.features:
        if name in POOLING_LAYERS:
            parts.append(getattr(keras.layers, POOLING_LAYERS[name])(name=name)(maps[bundle.recipe.layer]))
        elif name == "gem":
            parts.append(generalised_mean(maps[bundle.recipe.layer]))
        else:
            parts.append(keras.layers.GlobalAveragePooling2D(name=f"average_{name}")(maps[name]))
    return keras.layers.Concatenate(name="features")(parts) if len(parts) > 1 else parts[0]


def generalised_mean(features: Any) -> Any:
    """Return what heads/transforms.py makes of a layer's output under the name ``gem``."""
    ops = import_keras().ops
    positive = ops.relu(features)
    largest = ops.max(positive, axis=(1, 2), keepdims=True)
    shares = positive / ops.where(largest > 0, largest, ops.ones_like(largest))
    means = ops.mean(shares**GEM_POWER, axis=(1, 2), keepdims=True) ** (1 / GEM_POWER)
    return ops.squeeze(means * largest, axis=(1, 2))


def scale(bundle: Bundle, features: Any) -> Any:
    """Return scaled features, as the head's scaling step makes them."""
    keras = import_keras()
    kind = bundle.spec.scaling
    if kind == "none":
        return features
    if kind == "standard":
        scaler = bundle.head.steps[0][1]
        return keras.layers.Normalization(mean=scaler.mean_, variance=scaler.scale_**2, name="standard")(features)
    if kind == "sqrt-l2":
        features = keras.ops.sqrt(keras.ops.relu(features))  # activations after ReLU: never negative
    return keras.layers.UnitNormalization(name="l2")(features)


def classify(classifier: Any, features: Any) -> Any:
    """Return probabilities from scaled features.

    Raises
    ------
    HeadstartError
        If Keras cannot express the classifier exactly.
    """
    kind = type(classifier).__name__
    if kind == "DenseHead":
        return classifier.network_(features)
    if kind == "LogisticHead":
        return dense(classifier.coef_, classifier.intercept_, "softmax")(features)
    if kind == "RidgeHead":
        two_sided = 2.0 if len(classifier.coef_) == 1 else 1.0  # softmax([−s, s]) is softmax([0, 2 s])
        factor = two_sided / classifier.temperature_
        return dense(factor * classifier.coef_, factor * classifier.intercept_, "softmax")(features)
    if kind == "ClassMeanHead":
        coefficients, intercepts = classifier.linear_form()
        return dense(coefficients, intercepts, "softmax")(features)
    if kind == "LinearSVMHead":
        return calibrated(classifier.calibrated_.calibrated_classifiers_[0], features)
    raise HeadstartError(
        f"A {kind} head cannot be expressed exactly as a Keras model. Those that can: dense, logistic, linear-svm, ridge, "
        "nearest-class-mean."
    )


def dense(coefficients: Any, intercept: Any, activation: str) -> Any:
    """Return a Dense layer of linear coefficients; two classes with one row of them get a row of zeros for the first."""
    keras = import_keras()
    kernel, bias = np.asarray(coefficients, np.float32), np.asarray(intercept, np.float32).ravel()
    if activation == "softmax" and len(kernel) == 1:
        # softmax([0, z]) is [1 − sigmoid(z), sigmoid(z)], scikit-learn's two probabilities
        kernel, bias = np.vstack([np.zeros_like(kernel), kernel]), np.concatenate([[0.0], bias])
    layer = keras.layers.Dense(len(kernel), activation=activation, name="head")
    layer.build((None, kernel.shape[1]))
    layer.set_weights([kernel.T, bias])
    return layer


def calibrated(fitted: Any, features: Any) -> Any:
    """Return calibrated probabilities of a linear SVM: Platt's sigmoid per class, then divided by their sum."""
    keras = import_keras()
    a = np.array([sigmoid.a_ for sigmoid in fitted.calibrators])[:, None]
    b = np.array([sigmoid.b_ for sigmoid in fitted.calibrators])
    svm = fitted.estimator
    probabilities = dense(-a * svm.coef_, -(a[:, 0] * svm.intercept_ + b), "sigmoid")(features)
    if len(svm.coef_) == 1:
        return keras.ops.concatenate([1.0 - probabilities, probabilities], axis=-1)
    return probabilities / keras.ops.sum(probabilities, axis=-1, keepdims=True)
