"""VGG16 without top, frozen: its description, what its engines share, and the one on TensorFlow."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.precision import Device, pick_device
from headstart.backbones.spec import ENGINE_OPTIONS, BackboneSpec, LayerSpec, check_images, joined, padded
from headstart.backbones.weights import IMAGENET_VGG16_SHA256, Weights, load_weights, local_sources
from headstart.errors import HeadstartError
from headstart.runtime import import_keras, import_tensorflow
from headstart.types import Backbone, FeatureBatch, Recipe

log = logging.getLogger(__name__)

#: Blue, green, red means of the ImageNet training set, subtracted without scaling (``preprocess_input`` of
#: keras.applications.vgg16, mode "caffe").
BGR_MEANS = (103.939, 116.779, 123.68)

#: Keras' names for the precisions: weights and sums stay float32, multiplications run in the reduced type.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def _layers() -> Iterator[tuple[str, LayerSpec]]:
    """Yield every convolution and pooling layer of configuration D (Simonyan & Zisserman, 2015, table 1), by Keras' names."""
    for block, (n_convolutions, channels) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), start=1):
        for number in range(1, n_convolutions + 1):
            yield f"block{block}_conv{number}", LayerSpec(channels, 2 ** (block - 1))
        yield f"block{block}_pool", LayerSpec(channels, 2**block)


VGG16 = BackboneSpec(
    name="vgg16",
    layers=dict(_layers()),
    pooled_layers=("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"),
    default_layer="block5_pool",
    default_input_size_px=224,
    min_input_size_px=32,  # five poolings by two
    preprocessing="RGB → BGR, means of ImageNet subtracted, no scaling",
    weights={"imagenet": IMAGENET_VGG16_SHA256},
    load_weights=load_weights,
    has_local_weights=lambda: any(source.read for source in local_sources()),
    precisions=(*POLICIES, "int8"),
    engines={
        "ncnn": "headstart.backbones.ncnn:NcnnBackbone.from_recipe",
        "openvino": "headstart.backbones.openvino:OpenVinoBackbone.from_recipe",
        "tensorflow": "headstart.backbones.vgg16:FrozenBackbone.from_recipe",
    },
)

LAYERS = tuple(VGG16.layers)


class Vgg16Engine(Backbone):
    """VGG16 (Simonyan & Zisserman, 2015) up to a layer, frozen, on some engine.

    Parameters
    ----------
    weights : str, Path or Weights
        ``imagenet``, a Keras weights file, or weights that were loaded before.
    batch_size : int, optional
        Images per call of the engine; the default fits the device.
    device : str
        ``auto``, ``cpu`` or ``gpu:N``.
    **options
        ``layer``, ``input_size_px``, ``resize``, ``precision``, ``storage`` and ``quantization`` of
        :class:`headstart.types.Recipe`.

    Raises
    ------
    HeadstartError
        If the engine is not installed, or an option has an unknown value.
    """

    #: Name of the engine, and the precisions that it computes.
    engine: ClassVar[str]
    engine_precisions: ClassVar[tuple[str, ...]]

    batch_size: int = 1

    def __init__(
        self,
        weights: str | Path | Weights = "imagenet",
        *,
        batch_size: int | None = None,
        device: str = "auto",
        **options: Any,
    ) -> None:
        precision = options.get("precision", "float32")
        if precision not in self.engine_precisions:
            raise HeadstartError(
                f"{self.engine} computes in {', '.join(self.engine_precisions)}. Received: {precision}."
            )
        loaded = weights if isinstance(weights, Weights) else load_weights(weights)
        self.recipe = VGG16.recipe(weights=loaded.name, weights_sha256=loaded.sha256, **options)
        self.build(loaded, batch_size, device)

    @classmethod
    def from_recipe(
        cls,
        recipe: Recipe,
        weights: str | Path | Weights = "imagenet",
        *,
        batch_size: int | None = None,
        device: str = "auto",
    ) -> Self:
        """Return the backbone of a recipe; raise RecipeMismatchError if these weights or this version give other features."""
        loaded = weights if isinstance(weights, Weights) else load_weights(weights)
        VGG16.check(recipe, loaded)
        options = {name: getattr(recipe, name) for name in ENGINE_OPTIONS}
        return cls(loaded, batch_size=batch_size, device=device, **options)

    def build(self, weights: Weights, batch_size: int | None, device: str) -> None:
        """Set ``batch_size`` and ``device``, and make the network of ``self.recipe``."""
        raise NotImplementedError

    def forward(self, images: NDArray[np.uint8]) -> FeatureBatch:
        """Return the float32 features of RGB images, uint8 of shape (n_images, input_size_px, input_size_px, 3), in order.

        A row does not depend on the other images. Raises HeadstartError if shape or dtype differ, or memory does not
        suffice for a single image.
        """
        return self.start(images)()


class Program:
    """A Keras model from preprocessed images (:func:`build_model`), compiled for one batch shape on one device."""

    def __init__(self, model: Any, size_px: int, batch_size: int, device: Device) -> None:
        tf = import_tensorflow()
        self.batch_size, self._device = batch_size, device.tensorflow_name
        self._shape = tuple(model.outputs[0].shape[1:])
        means = np.asarray(BGR_MEANS, np.float32)

        @tf.function(input_signature=[tf.TensorSpec((batch_size, size_px, size_px, 3), tf.uint8)], autograph=False)  # type: ignore[untyped-decorator]
        def compiled(images: Any) -> Any:
            features, *maps = model(tf.cast(images, tf.float32)[..., ::-1] - means, training=False)
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
            return FeatureBatch(features[:n_images], pooled[:n_images], VGG16.column_layers)

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


class FrozenBackbone(Vgg16Engine):
    """VGG16 up to a layer, frozen, on TensorFlow: compiled for one batch shape, which is halved when memory runs out.

    Each pass takes ``batch_size`` images (by default 32 on a CPU, 64 on a GPU), the last one padded. Parameters as of
    :class:`Vgg16Engine`.
    """

    engine = "TensorFlow"
    engine_precisions = tuple(POLICIES)

    def build(self, weights: Weights, batch_size: int | None, device: str) -> None:
        self._device = pick_device(device)
        self.batch_size = batch_size or self._device.batch_size
        self.device = self._device.name
        self._model = build_model(self.recipe, weights)
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
        return Program(self._model, self.recipe.input_size_px, batch_size, self._device)


def build_model(recipe: Recipe, weights: Weights) -> Any:
    """Return a Keras model from preprocessed images to the recipe's layer and its pooled layers, with these weights."""
    keras = import_keras()
    size, before = recipe.input_size_px, keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[recipe.precision])
    try:
        vgg16 = keras.applications.VGG16(weights=None, include_top=False, input_shape=(size, size, 3))
    finally:
        keras.config.set_dtype_policy(before)
    for layer, tensors in weights.tensors.items():
        vgg16.get_layer(layer).set_weights(tensors)
    vgg16.trainable = False
    return keras.Model(vgg16.input, [vgg16.get_layer(name).output for name in (recipe.layer, *recipe.pooled_layers)])
