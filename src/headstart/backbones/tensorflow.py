"""Convolutional networks on TensorFlow: a Keras model, compiled for one batch shape on one device."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.convnet import IMAGES, Addition, ConvNet, Convolution, MaxPooling, Weights
from headstart.backbones.precision import Device, pick_device
from headstart.backbones.spec import NetworkBackbone, check_images, joined, padded
from headstart.errors import HeadstartError
from headstart.runtime import import_keras, import_tensorflow
from headstart.types import FeatureBatch, Recipe

log = logging.getLogger(__name__)

#: Keras' names for the precisions: weights and sums stay float32, multiplications run in the reduced type.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


class Program:
    """A Keras model from preprocessed images (:func:`build_model`), compiled for one batch shape on one device."""

    def __init__(
        self,
        model: Any,
        preprocessed: Callable[[Any], Any],
        columns: tuple[str, ...],
        size_px: int,
        batch_size: int,
        device: Device,
    ) -> None:
        tf = import_tensorflow()
        self.batch_size, self._device, self._columns = batch_size, device.tensorflow_name, columns
        self._shape = tuple(model.outputs[0].shape[1:])

        @tf.function(input_signature=[tf.TensorSpec((batch_size, size_px, size_px, 3), tf.uint8)], autograph=False)  # type: ignore[untyped-decorator]
        def compiled(images: Any) -> Any:
            features, *maps = model(preprocessed(tf.cast(images, tf.float32)), training=False)
            pooled = [tf.reduce_mean(tf.cast(block, tf.float32), axis=[1, 2]) for block in maps]
            outputs = tf.cast(features, tf.float32), tf.concat(pooled, axis=-1)
            return outputs if device.name == "cpu" else one_tensor(*outputs)

        self._compiled = compiled

    def run(self, images: NDArray[np.uint8]) -> Callable[[], FeatureBatch]:
        """Start a pass over at most ``batch_size`` images; return a callable that waits for it and copies the features."""
        tf = import_tensorflow()
        with tf.device(self._device):
            outputs = self._compiled(tf.constant(padded(images, self.batch_size)))

        def copy_back() -> FeatureBatch:
            n_images = len(images)
            if tf.is_tensor(outputs):
                features, pooled = split(outputs.numpy(), self._shape)
            else:
                features, pooled = (output.numpy() for output in outputs)
            return FeatureBatch(features[:n_images], pooled[:n_images], self._columns)

        return copy_back


def one_tensor(features: Any, pooled: Any) -> Any:
    """Return both outputs of a pass side by side, shape (n_images, n_features + n_pooled).

    A copy from a GPU waits for everything queued before it: a second copy, requested after the first, would wait for the next
    batch.
    """
    tf = import_tensorflow()
    return tf.concat([tf.reshape(features, (features.shape[0], -1)), pooled], axis=-1)


def split(outputs: NDArray[np.float32], shape: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the two outputs that :func:`one_tensor` has joined, as views."""
    width = math.prod(shape)
    return outputs[:, :width].reshape(-1, *shape), outputs[:, width:]


class FrozenBackbone(NetworkBackbone):
    """A convolutional network up to a layer, frozen, on TensorFlow.

    It is compiled for one batch shape, which is halved when memory runs out. Each pass takes ``batch_size`` images (by
    default 32 on a CPU, 64 on a GPU), the last one padded. Parameters as of
    :class:`~headstart.backbones.spec.NetworkBackbone`.
    """

    engine = "TensorFlow"
    engine_precisions = tuple(POLICIES)

    def build(self, weights: Weights, batch_size: int | None, device: str) -> None:
        self._device = pick_device(device)
        self.batch_size = batch_size or self._device.batch_size
        self.device = self._device.name
        self._model = self.model(self.recipe, weights)
        self._halving = threading.Lock()
        self._program = self._compile(self.batch_size)

    def forward(self, images: NDArray[np.uint8]) -> FeatureBatch:
        check_images(images, self.recipe.input_size_px)
        batches, start = [], 0
        while start < len(images):
            program = self._program
            try:
                batches.append(program.run(images[start : start + program.batch_size])())
            except import_tensorflow().errors.ResourceExhaustedError as error:
                self._halve_batch(error, program.batch_size)
                continue
            start += len(batches[-1])
        return joined(batches)

    def start(self, images: NDArray[np.uint8]) -> Callable[[], FeatureBatch]:
        """Copy images to the device and start their pass; return as ``Backbone.start``.

        On a CPU the pass is over when this returns. More images than a batch are computed at once. If memory runs out,
        now or later, the images are computed again in smaller batches.
        """
        check_images(images, self.recipe.input_size_px)
        program = self._program
        if len(images) > program.batch_size:
            return super().start(images)
        exhausted = import_tensorflow().errors.ResourceExhaustedError
        try:
            copy_back = program.run(images)
        except exhausted as error:
            self._halve_batch(error, program.batch_size)
            return super().start(images)

        def fetch() -> FeatureBatch:
            try:
                return copy_back()
            except exhausted as error:
                self._halve_batch(error, program.batch_size)
                return self.forward(images)

        return fetch

    def _halve_batch(self, error: Exception, tried: int) -> None:
        """Continue with half the batch that was tried, unless another thread has done so."""
        with self._halving:
            if self.batch_size < tried:
                return
            if tried == 1:
                raise HeadstartError(
                    f"Out of memory with a single image of {self.recipe.input_size_px} pixels on {self.device}.",
                    hint="Use a smaller `input_size_px`, or `device='cpu'`.",
                ) from error
            log.warning("Out of memory on %s: going on with batches of %d.", self.device, tried // 2)
            self._program = self._compile(tried // 2)
            self.batch_size = tried // 2

    def _compile(self, batch_size: int) -> Program:
        size, columns = self.recipe.input_size_px, self.spec.column_layers
        return Program(self._model, self.preprocessed, columns, size, batch_size, self._device)

    def model(self, recipe: Recipe, weights: Weights) -> Any:
        """Return a Keras model from preprocessed images to the stored layer and the pooled ones."""
        return build_model(recipe, weights, self.network)

    def preprocessed(self, images: Any) -> Any:
        """Return float32 RGB images of 0–255 as the network takes them."""
        network = self.network
        images = images[..., ::-1] if network.bgr else images
        images = images - np.asarray(network.mean, np.float32)
        return images if network.scale == 1 else images * np.float32(network.scale)


def build_model(recipe: Recipe, weights: Weights, network: ConvNet) -> Any:
    """Return a Keras model from preprocessed images to the recipe's layer and its pooled layers, with these weights."""
    keras = import_keras()
    size, before = recipe.input_size_px, keras.config.dtype_policy()
    wanted = (recipe.layer, *recipe.pooled_layers)
    keras.config.set_dtype_policy(POLICIES[recipe.precision])
    try:
        outputs = {IMAGES: keras.Input((size, size, 3), name=IMAGES)}
        for layer in network.needed_for(wanted):
            outputs[layer.name] = keras_layer(layer)(*(outputs[name] for name in layer.sources))
        model = keras.Model(outputs[IMAGES], [outputs[name] for name in wanted])
    finally:
        keras.config.set_dtype_policy(before)
    for layer in network.needed_for(wanted):
        if isinstance(layer, Convolution):
            model.get_layer(layer.name).set_weights(weights.tensors[layer.name])
    model.trainable = False
    return model


def keras_layer(layer: Convolution | MaxPooling | Addition) -> Any:
    """Return a layer of Keras, without weights."""
    layers = import_keras().layers
    if isinstance(layer, MaxPooling):
        return layers.MaxPooling2D((2, 2), strides=(2, 2), name=layer.name)
    if isinstance(layer, Addition):
        return lambda *outputs: layers.Add(name=layer.name)(outputs)
    options = {"strides": layer.stride, "padding": "same", "activation": layer.activation, "name": layer.name}
    if layer.depthwise:
        return layers.DepthwiseConv2D(layer.kernel_px, **options)
    return layers.Conv2D(layer.channels, layer.kernel_px, **options)
