"""VGG16 without top on Intel's OpenVINO: the protocol of ``backbone.vgg16``, without TensorFlow, and in 8-bit integers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.backbone.device import cpu_flags, has_bfloat16
from headstart.backbone.graph import Graph, import_openvino
from headstart.backbone.program import padded
from headstart.backbone.quantize import (
    CALIBRATION_SEED,
    CONVOLUTIONS,
    MIN_RANGE,
    check_int8_cpu,
    network_sha256,
    quantize_layers,
    sample_sha256,
)
from headstart.backbone.vgg16 import check_images, check_runnable, check_same, joined, make_recipe
from headstart.backbone.weights import Weights, load_weights
from headstart.errors import HeadstartError, RecipeMismatchError
from headstart.runtime import available_threads
from headstart.schema import FeatureBatch, Quantization, Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: OpenVINO's names for the precisions; of an int8 network, for what is not in integers.
INFERENCE_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}

#: Images that are given at a time, at least, and for each thread. More would gain nothing and keep Ctrl-C waiting.
BATCH_SIZE, IMAGES_A_THREAD = 32, 2


class OpenVinoBackbone:
    """VGG16 up to a layer, frozen, compiled by OpenVINO for the CPU; images in, features out.

    Every image goes through the network alone, in one thread: its maps stay in the caches of one core, no thread waits for
    another, and its row depends on nothing else.

    Parameters
    ----------
    weights : str, Path or Weights
        ``imagenet``, a Keras weights file, or weights that were loaded before.
    layer, input_size_px, resize, precision, storage
        As in :class:`headstart.schema.Recipe`.
    batch_size : int, optional
        Images that are given at a time.
    quantization : Quantization, optional
        How the network becomes one of precision ``int8``: from :func:`calibrate`, or from the recipe of features that exist.

    Raises
    ------
    HeadstartError
        If OpenVINO is not installed, an option is not one of those that exist, or this processor cannot compute in int8.
    RecipeMismatchError
        If the quantised network is not the one whose digest ``quantization`` has.

    Examples
    --------
    >>> backbone = OpenVinoBackbone(precision="bfloat16")                 # doctest: +SKIP
    >>> backbone.forward(images).features.shape                           # doctest: +SKIP
    (16, 7, 7, 512)
    """

    def __init__(
        self,
        weights: str | Path | Weights = "imagenet",
        *,
        layer: str = "block5_pool",
        input_size_px: int = 224,
        resize: str = "keras-bilinear",
        precision: str = "float32",
        storage: str = "float16",
        batch_size: int | None = None,
        quantization: Quantization | None = None,
    ) -> None:
        if precision not in INFERENCE_PRECISIONS:
            raise HeadstartError(f"OpenVINO computes in {', '.join(INFERENCE_PRECISIONS)}. Received: {precision}.")
        if (precision == "int8") != (quantization is not None):
            raise HeadstartError(
                f"The precision int8 needs a quantization, and no other has one. Received: {precision}, {quantization}."
            )
        loaded = weights if isinstance(weights, Weights) else load_weights(weights)
        self.recipe = make_recipe(
            weights=loaded.name,
            weights_sha256=loaded.sha256,
            layer=layer,
            input_size_px=input_size_px,
            resize=resize,
            precision=precision,
            storage=storage,
            quantization=quantization,
        )
        self.device = "cpu"
        self.batch_size = batch_size or max(BATCH_SIZE, IMAGES_A_THREAD * available_threads())
        graph = self._graph(loaded).features(self.recipe)
        self._compiled = compile_model(graph, precision, n_at_once=available_threads())
        self._shapes = [tuple(output.shape)[1:] for output in self._compiled.outputs]
        self._idle: list[Any] = []

    def _graph(self, weights: Weights) -> Graph:
        size, quantization = self.recipe.input_size_px, self.recipe.quantization
        if quantization is None:
            return Graph(size, 1, weights)
        check_int8_cpu()
        layers = quantize_layers(weights)
        received = network_sha256(layers, quantization.ranges)
        if received != quantization.network_sha256 or len(quantization.ranges) != len(CONVOLUTIONS) - 1:
            raise RecipeMismatchError(
                f"The quantised network of these features cannot be made again: its digest is {received[:12]}…. Expected: "
                f"{quantization.network_sha256[:12]}…. Extract the features anew."
            )
        return Graph(size, 1, None, layers, quantization.ranges)

    @classmethod
    def from_recipe(
        cls, recipe: Recipe, weights: str | Path | Weights = "imagenet", *, batch_size: int | None = None
    ) -> OpenVinoBackbone:
        """Return the backbone that makes the features of ``recipe`` again.

        Raises
        ------
        RecipeMismatchError
            If these weights, or this version of the program, cannot make them; the message names the fields.
        """
        check_runnable(recipe)
        backbone = cls(
            weights,
            layer=recipe.layer,
            input_size_px=recipe.input_size_px,
            resize=recipe.resize,
            precision=recipe.precision,
            storage=recipe.storage,
            batch_size=batch_size,
            quantization=recipe.quantization,
        )
        check_same(recipe, backbone.recipe)
        return backbone

    def forward(self, images: NDArray[np.uint8]) -> FeatureBatch:
        """Return the features of images.

        Parameters
        ----------
        images : ndarray of shape (n_images, input_size_px, input_size_px, 3), uint8
            RGB, 0–255. Any number of images.

        Returns
        -------
        FeatureBatch
            Rows in the order of the images, float32. A row does not depend on other images.

        Raises
        ------
        HeadstartError
            If shape or dtype are not these.
        """
        check_images(images, self.recipe.input_size_px)
        parts: list[FeatureBatch] = []
        waiting: deque[Callable[[], FeatureBatch]] = deque()
        for start in range(0, len(images), self.batch_size):
            waiting.append(self.start(images[start : start + self.batch_size]))
            if len(waiting) > 1:  # one more than is fetched, so that no thread waits for it
                parts.append(waiting.popleft()())
        parts += [fetch() for fetch in waiting]
        return joined(parts)

    def start(self, images: NDArray[np.uint8]) -> Callable[[], FeatureBatch]:
        """Send images on their way; return what waits for their features. Those of the next batch can follow at once.

        They wait in OpenVINO, whose threads so begin the next one without a word from Python, which may be busy.
        """
        check_images(images, self.recipe.input_size_px)
        requests = [self._started(image) for image in images]

        def fetch() -> FeatureBatch:
            features, pooled = (np.empty((len(images), *shape), np.float32) for shape in self._shapes)
            for number, request in enumerate(requests):
                request.wait()
                # The outputs belong to the request and are overwritten by its next image, hence the copies.
                features[number], pooled[number] = (output.data[0] for output in request.output_tensors)
                self._idle.append(request)
            return FeatureBatch(features, pooled)

        return fetch

    def _started(self, image: NDArray[np.uint8]) -> Any:
        """Return a request for the features of an image."""
        try:
            request = self._idle.pop()
        except IndexError:  # asked for, not looked up first: another thread may take the last one
            request = self._compiled.create_infer_request()
        request.start_async([image[np.newaxis]])  # copied: nothing else would keep it alive until it is read
        return request


def calibrate(
    weights: Weights, images: NDArray[np.uint8], digests: Sequence[str], seed: int = CALIBRATION_SEED
) -> Quantization:
    """Return how to quantise the network for images like these.

    Parameters
    ----------
    weights : Weights
        Of the network.
    images : ndarray of shape (n_images, size, size, 3), uint8
        The sample.
    digests : sequence of str
        SHA-256 of their files.
    seed : int
        That the sample was drawn with.

    Raises
    ------
    HeadstartError
        If OpenVINO is not installed, or this processor cannot compute such a network.
    """
    check_int8_cpu()
    batch_size = min(BATCH_SIZE, len(images))
    precision = "bfloat16" if has_bfloat16(cpu_flags()) else "float32"
    compiled = compile_model(Graph(images.shape[1], batch_size, weights).maxima(), precision)
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
    """Return the model compiled for the CPU: so many passes at once, each with its share of the threads.

    OpenVINO would bind its threads to cores, from the first one on, in every process: several that share a machine would
    all compute on the same cores, the others idle, and a bound thread waits where one that decodes has its core.
    """
    options = {
        "INFERENCE_PRECISION_HINT": INFERENCE_PRECISIONS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": str(n_at_once),
        "INFERENCE_NUM_THREADS": str(available_threads()),
        "ENABLE_CPU_PINNING": False,
    }
    return import_openvino().Core().compile_model(model, "CPU", options)
