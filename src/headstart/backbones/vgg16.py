"""VGG16 without top, frozen, built once and compiled for one batch shape."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.backbones.precision import Program, pick_device
from headstart.backbones.weights import Weights, load_weights
from headstart.errors import HeadstartError, RecipeMismatchError
from headstart.images.decode import DECODE_RULES
from headstart.runtime import import_keras, import_tensorflow
from headstart.types import (
    POOLED_LAYER_NAMES,
    POOLED_LAYERS,
    VIEWS,
    FeatureBatch,
    Quantization,
    Recipe,
    checked_intensity,
    checked_page,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.types import Backbone

log = logging.getLogger(__name__)

#: Blue, green, red means of the ImageNet training set, subtracted without scaling (``preprocess_input`` of
#: keras.applications.vgg16, mode "caffe").
BGR_MEANS = (103.939, 116.779, 123.68)

#: The layers whose output may be stored: every convolution and pooling layer of configuration D.
LAYERS = tuple(
    f"block{block}_{kind}"
    for block, n_convolutions in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3))
    for kind in (*(f"conv{i + 1}" for i in range(n_convolutions)), "pool")
)


#: Layer of each column of the averages (1,472).
POOLED_COLUMN_LAYER = tuple(name for name, channels in POOLED_LAYERS for _ in range(channels))


def map_side(recipe: Recipe) -> int:
    """Return how many rows and columns the output of a recipe's layer has: each pooling halves them."""
    halvings = sum(name.endswith("_pool") for name in LAYERS[: LAYERS.index(recipe.layer) + 1])
    return recipe.input_size_px >> halvings


#: The smallest input that five poolings by two leave anything of.
MIN_INPUT_SIZE_PX = 32

#: Keras' names for the precisions: weights and sums stay float32, multiplications run in the reduced type.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}

#: Every precision of a recipe; the last one on OpenVINO alone (backbones/openvino.py).
PRECISIONS = (*POLICIES, "int8")


def make_recipe(
    *,
    weights: str = "imagenet",
    weights_sha256: str,
    layer: str = "block5_pool",
    input_size_px: int = 224,
    resize: str = "keras-bilinear",
    precision: str = "float32",
    storage: str = "float16",
    quantization: Quantization | None = None,
    views: str = "single",
    page: int | str | None = None,
    intensity: tuple[float, float] | None = None,
) -> Recipe:
    """Return the recipe of VGG16 features with these options.

    Raises
    ------
    HeadstartError
        If an option is not one of those that exist; the message lists them.
    """
    if layer not in LAYERS:
        raise HeadstartError(f"VGG16 has no layer {layer!r} to store. Expected one of: {', '.join(LAYERS)}.")
    if precision not in PRECISIONS:
        raise HeadstartError(f"Unknown precision {precision!r}. Expected one of: {', '.join(PRECISIONS)}.")
    if input_size_px < MIN_INPUT_SIZE_PX:
        raise HeadstartError(
            f"The input of VGG16 is at least {MIN_INPUT_SIZE_PX} pixels wide. Received: {input_size_px}."
        )
    if storage not in {"float16", "float32"}:
        raise HeadstartError(f"Unknown storage type {storage!r}. Expected float16 or float32.")
    if views not in VIEWS:
        raise HeadstartError(f"Unknown views {views!r}. Expected {' or '.join(VIEWS)}.")
    try:
        page = None if page in {None, 1} else checked_page(page)
        intensity = None if intensity is None else checked_intensity(intensity)
    except ValueError as error:
        raise HeadstartError(f"{error}.") from error
    return Recipe(
        backbone="vgg16",
        weights=weights,
        weights_sha256=weights_sha256,
        layer=layer,
        pooled_layers=POOLED_LAYER_NAMES,
        input_size_px=input_size_px,
        decode=DECODE_RULES,
        resize=resize,
        precision=precision,
        storage=storage,
        quantization=quantization,
        views=views,
        page=page,
        intensity=intensity,
    )


class FrozenBackbone:
    """VGG16 (Simonyan & Zisserman, 2015) up to a layer, frozen; images in, features out.

    Parameters
    ----------
    weights : str, Path or Weights
        ``imagenet``, a Keras weights file, or weights that were loaded before.
    layer, input_size_px, resize, precision, storage
        As in :class:`headstart.types.Recipe`.
    batch_size : int, optional
        Images per forward pass; the default fits the device (32 on a CPU, 64 on a GPU). Halved when memory runs out.
    device : str
        ``auto``, ``cpu`` or ``gpu:N``.

    Examples
    --------
    >>> backbone = FrozenBackbone()                                       # doctest: +SKIP
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
        device: str = "auto",
    ) -> None:
        if precision not in POLICIES:
            raise HeadstartError(f"TensorFlow computes in {', '.join(POLICIES)}. Received: {precision}.")
        loaded = weights if isinstance(weights, Weights) else load_weights(weights)
        self.recipe = make_recipe(
            weights=loaded.name,
            weights_sha256=loaded.sha256,
            layer=layer,
            input_size_px=input_size_px,
            resize=resize,
            precision=precision,
            storage=storage,
        )
        self._device = pick_device(device)
        self.batch_size = batch_size or self._device.batch_size
        self.device = self._device.name
        self._model = build_model(self.recipe, loaded)
        self._halving = threading.Lock()
        self._program = self._compile(self.batch_size)

    @classmethod
    def from_recipe(
        cls,
        recipe: Recipe,
        weights: str | Path | Weights = "imagenet",
        *,
        batch_size: int | None = None,
        device: str = "auto",
    ) -> FrozenBackbone:
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
            device=device,
        )
        check_same(recipe, backbone.recipe)
        return backbone

    def forward(self, images: NDArray[np.uint8]) -> FeatureBatch:
        """Return the features of images.

        Parameters
        ----------
        images : ndarray of shape (n_images, input_size_px, input_size_px, 3), uint8
            RGB, 0–255. Any number of images; each pass takes ``batch_size`` of them, the last one padded.

        Returns
        -------
        FeatureBatch
            Rows in the order of the images, float32. A row does not depend on the other images of its batch.

        Raises
        ------
        HeadstartError
            If shape or dtype are not these, or memory does not suffice for a single image.
        """
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
        """Copy images to the device and start their pass; return what waits for it and copies the features back.

        A GPU computes beside the program, so that the next batch can be started in the meantime; on a CPU the pass is over
        when this returns. Where memory runs out, now or then, these images are computed again in smaller batches.

        Parameters
        ----------
        images : ndarray
            As for :meth:`forward`; more than one batch of them are computed at once, and not in the meantime.
        """
        check_images(images, self.recipe.input_size_px)
        program = self._program
        if len(images) > program.batch_size:
            return at_once(self.forward(images))
        exhausted = import_tensorflow().errors.ResourceExhaustedError
        try:
            copy_back = program.run(images)
        except exhausted as error:
            self._halve_batch(error, program.batch_size)
            return at_once(self.forward(images))

        def fetch() -> FeatureBatch:
            try:
                return copy_back()
            except exhausted as error:
                self._halve_batch(error, program.batch_size)
                return self.forward(images)

        return fetch

    def _halve_batch(self, error: Exception, tried: int) -> None:
        """Go on with half the batch that was tried, unless another thread has done so."""
        with self._halving:
            if self.batch_size < tried:
                return
            if tried == 1:
                raise HeadstartError(
                    f"Out of memory with a single image of {self.recipe.input_size_px} pixels on {self.device}. "
                    "Use a smaller --input-size, or --device cpu."
                ) from error
            log.warning("Out of memory on %s: going on with batches of %d.", self.device, tried // 2)
            self._program = self._compile(tried // 2)
            self.batch_size = tried // 2

    def _compile(self, batch_size: int) -> Program:
        return Program(self._model, self.recipe.input_size_px, BGR_MEANS, POOLED_COLUMN_LAYER, batch_size, self._device)


def joined(batches: Sequence[FeatureBatch]) -> FeatureBatch:
    """Return batches as one."""
    if len(batches) == 1:
        return batches[0]
    features, pooled = (np.concatenate([getattr(b, name) for b in batches]) for name in ("features", "pooled"))
    return FeatureBatch(features, pooled, batches[0].pooled_column_layer)


def started(backbone: Backbone, images: NDArray[np.uint8]) -> Callable[[], FeatureBatch]:
    """Return what waits for the features of images; a backbone that has no ``start`` has computed them by then."""
    begin: Callable[[NDArray[np.uint8]], Callable[[], FeatureBatch]] | None = getattr(backbone, "start", None)
    return at_once(backbone.forward(images)) if begin is None else begin(images)


def at_once(features: FeatureBatch) -> Callable[[], FeatureBatch]:
    """Return features that need not be waited for as if they had to be."""
    return lambda: features


def check_images(images: NDArray[np.uint8], size_px: int) -> None:
    """Raise HeadstartError where images are not what a backbone of this input size takes."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size_px, size_px, 3) or not len(images):
        raise HeadstartError(
            f"The backbone takes uint8 images of shape (n ≥ 1, {size_px}, {size_px}, 3). "
            f"Received: {images.dtype} of shape {images.shape}."
        )


def check_same(wanted: Recipe, available: Recipe) -> None:
    """Raise RecipeMismatchError, naming the fields, where a backbone does not make the features that are wanted."""
    differences = wanted.differences(available)
    if differences:
        raise RecipeMismatchError(
            f"The features cannot be made again here. Wanted ≠ available: {'; '.join(differences)}."
        )


def remade(recipe: Recipe, weights: Weights) -> Recipe:
    """Return what a recipe becomes with these weights and the rules of this version: the same, where they fit.

    Raises
    ------
    RecipeMismatchError
        If the features were made elsewhere.
    """
    check_runnable(recipe)
    return make_recipe(
        weights=weights.name,
        weights_sha256=weights.sha256,
        layer=recipe.layer,
        input_size_px=recipe.input_size_px,
        resize=recipe.resize,
        precision=recipe.precision,
        storage=recipe.storage,
        quantization=recipe.quantization,
    )


def check_runnable(recipe: Recipe) -> None:
    """Check that images can be turned into features of this recipe at all; nothing is loaded for it.

    Raises
    ------
    RecipeMismatchError
        If they were made elsewhere.
    """
    if recipe.backbone != "vgg16":
        raise RecipeMismatchError(
            f"These features were made by {recipe.backbone!r}, which headstart cannot run: it runs images through vgg16 "
            "only. Compute the features of new images where these came from, import them (headstart import), and score "
            "the head on that cache (headstart evaluate HEAD CACHE)."
        )


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
