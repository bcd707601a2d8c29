"""VGG16 as an OpenVINO graph, built operation by operation from checked weights: nothing is converted.

The operations are those of set 13 (https://docs.openvino.ai/2025/documentation/openvino-ir-format/operation-sets.html).
Layers keep their Keras names.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.backbone.quantize import CONVOLUTIONS, INPUT_RANGE, QuantizedLayer, oihw
from headstart.backbone.vgg16 import BGR_MEANS, LAYERS
from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from headstart.backbone.weights import Weights
    from headstart.schema import Recipe


def import_openvino(part: str = "openvino") -> Any:
    """Return the ``openvino`` module, or a part of it.

    Raises
    ------
    HeadstartError
        If it is not installed.
    """
    try:
        return importlib.import_module(part)
    except ImportError as error:
        raise HeadstartError(
            f"This needs OpenVINO, which is not installed ({error}): pip install 'headstart[openvino]'. No other engine is "
            "taken in its place: its features would be others."
        ) from error


class Graph:
    """The network under construction: every layer's output, as float and, in an int8 network, as integers.

    Parameters
    ----------
    size_px, batch_size : int
        Of the input.
    weights : Weights
        Of a network in floating point.
    layers, ranges : optional
        Of a quantised one, in place of ``weights``.
    """

    def __init__(
        self,
        size_px: int,
        batch_size: int,
        weights: Weights | None,
        layers: Mapping[str, QuantizedLayer] | None = None,
        ranges: Sequence[float] = (),
    ) -> None:
        self.op = op = import_openvino("openvino.opset13")
        self.weights, self.layers, self.ranges = weights, layers, ranges
        self.images = op.parameter([batch_size, size_px, size_px, 3], np.uint8, name="images")
        values = op.transpose(op.convert(self.images, np.float32), np.array([0, 3, 1, 2]))
        values = op.subtract(values, op.constant(np.array(BGR_MEANS[::-1], np.float32).reshape(1, 3, 1, 1)))
        if layers is not None:
            values = self.rounded(values, *INPUT_RANGE)
        self.exact: dict[str, Any] = {}
        self.passed_on: dict[str, Any] = {}
        for name in LAYERS:
            values = self.add(name, values)

    def add(self, name: str, values: Any) -> Any:
        """Add a layer behind some values and return what it passes on."""
        op = self.op
        if name.endswith("pool"):
            before = self.exact[LAYERS[LAYERS.index(name) - 1]]
            self.exact[name] = op.max_pool(before, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
            if self.layers is None:
                self.passed_on[name] = self.exact[name]
            else:
                self.passed_on[name] = op.max_pool(values, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
            return self.passed_on[name]
        kernel, bias = self.kernel(name)
        values = op.convolution(values, kernel, [1, 1], [1, 1], [1, 1], [1, 1])
        values = op.relu(op.add(values, op.constant(bias.reshape(1, -1, 1, 1))), name=name)
        self.exact[name] = self.passed_on[name] = values
        if self.layers is not None and name != CONVOLUTIONS[-1]:
            self.passed_on[name] = self.rounded(values, 0.0, self.ranges[CONVOLUTIONS.index(name)])
        return self.passed_on[name]

    def kernel(self, name: str) -> tuple[Any, Any]:
        """Return the kernel of a convolution as a node, and its bias."""
        op = self.op
        if self.layers is not None:
            layer = self.layers[name]
            return op.multiply(op.convert(op.constant(layer.kernel), np.float32), op.constant(layer.scale)), layer.bias
        if self.weights is None:
            raise HeadstartError("A network is built from weights, or from quantised layers. Received: neither.")
        kernel, bias = oihw(self.weights, name)
        return op.constant(kernel), bias

    def rounded(self, values: Any, low: float, high: float) -> Any:
        """Return values rounded to 256 levels, which OpenVINO turns into integers."""
        limits = [self.op.constant(np.float32(limit)) for limit in (low, high, low, high)]
        return self.op.fake_quantize(values, *limits, 256)

    def features(self, recipe: Recipe) -> Any:
        """Return the model from images to the recipe's layer, channels last, and the averages of its pooled layers.

        The layer's own output is never rounded. The averages of an int8 network are those of what is passed on: with them
        taken before the rounding, whole maps go through the memory as floats, at a third of the speed.
        """
        ov, op = import_openvino(), self.op
        features = op.transpose(self.exact[recipe.layer], np.array([0, 2, 3, 1]))
        averages = [self.average(self.passed_on[name]) for name in recipe.pooled_layers]
        return ov.Model([op.result(features), op.result(op.concat(averages, 1))], [self.images], "vgg16")

    def average(self, values: Any) -> Any:
        """Return the average of each channel, shape (n_images, n_channels).

        Blocks of a map are added up first, by a convolution with ones: a convolution takes values as they lie in the memory,
        in the type that they have, and adds them up without rounding. OpenVINO averages in float32, and the convolution that
        the map comes from would write float32 for it, which costs a third of the time in bfloat16; or, where the map is in
        integers, it averages blocks in integers too, which is wrong by some percent.
        """
        op, (_, n_channels, size, _) = self.op, values.output(0).get_shape()
        block = averaged_block(size)
        ones = op.convert(op.constant(np.ones((n_channels, 1, 1, block, block), np.int8)), np.float32)
        # In integers a kernel is known by its scale.
        ones = op.multiply(ones, op.constant(np.ones((n_channels, 1, 1, 1, 1), np.float32)))
        blocks = op.group_convolution(values, ones, [block, block], [0, 0], [0, 0], [1, 1])
        return op.multiply(op.reduce_sum(blocks, np.array([2, 3]), False), op.constant(np.float32(1 / size**2)))

    def maxima(self) -> Any:
        """Return the model from images to the largest value of each convolution, shape (n_images, 13)."""
        ov, op = import_openvino(), self.op
        axes = np.array([1, 2, 3])
        largest = [op.unsqueeze(op.reduce_max(self.exact[name], axes, False), np.array(1)) for name in CONVOLUTIONS]
        return ov.Model([op.result(op.concat(largest, 1))], [self.images], "vgg16-maxima")


def averaged_block(size_px: int, largest: int = 16) -> int:
    """Return the height and width of the blocks that a map of this height and width is added up by: the largest that fit."""
    return max(block for block in range(1, largest + 1) if size_px % block == 0)
