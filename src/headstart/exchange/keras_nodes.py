"""A functional Keras model as ONNX operators: the layers of which the networks of ``keras.applications`` consist.

Keras keeps the channels of a map last, ONNX first; all other axes stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from headstart.backbones.convnet import same_padding
from headstart.errors import HeadstartError
from headstart.exchange.onnx_graph import Graph, activate, over_positions
from headstart.runtime import import_keras

#: Adds a layer: ``(graph, layer, shape of the first input, *inputs)`` → output.
AddLayer = Callable[..., str]

#: Of a batch: its length is not known, the others are.
Shape = Sequence[Any]


def add_model(graph: Graph, model: Any, value: str) -> list[str]:
    """Add a Keras model of one input, a map; return its outputs, in the order of ``model.outputs``.

    Layers compute as in inference. Raises HeadstartError, naming the layer, if its kind is unknown or an option unsupported.
    """
    values = {id(model.inputs[0]): value}
    for layer in model.operations:
        node, *more = layer._inbound_nodes
        if more:
            raise HeadstartError(f"The layer {layer.name} cannot be written to ONNX: it is called more than once.")
        if node.input_tensors:
            inputs = [values[id(tensor)] for tensor in node.input_tensors]
            values[id(node.output_tensors[0])] = add_layer(graph, layer, node.input_tensors[0].shape, inputs)
    return [values[id(tensor)] for tensor in model.outputs]


def add_layer(graph: Graph, layer: Any, shape: Shape, inputs: Sequence[str]) -> str:
    """Add a layer whose first input has this shape; return its output. Errors as of :func:`add_model`."""
    kind = type(layer).__name__
    try:
        if kind not in LAYERS:
            raise HeadstartError(f"expected one of the layers {', '.join(LAYERS)}.")
        return LAYERS[kind](graph, layer, shape, *inputs)
    except HeadstartError as error:
        raise HeadstartError(f"The layer {layer.name} ({kind}) cannot be written to ONNX: {error}") from error


def expect(layer: Any, **options: Any) -> None:
    """Raise HeadstartError unless the layer has these options."""
    for name, expected in options.items():
        received = getattr(layer, name)
        if received != expected:
            raise HeadstartError(f"{name} is {received!r}, expected {expected!r}.")


def expect_channels(axis: Any, shape: Shape) -> None:
    """Raise HeadstartError unless an axis of a layer is the one of the channels, which is the last."""
    axes = list(axis) if isinstance(axis, list | tuple) else [axis]
    if axes not in ([-1], [len(shape) - 1]):
        raise HeadstartError(f"axis is {axis!r}, expected the last one.")


def array(variable: Any) -> Any:
    """Return the values of a weight, float32."""
    return np.asarray(variable, np.float32)


def per_channel(graph: Graph, values: Any, shape: Shape) -> str:
    """Add a constant with one value per channel, or one for all, that fits values of this shape."""
    return graph.constant(np.reshape(array(values), (-1, *[1] * (len(shape) - 2))))


def biased(layer: Any, graph: Graph) -> list[str]:
    """Add the bias of a layer; return it as the list of its inputs after the kernel."""
    return [graph.constant(array(layer.bias))] if layer.use_bias else []


def activated(graph: Graph, layer: Any, value: str) -> str:
    """Add the activation of a layer."""
    name = getattr(layer.activation, "__name__", repr(layer.activation))
    return value if name == "linear" else activate(graph, name, value)


def window(layer: Any, size: Sequence[int], shape: Shape) -> dict[str, Any]:
    """Return the attributes of a window of this size that a layer moves over maps of this shape."""
    expect(layer, data_format="channels_last")
    sides = zip(shape[1:3], size, layer.strides, strict=True)
    pads = [same_padding(*side) for side in sides] if layer.padding == "same" else [(0, 0), (0, 0)]
    return {
        "kernel_shape": list(size),
        "strides": list(layer.strides),
        "pads": [before for before, _ in pads] + [behind for _, behind in pads],
    }


def convolution(graph: Graph, layer: Any, shape: Shape, value: str) -> str:
    """Add a Conv2D."""
    expect(layer, dilation_rate=(1, 1))
    kernel = array(layer.kernel)
    options = window(layer, kernel.shape[:2], shape) | {"group": layer.groups}
    weights = graph.constant(kernel.transpose(3, 2, 0, 1)), *biased(layer, graph)
    return activated(graph, layer, graph.add("Conv", value, *weights, **options))


def depthwise(graph: Graph, layer: Any, shape: Shape, value: str, kernel: Any, *bias: str) -> str:
    """Add a convolution of each channel on its own; the kernel has shape (height, width, channels, multiplier)."""
    expect(layer, dilation_rate=(1, 1))
    height, width, n_channels, multiplier = kernel.shape
    weights = kernel.transpose(2, 3, 0, 1).reshape(n_channels * multiplier, 1, height, width)
    options = window(layer, (height, width), shape) | {"group": n_channels}
    return graph.add("Conv", value, graph.constant(weights), *bias, **options)


def depthwise_convolution(graph: Graph, layer: Any, shape: Shape, value: str) -> str:
    """Add a DepthwiseConv2D."""
    value = depthwise(graph, layer, shape, value, array(layer.kernel), *biased(layer, graph))
    return activated(graph, layer, value)


def separable_convolution(graph: Graph, layer: Any, shape: Shape, value: str) -> str:
    """Add a SeparableConv2D."""
    value = depthwise(graph, layer, shape, value, array(layer.depthwise_kernel))
    kernel = graph.constant(array(layer.pointwise_kernel).transpose(3, 2, 0, 1))
    return activated(graph, layer, graph.add("Conv", value, kernel, *biased(layer, graph)))


def dense(graph: Graph, layer: Any, shape: Shape, value: str) -> str:
    """Add a Dense over the channels."""
    kernel, bias = array(layer.kernel), biased(layer, graph)
    if len(shape) == 2:
        return activated(graph, layer, graph.add("Gemm", value, graph.constant(kernel), *bias))
    weights = graph.constant(kernel.T[:, :, None, None])
    return activated(graph, layer, graph.add("Conv", value, weights, *bias))


def batch_normalization(graph: Graph, layer: Any, shape: Shape, value: str) -> str:
    """Add a BatchNormalization with the stored statistics."""
    expect_channels(layer.axis, shape)
    mean = array(layer.moving_mean)
    gamma = array(layer.gamma) if layer.scale else np.ones_like(mean)
    beta = array(layer.beta) if layer.center else np.zeros_like(mean)
    values = map(graph.constant, (gamma, beta, mean, array(layer.moving_variance)))
    return graph.add("BatchNormalization", value, *values, epsilon=layer.epsilon)


def layer_normalization(graph: Graph, layer: Any, shape: Shape, value: str) -> str:
    """Add a LayerNormalization over the channels, which ONNX has for the last axes alone."""
    expect_channels(layer.axis, shape)
    if getattr(layer, "rms_scaling", False):
        expect(layer, rms_scaling=False)
    gamma = array(layer.gamma) if layer.scale else np.ones(shape[-1], np.float32)
    weights = [graph.constant(gamma), *([graph.constant(array(layer.beta))] if layer.center else [])]
    options = {"axis": -1, "epsilon": layer.epsilon}
    if len(shape) == 2:
        return graph.add("LayerNormalization", value, *weights, **options)
    last = graph.add("Transpose", value, perm=[0, 2, 3, 1])
    return graph.add("Transpose", graph.add("LayerNormalization", last, *weights, **options), perm=[0, 3, 1, 2])


def normalization(graph: Graph, layer: Any, shape: Shape, value: str) -> str:
    """Add a Normalization."""
    expect_channels(layer.axis, shape)
    expect(layer, invert=False)
    deviation = np.maximum(np.sqrt(array(layer.variance)), import_keras().config.epsilon())
    centred = graph.add("Sub", value, per_channel(graph, layer.mean, shape))
    return graph.add("Div", centred, per_channel(graph, deviation, shape))


def rescaling(graph: Graph, layer: Any, shape: Shape, value: str) -> str:
    """Add a Rescaling."""
    scaled = graph.add("Mul", value, per_channel(graph, layer.scale, shape))
    return graph.add("Add", scaled, per_channel(graph, layer.offset, shape))


def layer_scale(graph: Graph, layer: Any, shape: Shape, value: str) -> str:
    """Add a LayerScale."""
    return graph.add("Mul", value, per_channel(graph, layer.gamma, shape))


def relu(graph: Graph, layer: Any, _shape: Shape, value: str) -> str:
    """Add a ReLU."""
    expect(layer, negative_slope=0, threshold=0)
    if layer.max_value is None:
        return graph.add("Relu", value)
    return graph.add("Clip", value, graph.constant(0), graph.constant(layer.max_value))


def activation(graph: Graph, layer: Any, _shape: Shape, value: str) -> str:
    """Add an Activation."""
    return activated(graph, layer, value)


def max_pooling(graph: Graph, layer: Any, shape: Shape, value: str) -> str:
    """Add a MaxPooling2D."""
    return graph.add("MaxPool", value, **window(layer, layer.pool_size, shape))


def average_pooling(graph: Graph, layer: Any, shape: Shape, value: str) -> str:
    """Add an AveragePooling2D; the padding is not counted."""
    return graph.add("AveragePool", value, **window(layer, layer.pool_size, shape), count_include_pad=0)


def global_average_pooling(graph: Graph, layer: Any, _shape: Shape, value: str) -> str:
    """Add a GlobalAveragePooling2D."""
    expect(layer, data_format="channels_last")
    return over_positions(graph, "Mean", value, keepdims=int(layer.keepdims))


def zero_padding(graph: Graph, layer: Any, _shape: Shape, value: str) -> str:
    """Add a ZeroPadding2D."""
    expect(layer, data_format="channels_last")
    (top, bottom), (left, right) = layer.padding
    return graph.add("Pad", value, graph.constant([0, 0, top, left, 0, 0, bottom, right], np.int64))


def reshape(graph: Graph, layer: Any, shape: Shape, value: str) -> str:
    """Add a Reshape of averages to a map of one position."""
    expect(layer, target_shape=(1, 1, shape[-1]))
    if len(shape) == 4:
        return value
    return graph.add("Unsqueeze", value, graph.constant([2, 3], np.int64))


def of_all(operation: str) -> AddLayer:
    """Return what adds an operator over all inputs, element by element."""

    def add(graph: Graph, layer: Any, _shape: Shape, *values: str) -> str:
        ranks = {len(tensor.shape) for tensor in layer._inbound_nodes[0].input_tensors}
        if len(values) < 2 or len(ranks) > 1:
            raise HeadstartError(f"expected two inputs or more, of one rank. Received: {len(values)}.")
        total, *others = values
        for value in others:
            total = graph.add(operation, total, value)
        return total

    return add


def concatenate(graph: Graph, layer: Any, shape: Shape, *values: str) -> str:
    """Add a Concatenate along the channels."""
    expect_channels(layer.axis, shape)
    return graph.add("Concat", *values, axis=1)


def chain(graph: Graph, model: Any, _shape: Shape, value: str) -> str:
    """Add a Sequential."""
    for layer in model.layers:
        value = add_layer(graph, layer, layer.input.shape, [value])
    return value


def unchanged(_graph: Graph, _layer: Any, _shape: Shape, value: str) -> str:
    """Return the input: what only training does is left out."""
    return value


#: Kind of a layer, or of an operation on tensors → what adds it.
LAYERS: Mapping[str, AddLayer] = {
    "Activation": activation,
    "Add": of_all("Add"),
    "AveragePooling2D": average_pooling,
    "BatchNormalization": batch_normalization,
    "Concatenate": concatenate,
    "Conv2D": convolution,
    "Dense": dense,
    "DepthwiseConv2D": depthwise_convolution,
    "Dropout": unchanged,
    "GlobalAveragePooling2D": global_average_pooling,
    "LayerNormalization": layer_normalization,
    "LayerScale": layer_scale,
    "MaxPooling2D": max_pooling,
    "Multiply": of_all("Mul"),
    "Normalization": normalization,
    "ReLU": relu,
    "Rescaling": rescaling,
    "Reshape": reshape,
    "SeparableConv2D": separable_convolution,
    "Sequential": chain,
    "StochasticDepth": unchanged,
    "ZeroPadding2D": zero_padding,
}
