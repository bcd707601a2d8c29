"""Which engine computes a recipe, and the backbone of a recipe, with one view of each image or two."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headstart.backbones.precision import pick_device
from headstart.backbones.vgg16 import FrozenBackbone, check_runnable, started
from headstart.backbones.weights import Weights, load_weights
from headstart.errors import HeadstartError
from headstart.types import FeatureBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.backbones.precision import Device
    from headstart.types import Backbone, Recipe


def in_views(backbone: Backbone, views: str) -> Backbone:
    """Return a backbone that sees each image in these views (``schema.VIEWS``), from one that sees it as it is."""
    return MirroredBackbone(backbone) if views == "mirrored" else backbone


class MirroredBackbone:
    """A backbone whose features are the mean of those of an image and of its mirror image.

    Both go through the network in one pass, so that a batch holds half as many images and takes as long: nothing that counts
    batches waits longer for one.

    Parameters
    ----------
    backbone : Backbone
        That sees images as they are.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.recipe = replace(backbone.recipe, views="mirrored")
        self.device = getattr(backbone, "device", "cpu")

    @property
    def batch_size(self) -> int:
        """Images that fill a forward pass together with their mirror images."""
        return max(1, self._backbone.batch_size // 2)

    def forward(self, images: NDArray[np.uint8]) -> FeatureBatch:
        """Return the features of images, float32; parameters and errors are those of the backbone.

        An image and its mirror image have maps that are each other's mirror images, and the same averages.
        """
        return mean_of_views(self._backbone.forward(with_mirror_images(images)))

    def start(self, images: NDArray[np.uint8]) -> Callable[[], FeatureBatch]:
        """Start a pass, where the backbone can, and compute it otherwise; return what waits for the features."""
        fetch = started(self._backbone, with_mirror_images(images))
        return lambda: mean_of_views(fetch())


def with_mirror_images(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images of shape (n_images, height, width, 3), and behind them their mirror images: (2 n_images, …)."""
    return np.concatenate([images, images[:, :, ::-1]])


def mean_of_views(both: FeatureBatch) -> FeatureBatch:
    """Return the mean of the features of images and of the mirror images behind them, whose maps are turned back.

    Computed in float32, in which the order of the two makes no difference.
    """
    n_images = len(both) // 2
    maps, mirrored = both.features[:n_images], both.features[n_images:, :, ::-1]
    half = np.float32(0.5)
    pooled = (both.pooled[:n_images] + both.pooled[n_images:]) * half
    return FeatureBatch((maps + mirrored) * half, pooled, both.pooled_column_layer)


#: The engines that a CPU can have, by precision, the fastest first (decision 0003); TensorFlow is always there.
CPU_ENGINES = {"float32": ("ncnn", "openvino"), "bfloat16": ("openvino",), "int8": ("openvino",)}

#: As they write themselves.
ENGINE_NAMES = {"ncnn": "ncnn", "openvino": "OpenVINO", "tensorflow": "TensorFlow"}


def is_installed(engine: str) -> bool:
    """Return whether an engine is installed; it is not imported for it."""
    return importlib.util.find_spec(engine) is not None


def pick_engine(precision: str, device: str) -> str:
    """Return which engine computes in a precision on a device: ``ncnn``, ``openvino`` or ``tensorflow``.

    Raises
    ------
    HeadstartError
        If there is no such device.
    """
    if precision == "int8":
        check_cpu(device)
        return "openvino"
    picked = pick_device(device)
    if picked.name != "cpu" or precision not in {"float32", picked.reduced_precision}:
        return "tensorflow"
    return next(filter(is_installed, CPU_ENGINES.get(precision, ())), "tensorflow")


def installed_engines() -> tuple[str, ...]:
    """Return the engines that are installed; none is imported for it."""
    return tuple(filter(is_installed, ENGINE_NAMES))


def type_to_prove(device: Device, engines: Collection[str]) -> str | None:
    """Return the reduced type that ``auto`` tries on a device with these engines; None: float32 is as fast, or all it has."""
    return None if device.winograd and "ncnn" in engines else device.reduced_precision


def faster_engine(precision: str) -> str | None:
    """Return the engine that would compute in a precision the fastest on a CPU, where it is not installed."""
    engine = CPU_ENGINES.get(precision, ("tensorflow",))[0]
    return None if is_installed(engine) else engine


def build_backbone(
    recipe: Recipe,
    weights: str | Path | Weights = "imagenet",
    *,
    batch_size: int | None = None,
    device: str = "auto",
) -> Backbone:
    """Return the backbone that makes the features of a recipe.

    int8 runs on OpenVINO. On a CPU, float32 runs on ncnn or OpenVINO and bfloat16 on OpenVINO, where these are installed:
    they are faster there, and within the rounding of the type the same (decision 0003). Everything else runs on TensorFlow.

    Parameters
    ----------
    recipe : Recipe
        Of the features.
    weights : str, Path or Weights
        ``imagenet``, the file of the custom weights that the features were made with, or weights that were loaded before.
    batch_size : int, optional
        Images per forward pass, mirror images included; the default fits the device.
    device : str
        ``auto``, ``cpu`` or ``gpu:N``; int8 runs on the CPU alone.

    Raises
    ------
    RecipeMismatchError
        If these weights, or this version of the program, cannot make them; the message names the fields.
    HeadstartError
        If the recipe needs OpenVINO and it is not installed, or the device is none of its.
    """
    check_runnable(recipe)  # before weights are looked for
    backbone = in_views(engine_backbone(network_recipe(recipe), weights, batch_size, device), recipe.views)
    backbone.recipe = replace(backbone.recipe, page=recipe.page, intensity=recipe.intensity)
    return backbone


def network_recipe(recipe: Recipe) -> Recipe:
    """Return a recipe without what is done to an image before the network: the one that an engine is built from."""
    return replace(recipe, views="single", page=None, intensity=None)


def engine_backbone(recipe: Recipe, weights: str | Path | Weights, batch_size: int | None, device: str) -> Backbone:
    """Return the backbone of a recipe of single views. Parameters and errors as of :func:`build_backbone`."""
    engine = pick_engine(recipe.precision, device)
    if engine == "ncnn":
        from headstart.backbones.ncnn import NcnnBackbone

        return NcnnBackbone(recipe, loaded(weights), batch_size=batch_size)
    if engine == "openvino":
        from headstart.backbones.openvino import OpenVinoBackbone

        return OpenVinoBackbone.from_recipe(recipe, loaded(weights), batch_size=batch_size)
    return FrozenBackbone.from_recipe(recipe, loaded(weights), batch_size=batch_size, device=device)


def check_cpu(device: str) -> None:
    """Raise HeadstartError where a GPU was asked for, which the engine of int8 does not use."""
    if device not in {"auto", "cpu"}:
        raise HeadstartError(f"The precision int8 runs on the CPU. Received: --device {device}. Leave --device out.")


def loaded(weights: str | Path | Weights) -> Weights:
    """Return weights, read and checked."""
    return weights if isinstance(weights, Weights) else load_weights(weights, custom=str(weights) != "imagenet")
