"""The backbones that exist, the choice of an engine, and backbones that average over views of an image."""

from __future__ import annotations

import importlib.util
import operator
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.convnet import Weights
from headstart.backbones.efficientnet_lite import LITE0, LITE2
from headstart.backbones.keras_applications import APPLICATIONS
from headstart.backbones.own_networks.onnx_description import is_own_network, spec_of_file, spec_of_recipe
from headstart.backbones.precision import Device, pick_device
from headstart.backbones.spec import BackboneSpec
from headstart.backbones.vgg16 import VGG16
from headstart.errors import HeadstartError, RecipeMismatchError
from headstart.runtime import per_second
from headstart.types import VIEWS, Backbone, FeatureBatch, Recipe

T = TypeVar("T")

#: The backbones, by name.
BACKBONES: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (VGG16, LITE0.spec(), LITE2.spec(), *(application.spec() for application in APPLICATIONS.values()))
}


def backbone_spec(name: str) -> BackboneSpec:
    """Return the backbone of this name, or in this ONNX file; raise HeadstartError, listing all names, if there is none."""
    if is_own_network(name):
        return spec_of_file(name)
    if name not in BACKBONES:
        raise HeadstartError(f"Unknown backbone {name!r}. Expected an ONNX file or one of: {', '.join(BACKBONES)}.")
    return BACKBONES[name]


def spec_of(recipe: Recipe) -> BackboneSpec:
    """Return the backbone of a recipe; raise RecipeMismatchError if the features were made elsewhere."""
    check_runnable(recipe)
    return BACKBONES.get(recipe.backbone) or spec_of_recipe(recipe)


def measured_rate(spec: BackboneSpec, seconds: float = 3.0) -> float:
    """Return the images/s of a backbone's forward pass in float32 on the first device, measured for so long."""
    weights = spec.loaded(None)
    backbone = build_backbone(spec.recipe(weights=weights.name, weights_sha256=weights.sha256), weights)
    size = spec.default_input_size_px
    images = np.random.default_rng(0).integers(0, 256, (backbone.batch_size, size, size, 3), dtype=np.uint8)
    backbone.forward(images)  # compiles
    return per_second(lambda: backbone.forward(images), len(images), seconds)


def check_runnable(recipe: Recipe) -> None:
    """Raise RecipeMismatchError if no backbone computes this recipe, since the features were made elsewhere."""
    if recipe.backbone not in BACKBONES and recipe.own_network is None:
        raise RecipeMismatchError(
            f"These features were made by {recipe.backbone!r}, which headstart cannot run: it runs images through "
            f"{', '.join(BACKBONES)} only. Compute the features of new images where these came from, import them (headstart "
            "import), and score the head on that cache (headstart evaluate HEAD CACHE)."
        )


def in_views(backbone: Backbone, views: str) -> Backbone:
    """Return a backbone for these views of each image (``types.VIEWS``), from one for single views."""
    return backbone if views == "single" else ViewsBackbone(backbone, views)


class ViewsBackbone(Backbone):
    """A backbone whose features are the mean over several views of an image, by the name of the views in ``types.VIEWS``.

    All views go through the network together, so that a batch has as many times fewer images and takes as long.
    """

    def __init__(self, backbone: Backbone, views: str) -> None:
        self._backbone = backbone
        self.recipe = replace(backbone.recipe, views=views)
        self.device = backbone.device

    @property
    def batch_size(self) -> int:
        """Images that fill a forward pass with all their views."""
        return max(1, self._backbone.batch_size // len(VIEWS[self.recipe.views]))

    def forward(self, images: NDArray[np.uint8]) -> FeatureBatch:
        return mean_of_views(self._backbone.forward(all_views(images, self.recipe.views)), self.recipe.views)

    def start(self, images: NDArray[np.uint8]) -> Callable[[], FeatureBatch]:
        fetch = self._backbone.start(all_views(images, self.recipe.views))
        return lambda: mean_of_views(fetch(), self.recipe.views)


#: Step of a view → what it does to images or maps of shape (n_images, height, width, n_channels).
STEPS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "columns": lambda maps: maps[:, :, ::-1],
    "rows": lambda maps: maps[:, ::-1],
    "transpose": lambda maps: maps.swapaxes(1, 2),
}


def turned(maps: NDArray[Any], steps: Iterable[str]) -> NDArray[Any]:
    """Return images or maps of shape (n_images, height, width, n_channels) after these steps."""
    return reduce(lambda values, step: STEPS[step](values), steps, maps)


def all_views(images: NDArray[np.uint8], views: str) -> NDArray[np.uint8]:
    """Return images of shape (n_images, size, size, 3) in the first view, then all in the second, and so on."""
    return np.concatenate([turned(images, steps) for steps in VIEWS[views]])


def mean_of_views(seen: FeatureBatch, views: str) -> FeatureBatch:
    """Return the mean, in float32, of the features of :func:`all_views`, whose maps are turned back."""
    n_views = len(VIEWS[views])
    maps = [
        turned(part, steps[::-1]) for part, steps in zip(np.split(seen.features, n_views), VIEWS[views], strict=True)
    ]
    scale = np.float32(1 / n_views)
    features, pooled = pairwise_sum(maps) * scale, pairwise_sum(np.split(seen.pooled, n_views)) * scale
    return FeatureBatch(np.ascontiguousarray(features), pooled, seen.pooled_column_layer)


def pairwise_sum(parts: Sequence[T], add: Callable[[T, T], T] = operator.add) -> T:
    """Return the sum of two, four or eight parts: neighbours are added, then the sums of neighbours.

    With the order in ``types.VIEWS`` a flipped or turned image has the same pairs, so that rounding is the same too.
    """
    while len(parts) > 1:
        parts = [add(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


#: Engines that compute on the CPU alone, with the types that they are the fastest in there (decision 0003).
CPU_ENGINES = {"ncnn": ("float32",), "openvino": ("float32", "bfloat16", "int8")}

#: Engines with their display names.
ENGINE_NAMES = {"ncnn": "ncnn", "openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "tensorflow": "TensorFlow"}


def engine_label(engine: str) -> str:
    """Return the display name of an engine."""
    return ENGINE_NAMES.get(engine, engine)


def is_installed(engine: str) -> bool:
    """Return whether an engine is installed, without importing it."""
    return engine not in ENGINE_NAMES or importlib.util.find_spec(engine) is not None


def pick_engine(precision: str, device: str, spec: BackboneSpec = VGG16) -> str:
    """Return the name of a backbone's first engine for a precision on a device; HeadstartError if there is no such device."""
    if precision == "int8":
        check_cpu(device)
        return "openvino"
    picked = pick_device(device)
    is_native = picked.name == "cpu" and precision in {"float32", picked.reduced_precision}
    return next(
        (
            name
            for name in spec.engines
            if name not in CPU_ENGINES or (is_native and precision in CPU_ENGINES[name] and is_installed(name))
        ),
        list(spec.engines)[-1],
    )


def installed_engines() -> tuple[str, ...]:
    """Return the installed engines."""
    return tuple(filter(is_installed, ENGINE_NAMES))


def type_to_prove(device: Device, engines: Collection[str], spec: BackboneSpec = VGG16) -> str | None:
    """Return the reduced type that ``auto`` tries on a device with these engines; None if float32 is as fast."""
    fastest = next((name for name in spec.engines if name in engines), "")
    if device.winograd and fastest == "ncnn":
        return None
    return device.reduced_precision if spec.auto_tries and device.reduced_precision in spec.precisions else None


def fastest_engine(precision: str, spec: BackboneSpec = VGG16) -> str:
    """Return the fastest engine of a backbone for a precision on a CPU, installed or not."""
    return next((name for name in spec.engines if precision in CPU_ENGINES.get(name, ())), "tensorflow")


def build_backbone(
    recipe: Recipe,
    weights: str | Path | Weights | None = None,
    *,
    batch_size: int | None = None,
    device: str = "auto",
) -> Backbone:
    """Return the backbone that computes the features of a recipe.

    int8 runs on OpenVINO. On a CPU, float32 runs on ncnn or OpenVINO and bfloat16 on OpenVINO if these are installed:
    they are faster there, with the same features within the rounding of the type (decision 0003). Everything else runs on
    TensorFlow.

    Parameters
    ----------
    recipe : Recipe
        Recipe of the features.
    weights : str, Path or Weights, optional
        Name of published weights, a file, or loaded weights; the default is the first published weights.
    batch_size : int, optional
        Images per forward pass, of which each view is one; the default fits the device.
    device : str
        ``auto``, ``cpu`` or ``gpu:N``; int8 runs on the CPU only.

    Raises
    ------
    RecipeMismatchError
        If these weights, or this version of the program, compute other features; the message names the fields.
    HeadstartError
        If the recipe needs OpenVINO and it is not installed, or there is no such device.
    """
    check_runnable(recipe)  # before weights are looked for
    backbone = in_views(engine_backbone(network_recipe(recipe), weights, batch_size, device), recipe.views)
    backbone.recipe = replace(
        backbone.recipe, page=recipe.page, intensity=recipe.intensity, random_crop=recipe.random_crop
    )
    return backbone


def network_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe of an engine: without the treatment of an image before the network."""
    return replace(recipe, views="single", page=None, intensity=None, random_crop=0)


def engine_backbone(
    recipe: Recipe, weights: str | Path | Weights | None, batch_size: int | None, device: str
) -> Backbone:
    """Return the backbone of a recipe of single views; parameters and errors as of :func:`build_backbone`."""
    spec = spec_of(recipe)
    factory, loaded = spec.engine(pick_engine(recipe.precision, device, spec)), spec.loaded(weights)
    spec.check(recipe, loaded)
    return factory(recipe, loaded, spec=spec, batch_size=batch_size, device=device)


def check_cpu(device: str) -> None:
    """Raise HeadstartError if a GPU is requested, which int8 does not use."""
    if device not in {"auto", "cpu"}:
        raise HeadstartError(
            f"The precision int8 runs on the CPU. Received: device {device}.", hint="Leave out `device`."
        )
