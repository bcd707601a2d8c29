"""Convolutional networks on OpenVINO, without TensorFlow: the graph, and the backbone that runs it."""

from __future__ import annotations

import functools
import importlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.convnet import IMAGES, Addition, ConvNet, Convolution, Layer, Weights
from headstart.backbones.precision import (
    CALIBRATION_SEED,
    CONVOLUTIONS,
    INPUT_RANGE,
    MIN_RANGE,
    QuantizedLayer,
    check_int8_cpu,
    cpu_flags,
    has_bfloat16,
    network_sha256,
    oihw,
    quantize_layers,
    sample_sha256,
)
from headstart.backbones.spec import NetworkBackbone, check_images, joined, padded
from headstart.backbones.vgg16 import NETWORK as VGG16_NETWORK
from headstart.errors import HeadstartError, RecipeMismatchError
from headstart.runtime import available_threads
from headstart.types import FeatureBatch, Quantization, Recipe


def import_openvino(part: str = "openvino") -> Any:
    """Return the ``openvino`` module, or a part of it; raise HeadstartError if it is not installed."""
    try:
        return importlib.import_module(part)
    except ImportError as error:
        raise HeadstartError(
            f"This needs OpenVINO, which is not installed ({error}): pip install 'headstart[openvino]'. No other engine is "
            "taken in its place: its features would be others."
        ) from error


class Graph:
    """The network under construction: the output of every layer, as floats and, in an int8 network, as integers.

    It is built from ``weights``, or from the ``layers`` and ``ranges`` of a quantised network.
    """

    def __init__(
        self,
        network: ConvNet,
        size_px: int,
        batch_size: int,
        weights: Weights | None,
        layers: Mapping[str, QuantizedLayer] | None = None,
        ranges: Sequence[float] = (),
    ) -> None:
        self.op = op = import_openvino("openvino.opset13")
        self.network, self.sides = network, network.sides(size_px)
        self.weights, self.layers, self.ranges = weights, layers, ranges
        self.images = op.parameter([batch_size, size_px, size_px, 3], np.uint8, name=IMAGES)
        values = op.transpose(op.convert(self.images, np.float32), np.array([0, 3, 1, 2]))
        mean = network.mean[::-1] if network.bgr else network.mean  # in the order of the images; kernels are turned
        values = op.subtract(values, op.constant(np.array(mean, np.float32).reshape(1, 3, 1, 1)))
        if network.scale != 1:
            values = op.multiply(values, op.constant(np.float32(network.scale)))
        if layers is not None:
            values = self.rounded(values, *INPUT_RANGE)
        self.exact: dict[str, Any] = {}
        self.passed_on: dict[str, Any] = {IMAGES: values}
        for layer in network.layers:
            self.add(layer)

    def add(self, layer: Layer) -> None:
        """Add a layer: its exact output, and the values that are passed on, which an int8 network rounds."""
        op, name = self.op, layer.name
        inputs = [self.passed_on[source] for source in layer.sources]
        if isinstance(layer, Convolution):
            self.exact[name] = self.passed_on[name] = self.convolved(layer, *inputs)
            if self.layers is not None and name != CONVOLUTIONS[-1]:
                self.passed_on[name] = self.rounded(self.exact[name], 0.0, self.ranges[CONVOLUTIONS.index(name)])
        elif isinstance(layer, Addition):
            self.exact[name] = self.passed_on[name] = op.add(*inputs)
        else:
            pool = ([2, 2], [1, 1], [0, 0], [0, 0], [2, 2])
            self.exact[name] = self.passed_on[name] = op.max_pool(self.exact[layer.source], *pool).output(0)
            if self.layers is not None:
                self.passed_on[name] = op.max_pool(*inputs, *pool).output(0)

    def convolved(self, layer: Convolution, values: Any) -> Any:
        """Return the output of a convolution and its activation."""
        op = self.op
        kernel, bias = self.kernel(layer)
        before, behind = layer.padding(self.sides[layer.source])
        convolution = op.group_convolution if layer.depthwise else op.convolution
        values = convolution(values, kernel, [layer.stride] * 2, [before] * 2, [behind] * 2, [1, 1])
        values = op.add(values, op.constant(bias.reshape(1, -1, 1, 1)))
        if layer.activation == "relu6":
            return op.clamp(values, 0.0, 6.0, name=layer.name)
        return op.relu(values, name=layer.name) if layer.activation == "relu" else values

    def kernel(self, layer: Convolution) -> tuple[Any, Any]:
        """Return the kernel of a convolution as a node, and its bias."""
        op = self.op
        if self.layers is not None:
            rounded = self.layers[layer.name]
            integers = op.convert(op.constant(rounded.kernel), np.float32)
            return op.multiply(integers, op.constant(rounded.scale)), rounded.bias
        if self.weights is None:
            raise HeadstartError("A network is built from weights, or from quantised layers. Received: neither.")
        if layer.depthwise:
            kernel, bias = self.weights.tensors[layer.name]  # shape (height, width, channel, 1)
            return op.constant(np.ascontiguousarray(kernel.transpose(2, 3, 0, 1)[:, None])), bias
        kernel, bias = oihw(self.weights, layer.name, turned=self.network.bgr and layer.source == IMAGES)
        return op.constant(kernel), bias

    def rounded(self, values: Any, low: float, high: float) -> Any:
        """Return values rounded to 256 levels, which OpenVINO turns into integers."""
        limits = [self.op.constant(np.float32(limit)) for limit in (low, high, low, high)]
        return self.op.fake_quantize(values, *limits, 256)

    def features(self, recipe: Recipe) -> Any:
        """Return the model from images to the recipe's layer, channels last, and the averages of its pooled layers.

        The output of the layer itself is never rounded. The averages of an int8 network are those of the rounded values:
        before the rounding, whole maps would be written as floats, at a third of the speed.
        """
        ov, op = import_openvino(), self.op
        features = op.transpose(self.exact[recipe.layer], np.array([0, 2, 3, 1]))
        averages = [self.average(self.passed_on[name]) for name in recipe.pooled_layers]
        return ov.Model([op.result(features), op.result(op.concat(averages, 1))], [self.images], "backbone")

    def average(self, values: Any) -> Any:
        """Return the average of each channel, shape (n_images, n_channels).

        Blocks of a map are summed first, by a convolution with ones, which reads values in their type and sums them
        without rounding. OpenVINO averages in float32, and the convolution before it would write float32, which costs a
        third of the time in bfloat16; integers it also averages in blocks as integers, which is wrong by some percent.
        """
        op, (_, n_channels, size, _) = self.op, values.output(0).get_shape()
        block = averaged_block(size)
        ones = op.convert(op.constant(np.ones((n_channels, 1, 1, block, block), np.int8)), np.float32)
        # OpenVINO recognises a kernel of integers by its scale.
        ones = op.multiply(ones, op.constant(np.ones((n_channels, 1, 1, 1, 1), np.float32)))
        blocks = op.group_convolution(values, ones, [block, block], [0, 0], [0, 0], [1, 1])
        return op.multiply(op.reduce_sum(blocks, np.array([2, 3]), False), op.constant(np.float32(1 / size**2)))

    def maxima(self) -> Any:
        """Return the model from images to the largest value of each convolution, shape (n_images, 13)."""
        ov, op = import_openvino(), self.op
        axes = np.array([1, 2, 3])
        largest = [op.unsqueeze(op.reduce_max(self.exact[name], axes, False), np.array(1)) for name in CONVOLUTIONS]
        return ov.Model([op.result(op.concat(largest, 1))], [self.images], "maxima")


def averaged_block(size_px: int, largest: int = 16) -> int:
    """Return the largest block size, up to ``largest``, that divides the height and width of a map."""
    return max(block for block in range(1, largest + 1) if size_px % block == 0)


#: OpenVINO's names of the precisions; for int8, that of the values that are not integers.
INFERENCE_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}

#: Images per batch, at least, and per thread. More would gain nothing and delay Ctrl-C.
BATCH_SIZE, IMAGES_A_THREAD = 32, 2


class OpenVinoBackbone(NetworkBackbone):
    """A convolutional network up to a layer, frozen, compiled by OpenVINO for the CPU.

    Each image goes through the network alone, in one thread: its maps stay in the caches of one core, and its row depends on
    nothing else. Parameters as of :class:`~headstart.backbones.spec.NetworkBackbone`; the precision ``int8``
    needs a ``quantization``, from :func:`calibrate` or from the recipe of existing features.

    Raises
    ------
    HeadstartError
        If OpenVINO is not installed, an option has an unknown value, or this processor cannot compute in int8.
    RecipeMismatchError
        If the quantised network is not the one whose digest ``quantization`` has.
    """

    engine = "OpenVINO"
    engine_precisions = tuple(INFERENCE_PRECISIONS)

    def build(self, weights: Weights, batch_size: int | None, device: str) -> None:
        precision, quantization = self.recipe.precision, self.recipe.quantization
        if (precision == "int8") != (quantization is not None):
            raise HeadstartError(
                f"The precision int8 needs a quantization, and no other has one. Received: {precision}, {quantization}."
            )
        self.batch_size = batch_size or max(BATCH_SIZE, IMAGES_A_THREAD * available_threads())
        graph = self._graph(weights).features(self.recipe)
        self._compiled = compile_model(graph, precision, n_at_once=available_threads())
        self._shapes = [tuple(output.shape)[1:] for output in self._compiled.outputs]
        self._idle: list[Any] = []

    def _graph(self, weights: Weights) -> Graph:
        size, quantization = self.recipe.input_size_px, self.recipe.quantization
        if quantization is None:
            return Graph(self.network, size, 1, weights)
        check_int8_cpu()
        layers = quantize_layers(weights)
        received = network_sha256(layers, quantization.ranges)
        if received != quantization.network_sha256 or len(quantization.ranges) != len(CONVOLUTIONS) - 1:
            raise RecipeMismatchError(
                f"The quantised network of these features cannot be made again: its digest is {received[:12]}…. Expected: "
                f"{quantization.network_sha256[:12]}…. Extract the features anew."
            )
        return Graph(self.network, size, 1, None, layers, quantization.ranges)

    def forward(self, images: NDArray[np.uint8]) -> FeatureBatch:
        check_images(images, self.recipe.input_size_px)
        parts: list[FeatureBatch] = []
        waiting: deque[Callable[[], FeatureBatch]] = deque()
        for start in range(0, len(images), self.batch_size):
            waiting.append(self.start(images[start : start + self.batch_size]))
            if len(waiting) > 1:  # one batch ahead, so that no thread waits
                parts.append(waiting.popleft()())
        parts += [fetch() for fetch in waiting]
        return joined(parts)

    def start(self, images: NDArray[np.uint8]) -> Callable[[], FeatureBatch]:
        """Queue images in OpenVINO, whose threads begin the next one without Python; return as ``Backbone.start``."""
        check_images(images, self.recipe.input_size_px)
        requests = [self._started(image) for image in images]

        def fetch() -> FeatureBatch:
            features, pooled = (np.empty((len(images), *shape), np.float32) for shape in self._shapes)
            for number, request in enumerate(requests):
                request.wait()
                # Copied, since the next image of the request overwrites its outputs.
                features[number], pooled[number] = (output.data[0] for output in request.output_tensors)
                self._idle.append(request)
            return FeatureBatch(features, pooled, self.spec.column_layers)

        return fetch

    def _started(self, image: NDArray[np.uint8]) -> Any:
        try:
            request = self._idle.pop()
        except IndexError:  # another thread may have taken the last one
            request = self._compiled.create_infer_request()
        request.start_async([image[np.newaxis]])  # copied, to keep it alive
        return request


def calibrate(
    weights: Weights, images: NDArray[np.uint8], digests: Sequence[str], seed: int = CALIBRATION_SEED
) -> Quantization:
    """Return the quantization of the network for images like these.

    ``images`` is a sample, uint8 of shape (n_images, size, size, 3), ``digests`` are the SHA-256 of their files, and
    ``seed`` the random seed with which it was drawn. Raises HeadstartError if OpenVINO is not installed, or this CPU
    cannot compute in int8.
    """
    check_int8_cpu()
    batch_size = min(BATCH_SIZE, len(images))
    precision = "bfloat16" if has_bfloat16(cpu_flags()) else "float32"
    compiled = compile_model(Graph(VGG16_NETWORK, images.shape[1], batch_size, weights).maxima(), precision)
    largest = np.full(len(CONVOLUTIONS), MIN_RANGE, np.float32)
    for start in range(0, len(images), batch_size):
        chunk = images[start : start + batch_size]
        maxima = compiled(padded(chunk, batch_size), share_inputs=True).to_tuple()[0][: len(chunk)]
        largest = np.maximum(largest, maxima.max(axis=0))
    ranges = tuple(largest[:-1].tolist())
    return Quantization(
        engine="openvino",
        ranges=ranges,
        n_images=len(images),
        seed=seed,
        sample_sha256=sample_sha256(digests),
        network_sha256=network_sha256(quantize_layers(weights), ranges),
    )


def compile_model(model: Any, precision: str, *, n_at_once: int = 1) -> Any:
    """Return the model compiled for the CPU, for ``n_at_once`` simultaneous passes, each with its share of the threads.

    OpenVINO would bind its threads to cores, from the first one on, in every process: several processes would share the same
    cores, and a bound thread waits while another one uses its core.
    """
    options = {
        "INFERENCE_PRECISION_HINT": INFERENCE_PRECISIONS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": str(n_at_once),
        "INFERENCE_NUM_THREADS": str(available_threads()),
        "ENABLE_CPU_PINNING": False,
    }
    return openvino_core().compile_model(model, "CPU", options)


@functools.cache
def openvino_core() -> Any:
    """Return the one ``Core`` of this process, which is never deleted.

    It keeps OpenVINO's CPU plugin loaded. The plugin gives the thread that loads it an alternate signal stack, and unmaps
    that stack when it is unloaded; if another thread does so, the next signal (Ctrl-C) ends the process with SIGSEGV
    (SigAltStackSetup in OpenVINO's src/plugins/intel_cpu/src/sigstack_manager.cpp; seen with 2026.4).
    """
    return import_openvino().Core()
