"""Keras layers as ONNX operators compute what Keras computes; anything else is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from headstart.errors import HeadstartError
from headstart.exchange.keras_nodes import add_model
from headstart.exchange.onnx_graph import Graph
from headstart.runtime import import_keras
from networks import as_onnx, drawn, scaled

pytestmark = pytest.mark.slow

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

#: Layers with options that the networks of keras.applications may not have, called with ``keras.layers``.
LAYERS: dict[str, Callable[[Any], Any]] = {
    "strided": lambda k: k.Conv2D(4, (3, 2), strides=2, padding="same", activation="relu6"),
    "grouped": lambda k: k.Conv2D(6, 3, groups=3, activation="gelu"),
    "depthwise": lambda k: k.DepthwiseConv2D(3, strides=2, depth_multiplier=2, padding="same", activation="silu"),
    "separable": lambda k: k.SeparableConv2D(5, 3, strides=2, depth_multiplier=2, padding="same", activation="relu"),
    "dense on maps": lambda k: k.Dense(4, use_bias=False),
    "dense": lambda k: k.Dense(4, activation="sigmoid"),
    "batch normalization": lambda k: k.BatchNormalization(epsilon=0.1, scale=False, center=False),
    "layer normalization": lambda k: k.LayerNormalization(epsilon=0.1),
    "layer normalization on maps": lambda k: k.LayerNormalization(axis=3, center=False, epsilon=0.1),
    "max pooling": lambda k: k.MaxPooling2D((3, 2), strides=2, padding="same"),
    "average pooling": lambda k: k.AveragePooling2D(3, strides=2, padding="same"),
    "averages": lambda k: k.GlobalAveragePooling2D(keepdims=True),
    "padding": lambda k: k.ZeroPadding2D(((0, 1), (2, 3))),
    "relu": lambda k: k.ReLU(),
    "relu with a limit": lambda k: k.ReLU(0.5),
    "rescaling": lambda k: k.Rescaling((2.0, 0.5, 3.0), offset=-1.0),
    "normalization": lambda k: k.Normalization(mean=(0.1, 0.2, 0.3), variance=(1.0, 4.0, 0.0)),
    "several": lambda k: import_keras().Sequential([k.Dropout(0.5), k.Conv2D(4, 3, padding="same")]),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_computes_what_keras_computes(kind: str) -> None:
    keras = import_keras()
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (2, 7, 6, 3)).astype(np.uint8)
    values = scaled(images)
    if kind in {"dense", "layer normalization"}:
        values = values.reshape(2, -1)
    inputs = keras.Input(values.shape[1:])
    model = drawn(keras.Model(inputs, LAYERS[kind](keras.layers)(inputs)), values)
    expected = np.asarray(model(values, training=False))
    assert expected.std() > 0
    (found,) = as_onnx(model, images)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda k: k.Conv2D(2, 3, dilation_rate=2, name="odd"), r"odd \(Conv2D\).*dilation_rate is \(2, 2\)"),
        (lambda k: k.UpSampling2D(name="odd"), r"odd \(UpSampling2D\).*expected one of the layers Activation, Add"),
        (lambda k: k.Activation("softsign", name="odd"), r"odd \(Activation\).*softsign"),
        (lambda k: k.LeakyReLU(name="odd"), r"odd \(LeakyReLU\)"),
        (lambda k: k.ReLU(negative_slope=0.5, name="odd"), r"odd \(ReLU\).*negative_slope is 0\.5, expected 0"),
        (lambda k: k.BatchNormalization(axis=1, name="odd"), r"odd \(BatchNormalization\).*axis is 1, expected the last"),
        (lambda k: k.Concatenate(axis=2, name="odd"), r"odd \(Concatenate\).*axis is 2"),
        (lambda k: k.Reshape((3, 14, 3), name="odd"), r"odd \(Reshape\).*target_shape"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_by_name(layer: Callable[[Any], Any], reason: str) -> None:
    keras = import_keras()
    inputs, made = keras.Input((7, 6, 3)), layer(keras.layers)
    outputs = made([inputs, inputs]) if isinstance(made, keras.layers.Concatenate) else made(inputs)
    with pytest.raises(HeadstartError, match=reason):
        add_model(Graph(), keras.Model(inputs, outputs), "images")


def test_other_uses_of_a_layer_are_refused() -> None:
    keras = import_keras()
    inputs, layer = keras.Input((7, 6, 3)), keras.layers.ReLU(name="twice")
    with pytest.raises(HeadstartError, match="expected two inputs or more"):
        add_model(Graph(), keras.Model(inputs, inputs + 1.0), "images")
    with pytest.raises(HeadstartError, match=r"layer twice .* more than once"):
        add_model(Graph(), keras.Model(inputs, layer(layer(inputs))), "images")
