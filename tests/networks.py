"""Keras networks with random weights, for backbones whose published ones are not on this machine; and as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones.keras_applications import APPLICATIONS, Application
from headstart.backbones.spec import BackboneSpec
from headstart.exchange.keras_nodes import add_model
from headstart.exchange.onnx_graph import Graph, as_float
from headstart.runtime import import_keras

#: Parts of the names of weights that Keras starts with zeros, ones, or in ConvNeXt's scales nearly zero.
CONSTANT = ("beta", "bias", "gamma", "layer_scale")


def drawn(model: Any, inputs: np.ndarray) -> Any:
    """Give a Keras model random weights, and its normalisations the statistics of these inputs, so that no signal is lost."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if any(name in variable.path for name in CONSTANT):
            variable.assign(variable.numpy() + rng.normal(0, 0.1, variable.shape))
    for layer in model.layers:
        if hasattr(layer, "moving_mean"):
            layer.momentum = 0.0
    model(inputs, training=True)
    return model


def random_images(n_images: int, size_px: int) -> np.ndarray:
    """Return images of blocks of colours, uint8 of shape (n_images, size_px, size_px, 3); some are darker than others."""
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (n_images, 5, 5, 3)) * rng.uniform(0.3, 1, (n_images, 1, 1, 1))
    side = np.arange(size_px) * 5 // size_px
    return blocks.astype(np.uint8)[:, side][:, :, side]


def random_model(application: Application, size_px: int) -> Any:
    """Return a network of ``keras.applications`` without top, with random weights."""
    import_keras().utils.set_random_seed(0)
    inputs = application.module.preprocess_input(random_images(8, size_px).astype(np.float32))
    return drawn(application.model(size_px), inputs)


def weights_file(spec: BackboneSpec, folder: Path) -> Path | None:
    """Write random weights of a backbone to a folder; None for one that Keras does not have."""
    keras, file = import_keras(), folder / f"{spec.name}.weights.h5"
    if spec.name in APPLICATIONS:
        random_model(APPLICATIONS[spec.name], max(75, spec.min_input_size_px)).save_weights(file)
    elif spec.name == "vgg16":
        keras.utils.set_random_seed(0)
        keras.applications.VGG16(weights=None, include_top=False, input_shape=(75, 75, 3)).save_weights(file)
    else:
        return None
    return file


def scaled(images: np.ndarray) -> np.ndarray:
    """Return uint8 images as float32 values of −1 to 1."""
    return images.astype(np.float32) / 127.5 - 1


def as_onnx(model: Any, images: np.ndarray) -> list[np.ndarray]:
    """Return the outputs of a Keras model that ONNX Runtime computes, on scaled images."""
    import onnxruntime

    graph, shapes = Graph(), [output.shape[1:] for output in model.outputs]
    values = graph.add("Sub", graph.add("Div", as_float(graph, "images"), graph.constant(127.5)), graph.constant(1))
    if len(model.input_shape) == 2:
        values = graph.add("Flatten", values, axis=1)
    else:
        values = graph.add("Transpose", values, perm=[0, 3, 1, 2])
    rows = []
    for output, shape in zip(add_model(graph, model, values), shapes, strict=True):
        last = graph.add("Transpose", output, perm=[0, 2, 3, 1]) if len(shape) == 3 else output
        rows.append(graph.add("Flatten", last, axis=1))
    graph.add("Concat", *rows, axis=1, name="probabilities")
    sizes = [int(np.prod(shape)) for shape in shapes]
    data = graph.to_bytes(sum(sizes), description="", metadata={})
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images})
    parts = np.split(found, np.cumsum(sizes)[:-1], axis=1)
    return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]
