"""Small ONNX models with known outputs, and their descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

#: Pixels of a side, and of a patch: the map is 4 × 4.
SIZE, PATCH = 16, 4

DESCRIPTION = 'channels = "BGR"\nscale = "1/255"\nmean = [0.5, 0.25, 0.125]\nstd = [0.5, 1, 2]\n'

#: One kernel per channel, shape (5, 3, PATCH, PATCH).
KERNEL = np.random.default_rng(0).normal(size=(5, 3, PATCH, PATCH)).astype(np.float32)


def expected_maps(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the map of :func:`patch_nodes` with :data:`DESCRIPTION`, shape (n_images, 4, 4, 5)."""
    values = (images[..., ::-1] / 255 - (0.5, 0.25, 0.125)) / (0.5, 1, 2)
    side = SIZE // PATCH
    patches = values.reshape(-1, side, PATCH, side, PATCH, 3)
    return np.maximum(np.einsum("nyaxbc,kcab->nyxk", patches, KERNEL), 0)


def patch_nodes() -> list[Any]:
    """Return nodes from ``images``, channels first, to the value ``patches``, a map of shape (n, 5, 4, 4), and averages."""
    return [
        helper.make_node("Conv", ["images", "kernel"], ["linear"], kernel_shape=[PATCH] * 2, strides=[PATCH] * 2),
        helper.make_node("Relu", ["linear"], ["patches"]),
        helper.make_node("GlobalAveragePool", ["patches"], ["means"]),
        helper.make_node("Flatten", ["means"], ["features"]),
    ]


def model_bytes(
    nodes: Sequence[Any] | None = None,
    *,
    shape: Sequence[Any] = ("n", 3, SIZE, SIZE),
    kind: int = TensorProto.FLOAT,
    output: str = "features",
    opset: int = 18,
    constants: Sequence[tuple[str, NDArray[Any]]] = (("kernel", KERNEL),),
) -> bytes:
    """Return an ONNX model with one input, ``images``."""
    graph = helper.make_graph(
        patch_nodes() if nodes is None else nodes,
        "model",
        [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_empty_tensor_value_info(output)],
        [numpy_helper.from_array(values, name) for name, values in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def write_model(folder: Path, data: bytes | None = None, description: str = DESCRIPTION, name: str = "own") -> Path:
    """Write a model and its description; return the path of the model."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.onnx"
    path.write_bytes(model_bytes() if data is None else data)
    path.with_suffix(".toml").write_text(description, encoding="utf-8")
    return path


def changed(data: bytes, change: Any) -> bytes:
    """Return a model after ``change(model)``."""
    model = onnx.load_model_from_string(data)
    change(model)
    result: bytes = model.SerializeToString()
    return result
