"""An ONNX model of the user's own as a part of an exported classifier."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from headstart.backbones.own_networks.onnx_model import ModelInput, find_input, parsed
from headstart.errors import HeadstartError
from headstart.exchange.onnx_graph import BEYOND, OPSET, Graph, as_float, cut, import_onnx
from headstart.own_network import OwnNetwork
from headstart.types import Recipe

#: Put before every name of the model.
PREFIX = "backbone/"


def add_own_network(graph: Graph, data: bytes, recipe: Recipe, pixels: str) -> str:
    """Add a model behind its preprocessed images, float32, channels first; return the recipe's map, channels first.

    Raises HeadstartError if the model takes a fixed number of images, or its operators cannot be converted.
    """
    network = recipe.own_network
    if network is None:
        raise HeadstartError(f"The recipe of {recipe.backbone} does not describe its network.")
    model = parsed(data)
    given = find_input(model, {**asdict(network), "size": recipe.input_size_px})
    if given.n_images:
        raise HeadstartError(
            f"The model of {recipe.backbone} takes {given.n_images} images at a time, and an exported classifier any number. "
            "Export the network again with a dynamic first axis."
        )
    values = pixels if network.layout == "NCHW" else graph.add("Transpose", pixels, perm=[0, 2, 3, 1])
    graph.add("Cast", values, name=f"{PREFIX}{given.name}", to=onnx_type(given))
    graph.include(renamed(model))
    return as_maps(graph, as_float(graph, f"{PREFIX}{recipe.layer}"), network)


def renamed(model: Any) -> Any:
    """Return the model with a prefix before every name, without functions, and with operators of our version or later."""
    import onnx
    import onnx.inliner
    import onnx.version_converter

    model = onnx.inliner.inline_local_functions(model)
    version = next((one.version for one in model.opset_import if one.domain in {"", "ai.onnx"}), 0)
    try:
        if version < OPSET:
            model = onnx.version_converter.convert_version(model, OPSET)
    except RuntimeError as error:
        raise HeadstartError(
            f"The model cannot be part of an exported one: its operators of version {version} cannot be converted to version "
            f"{OPSET} ({error}). Export the network again with opset {OPSET}."
        ) from error
    return onnx.compose.add_prefix(model, PREFIX)


def onnx_type(given: ModelInput) -> int:
    """Return ONNX' number of the type of an input."""
    kind: int = import_onnx().helper.np_dtype_to_tensor_dtype(np.dtype(given.dtype))
    return kind


def as_maps(graph: Graph, values: str, network: OwnNetwork) -> str:
    """Add ``as_maps`` of backbones/own_networks/onnx_model.py, channels first."""
    side, _, channels = network.map_shape
    if network.output_kind == "map":
        return values if network.map_layout == "NCHW" else graph.add("Transpose", values, perm=[0, 3, 1, 2])
    if network.output_kind == "patch-tokens":
        first, end = (graph.constant([bound], np.int64) for bound in (-(side**2), BEYOND))
        patches = graph.add("Transpose", cut(graph, values, first, end, axis=1), perm=[0, 2, 1])
        return graph.add("Reshape", patches, graph.constant([-1, channels, side, side], np.int64))
    if network.output_kind == "class-token":
        first, end = (graph.constant([bound], np.int64) for bound in (0, 1))
        values = cut(graph, values, first, end, axis=1)
    return graph.add("Reshape", values, graph.constant([-1, channels, 1, 1], np.int64))
