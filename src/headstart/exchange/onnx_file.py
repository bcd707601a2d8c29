"""The whole classifier as one ONNX file: plain operators and constants, no code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones.convnet import IMAGES, Addition, Convolution, Weights
from headstart.backbones.convnet import Layer as NetworkLayer
from headstart.backbones.keras_applications import AFFINE, APPLICATIONS, Affine, application_model
from headstart.backbones.registry import pairwise_sum, spec_of
from headstart.errors import HeadstartError
from headstart.exchange.keras_file import Request, open_request
from headstart.exchange.keras_nodes import add_model
from headstart.exchange.onnx_graph import BEYOND, Graph, activate, as_float, cut, import_onnx, over_positions
from headstart.exchange.own_network_nodes import add_own_network
from headstart.heads.head_specs import GEM_POWER, POOLINGS
from headstart.heads.transforms import corners
from headstart.storage.publishing import published_bytes
from headstart.types import VIEWS, Recipe


def linear_resize(graph: Graph, images: str, size_px: int) -> str:
    """Add the resize of images/resize.py, bit for bit the same; return rounded float32 values, (n, size_px, size_px, 3).

    ONNX's Resize may differ in the last bit, which after rounding can be a whole grey level.
    """
    shape = graph.add("Shape", images)
    top, bottom, y = neighbours(graph, shape, 1, size_px)
    left, right, x = neighbours(graph, shape, 2, size_px)
    weight_x = graph.add("Reshape", x, graph.constant([1, 1, size_px, 1], np.int64))
    weight_y = graph.add("Reshape", y, graph.constant([1, size_px, 1, 1], np.int64))
    rows = []
    for side in (top, bottom):
        picked = graph.add("Gather", images, side, axis=1)
        start, end = (as_float(graph, graph.add("Gather", picked, column, axis=2)) for column in (left, right))
        rows.append(_blend(graph, start, end, weight_x))
    return graph.add("Round", _blend(graph, rows[0], rows[1], weight_y))  # halves to even, as np.rint


def neighbours(graph: Graph, shape: str, axis: int, size_px: int) -> tuple[str, str, str]:
    """Add ``images.resize.neighbours`` along one axis."""
    length = graph.add("Gather", shape, graph.constant(axis, np.int64))
    scale = graph.add("Div", as_float(graph, length), graph.constant(size_px))
    half = graph.constant(0.5)
    centres = graph.constant(np.arange(size_px, dtype=np.float32) + np.float32(0.5))
    positions = graph.add("Sub", graph.add("Mul", centres, scale), half)
    lower = graph.add("Floor", positions)
    first = _as_index(graph, graph.add("Max", lower, graph.constant(0)))
    last = graph.add("Sub", length, graph.constant(1, np.int64))
    second = graph.add("Min", _as_index(graph, graph.add("Ceil", positions)), last)
    return first, second, graph.add("Sub", positions, lower)


def _blend(graph: Graph, start: str, end: str, weight: str) -> str:
    """Add ``start + (end − start) · weight``."""
    return graph.add("Add", graph.add("Mul", graph.add("Sub", end, start), weight), start)


def turned(graph: Graph, maps: str, steps: Iterable[str]) -> str:
    """Add the steps of a view (``types.VIEWS``) to maps, channels first."""
    for step in steps:
        if step == "transpose":
            maps = graph.add("Transpose", maps, perm=[0, 1, 3, 2])
        else:
            start, end = (graph.constant([number], np.int64) for number in (-1, -BEYOND))
            maps = cut(graph, maps, start, end, axis={"rows": 2, "columns": 3}[step], step=-1)
    return maps


def mean_of_views(graph: Graph, maps: str, n_images: str, views: str) -> str:
    """Average the maps of some images over their views, which follow one another in the batch, after turning them back."""
    parts = []
    for i, steps in enumerate(VIEWS[views]):
        start, end = (graph.add("Mul", n_images, graph.constant([number], np.int64)) for number in (i, i + 1))
        parts.append(turned(graph, cut(graph, maps, start, end, axis=0), steps[::-1]))
    total = pairwise_sum(parts, partial(graph.add, "Add"))
    return graph.add("Mul", total, graph.constant(1 / len(parts)))


def _as_index(graph: Graph, value: str) -> str:
    return graph.add("Cast", value, to=import_onnx().TensorProto.INT64)


#: Minimum divisor: rows of zeros stay zero.
TINY = 1e-30


def export_onnx(
    head: str | Path, output: str | Path, *, weights: str | Path | None = None, overwrite: bool = False
) -> Path:
    """Write a saved head and its backbone as one ONNX model; return the file.

    The input ``images`` is a batch of RGB images of any one size, uint8 of shape (n, height, width, 3); the model
    resizes, rounds, preprocesses and computes in float32. The output ``probabilities`` has one column per class, in the
    order of ``class_names`` in the model's metadata (JSON), which also holds ``recipe`` and ``spec``. Parameters and
    errors are those of :func:`export_keras`; MissingExtraError is raised if onnx is not installed.
    """
    target = Path(output)
    import_onnx()
    data = _build(open_request(head, target, ".onnx", weights, overwrite))
    target.parent.mkdir(parents=True, exist_ok=True)
    with published_bytes(target) as file:
        file.write(data)
    return target


def _build(request: Request) -> bytes:
    bundle, graph = request.bundle, Graph()
    pixels = linear_resize(graph, "images", bundle.recipe.input_size_px)
    maps = _layer_outputs(graph, _preprocess(graph, pixels, request), request)
    features = _scale(graph, _join(graph, maps, request), request)
    _classify(graph, features, request)
    return graph.to_bytes(
        len(bundle.class_names),
        description="Image classifier: uint8 RGB images of shape (n, height, width, 3) to probabilities. Class names are in "
        "the metadata.",
        metadata={
            "class_names": json.dumps(bundle.class_names, ensure_ascii=False),
            "recipe": bundle.recipe.to_json(),
            "spec": json.dumps(bundle.spec.to_dict(), sort_keys=True),
        },
    )


def _preprocess(graph: Graph, pixels: str, request: Request) -> str:
    """Add the input of the network: its order of channels, centred and scaled, channels first."""
    network = request.network or affine_of(request.bundle.recipe)
    if network.bgr:
        pixels = graph.add("Gather", pixels, graph.constant([2, 1, 0], np.int64), axis=3)
    values = graph.add("Sub", pixels, graph.constant(network.mean)) if any(network.mean) else pixels
    if np.any(np.not_equal(network.scale, 1)):
        values = graph.add("Mul", values, graph.constant(network.scale))
    return graph.add("Transpose", values, perm=[0, 3, 1, 2])


def affine_of(recipe: Recipe) -> Affine:
    """Return the preprocessing of a backbone whose layers are not described."""
    own = recipe.own_network
    if own is None:
        return AFFINE[APPLICATIONS[recipe.backbone].preprocessing]
    mean, scale = np.divide(own.mean, own.scale), np.divide(own.scale, own.std)
    return Affine(tuple(mean.tolist()), tuple(scale.tolist()), bgr=own.channels == "BGR")


def _layer_outputs(graph: Graph, pixels: str, request: Request) -> Mapping[str, str]:
    """Add the backbone; return the outputs of the layers needed by the head, averaged over the recipe's views."""
    recipe, spec = request.bundle.recipe, request.bundle.spec
    needed = sorted({recipe.layer if name in POOLINGS else name for name in spec.features})
    if recipe.views == "single":
        return _backbone(graph, pixels, needed, request)
    seen = graph.add("Concat", *(turned(graph, pixels, steps) for steps in VIEWS[recipe.views]), axis=0)
    n_images = graph.add("Shape", pixels, end=1)
    outputs = _backbone(graph, seen, needed, request)
    return {name: mean_of_views(graph, output, n_images, recipe.views) for name, output in outputs.items()}


def _backbone(graph: Graph, value: str, needed: Sequence[str], request: Request) -> Mapping[str, str]:
    """Add the necessary layers; return the outputs of the needed ones by name, channels first."""
    recipe, network, outputs = request.bundle.recipe, request.network, {IMAGES: value}
    if recipe.own_network:
        return {recipe.layer: add_own_network(graph, request.weights.model, recipe, value)}
    if network is None:
        exact = replace(recipe, precision="float32")
        model = application_model(APPLICATIONS[recipe.backbone], exact, request.weights, needed)
        return dict(zip(needed, add_model(graph, model, value), strict=True))
    sides = network.sides(recipe.input_size_px)
    for layer in network.needed_for(needed):
        inputs = [outputs[source] for source in layer.sources]
        outputs[layer.name] = _layer(graph, layer, inputs, sides[layer.sources[0]], request.weights)
    return {name: outputs[name] for name in needed}


def _layer(graph: Graph, layer: NetworkLayer, inputs: Sequence[str], side: int, weights: Weights) -> str:
    """Add a layer whose inputs have this side; return its output."""
    if isinstance(layer, Addition):
        return graph.add("Add", *inputs, name=layer.name)
    if not isinstance(layer, Convolution):
        return graph.add("MaxPool", *inputs, name=layer.name, kernel_shape=[2, 2], strides=[2, 2])
    kernel, bias = weights.tensors[layer.name]
    # Kernels of Keras have the shape (height, width, input, output), or (height, width, channel, 1) if they are depthwise;
    # those of ONNX (output, input, height, width), or (channel, 1, height, width).
    kernel = kernel.transpose((2, 3, 0, 1) if layer.depthwise else (3, 2, 0, 1))
    before, behind = layer.padding(side)
    options: dict[str, Any] = {
        "name": "" if layer.activation else layer.name,
        "kernel_shape": [layer.kernel_px] * 2,
        "pads": [before, before, behind, behind],
    }
    if layer.stride > 1:
        options["strides"] = [layer.stride] * 2
    if layer.depthwise:
        options["group"] = layer.channels
    value = graph.add("Conv", *inputs, graph.constant(kernel), graph.constant(bias), **options)
    return activate(graph, layer.activation, value, layer.name) if layer.activation else value


def _join(graph: Graph, maps: Mapping[str, str], request: Request) -> str:
    stored = maps.get(request.bundle.recipe.layer, "")
    parts = [
        _pool(graph, name, stored, request) if name in POOLINGS else over_positions(graph, "Mean", maps[name])
        for name in request.bundle.spec.features
    ]
    return graph.add("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]


def _pool(graph: Graph, name: str, maps: str, request: Request) -> str:
    """Add one pooling of the stored layer, shape (n, width)."""
    if name == "flatten":
        return graph.add("Flatten", graph.add("Transpose", maps, perm=[0, 2, 3, 1]), axis=1)
    if name in {"avg", "max"}:
        return over_positions(graph, {"avg": "Mean", "max": "Max"}[name], maps)
    if name == "gem":
        return generalised_mean(graph, maps)
    if name == "crops":
        recipe = request.bundle.recipe
        side, _, _ = spec_of(recipe).map_shape(recipe)
        return average_crops(graph, maps, side)
    raise HeadstartError(f"The pooling {name} cannot be exported to ONNX.")


def average_crops(graph: Graph, maps: str, side: int) -> str:
    """Add ``crops`` of heads/transforms.py for a map of ``side`` rows and columns."""
    parts = [maps]
    for rows, columns in corners(side, side):
        corner = maps
        for axis, part in (2, rows), (3, columns):
            start, end = (graph.constant([bound], np.int64) for bound in (part.start, part.stop))
            corner = cut(graph, corner, start, end, axis=axis)
        parts.append(corner)
    return graph.add("Concat", *(over_positions(graph, "Mean", part) for part in parts), axis=1)


def generalised_mean(graph: Graph, maps: str) -> str:
    """Add ``gem`` of heads/transforms.py."""
    positive = graph.add("Relu", maps)
    largest = over_positions(graph, "Max", positive, keepdims=1)
    shares = graph.add("Div", positive, graph.add("Max", largest, graph.constant(TINY)))
    mean = over_positions(graph, "Mean", graph.add("Pow", shares, graph.constant(GEM_POWER)), keepdims=1)
    rooted = graph.add("Pow", mean, graph.constant(1 / GEM_POWER))
    return graph.add("Flatten", graph.add("Mul", rooted, largest), axis=1)


def _scale(graph: Graph, features: str, request: Request) -> str:
    kind = request.bundle.spec.scaling
    if kind == "none":
        return features
    if kind == "standard":
        scaler = request.bundle.head.steps[0][1]
        return graph.add("Div", graph.add("Sub", features, graph.constant(scaler.mean_)), graph.constant(scaler.scale_))
    if kind == "sqrt-l2":
        features = graph.add("Mul", graph.add("Sign", features), graph.add("Sqrt", graph.add("Abs", features)))
    elif kind != "l2":
        raise HeadstartError(f"The scaling {kind} cannot be exported to ONNX.")
    norms = graph.add("ReduceL2", features, graph.constant([1], np.int64), keepdims=1)
    return graph.add("Div", features, graph.add("Max", norms, graph.constant(TINY)))


def _classify(graph: Graph, features: str, request: Request) -> None:
    form = request.layers
    if form.views > 1:
        width = len(form.layers[0].kernel)
        features = graph.add("Reshape", features, graph.constant([-1, width], np.int64))
    for layer in form.layers:
        product = graph.add("Gemm", features, *map(graph.constant, (layer.kernel, layer.bias)))
        features = activate(graph, layer.activation, product)
    if form.layers[-1].normalised:
        sums = graph.add("ReduceSum", features, graph.constant([1], np.int64), keepdims=1)
        features = graph.add("Div", features, sums)
    if form.views > 1:
        n_outputs = len(form.columns)
        features = graph.add("Reshape", features, graph.constant([-1, form.views, n_outputs], np.int64))
        features = graph.add("ReduceMean", features, graph.constant([1], np.int64), keepdims=0)
    placement = form.placement(len(request.bundle.class_names))
    if placement is not None:
        features = graph.add("MatMul", features, graph.constant(placement))
    graph.add("Identity", features, name="probabilities")
