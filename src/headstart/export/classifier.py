"""The checked input of an export: the backbone, and the fitted head as dense layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.backbones.registry import check_runnable
from headstart.backbones.weights import Weights, load_weights
from headstart.bundles.bundle import Bundle, load_bundle
from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Catalogue names of heads that dense layers can express.
EXPRESSIBLE = ("dense", "logistic", "linear-svm", "ridge", "nearest-class-mean")


@dataclass(frozen=True, slots=True)
class Layer:
    """``activation(x @ kernel + bias)``.

    Attributes
    ----------
    kernel : ndarray of shape (n_inputs, n_outputs), float32
        Coefficients.
    bias : ndarray of shape (n_outputs,), float32
        Intercepts.
    activation : str
        ``softmax``, ``sigmoid``, ``linear``, or one of ``heads.parameters.ACTIVATIONS``; names as in Keras.
    """

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    activation: str


@dataclass(frozen=True, slots=True)
class HeadLayers:
    """Layers from scaled features to probabilities.

    Attributes
    ----------
    layers : tuple of Layer
        In order.
    normalised : bool
        Whether to divide each row of outputs by its sum.
    columns : ndarray of shape (n_outputs,), int64
        Class index of each output; classes without a training image have none.
    views : int
        Number of equally wide parts of a row that go through the layers separately; the outputs are averaged.
    """

    layers: tuple[Layer, ...]
    normalised: bool
    columns: NDArray[np.int64]
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
    kind = type(classifier).__name__
    normalised = False
    if kind == "DenseHead":
        layers = _dense_layers(classifier)
    elif kind == "LogisticHead":
        layers = (_softmax_layer(classifier.coef_, classifier.intercept_),)
    elif kind == "RidgeHead":
        two_sided = 2.0 if len(classifier.coef_) == 1 else 1.0  # softmax([−s, s]) is softmax([0, 2 s])
        factor = two_sided / classifier.temperature_
        layers = (_softmax_layer(factor * classifier.coef_, factor * classifier.intercept_),)
    elif kind == "ClassMeanHead":
        layers = (_softmax_layer(*classifier.linear_form()),)
    elif hasattr(classifier, "temperature_") and kind == "LinearSVMHead":
        svm, factor = classifier.svm_, 1.0 / classifier.temperature_
        layers = (_softmax_layer(factor * svm.coef_, factor * svm.intercept_),)
    elif kind == "LinearSVMHead":
        layers = (_calibrated_layer(classifier.calibrated_.calibrated_classifiers_[0]),)
        normalised = len(classifier.classes_) > 2
    else:
        raise HeadstartError(
            f"A {kind} head cannot be expressed exactly as layers of a network, so it cannot be exported. Those that can: "
            f"{', '.join(EXPRESSIBLE)}."
        )
    return HeadLayers(layers, normalised, np.asarray(classifier.classes_, np.int64), getattr(classifier, "views", 1))


def _dense_layers(classifier: Any) -> tuple[Layer, ...]:
    weights = classifier.network_.get_weights()
    kernels, biases = weights[::2], weights[1::2]
    activations = [classifier.activation] * (len(kernels) - 1) + ["softmax"]
    return tuple(Layer(*parts) for parts in zip(kernels, biases, activations, strict=True))


def _softmax_layer(coefficients: Any, intercepts: Any) -> Layer:
    """Return linear coefficients, one row per class, as a layer; a single row is the second of two classes."""
    kernel, bias = np.asarray(coefficients, np.float64), np.asarray(intercepts, np.float64).ravel()
    if len(kernel) == 1:
        # softmax([0, z]) is [1 − sigmoid(z), sigmoid(z)], scikit-learn's two probabilities
        kernel, bias = np.vstack([np.zeros_like(kernel), kernel]), np.concatenate([[0.0], bias])
    return Layer(kernel.T.astype(np.float32), bias.astype(np.float32), "softmax")


def _calibrated_layer(fitted: Any) -> Layer:
    """Return a linear SVM with Platt scaling; for more than two classes, as in older heads, one sigmoid each."""
    a = np.array([sigmoid.a_ for sigmoid in fitted.calibrators])[:, None]
    b = np.array([sigmoid.b_ for sigmoid in fitted.calibrators])
    svm = fitted.estimator
    kernel, bias = -a * svm.coef_, -(a[:, 0] * svm.intercept_ + b)
    if len(kernel) == 1:
        kernel, bias = np.vstack([-kernel, kernel]), np.concatenate([-bias, bias])  # 1 − sigmoid(z) is sigmoid(−z)
    return Layer(kernel.T.astype(np.float32), bias.astype(np.float32), "sigmoid")


@dataclass(frozen=True, slots=True)
class Request:
    """The content of an exported model.

    Attributes
    ----------
    bundle : Bundle
        The saved head.
    layers : HeadLayers
        Its classifier.
    weights : Weights
        Weights of its backbone.
    """

    bundle: Bundle
    layers: HeadLayers
    weights: Weights


def open_request(
    head: str | Path, target: Path, suffix: str, weights: str | Path = "imagenet", overwrite: bool = False
) -> Request:
    """Return the content of a model to export; inexpensive checks come before reading the weights.

    Raises
    ------
    HeadstartError
        If the file exists, its suffix is wrong, or the head or its recipe cannot be expressed exactly.
    """
    if target.suffix != suffix:
        raise HeadstartError(f"This kind of model is written to a file that ends in {suffix}. Received: {target}.")
    if target.exists() and not overwrite:
        raise HeadstartError(f"{target} exists already. Use --overwrite to replace it.")
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
            "images would get other features. Extract them with --precision auto, fit the head on those, and export it."
        )
    layers = as_layers(bundle.head.steps[-1][1])
    loaded = load_weights(weights, custom=str(weights) != "imagenet")
    if loaded.sha256 != recipe.weights_sha256:
        raise HeadstartError(
            f"The head was fitted on features of other weights (sha256 {recipe.weights_sha256[:12]}…). "
            f"Received: {loaded.source} (sha256 {loaded.sha256[:12]}…). Name the right file with --weights PATH."
        )
    return Request(bundle, layers, loaded)
