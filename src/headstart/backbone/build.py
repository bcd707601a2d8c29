"""Which engine runs a recipe, and the backbone of a recipe for everything that needs one."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.backbone.device import pick_device
from headstart.backbone.vgg16 import FrozenBackbone, check_runnable
from headstart.backbone.views import in_views
from headstart.backbone.weights import Weights, load_weights
from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from headstart.backbone.device import Device
    from headstart.schema import Backbone, Recipe


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
        from headstart.backbone.ncnn import NcnnBackbone

        return NcnnBackbone(recipe, loaded(weights), batch_size=batch_size)
    if engine == "openvino":
        from headstart.backbone.openvino import OpenVinoBackbone

        return OpenVinoBackbone.from_recipe(recipe, loaded(weights), batch_size=batch_size)
    return FrozenBackbone.from_recipe(recipe, loaded(weights), batch_size=batch_size, device=device)


def check_cpu(device: str) -> None:
    """Raise HeadstartError where a GPU was asked for, which the engine of int8 does not use."""
    if device not in {"auto", "cpu"}:
        raise HeadstartError(f"The precision int8 runs on the CPU. Received: --device {device}. Leave --device out.")


def loaded(weights: str | Path | Weights) -> Weights:
    """Return weights, read and checked."""
    return weights if isinstance(weights, Weights) else load_weights(weights, custom=str(weights) != "imagenet")
