"""Build an ONNX graph operator by operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headstart.errors import HeadstartError, MissingExtraError

#: Versions of operators and file format supported by every runtime since 2023
#: (https://github.com/onnx/onnx/blob/main/docs/Versioning.md).
OPSET, IR_VERSION = 18, 8

#: Size limit of a protobuf message.
MAX_BYTES = 2**31 - 1

#: Slice bound beyond the end of every axis.
BEYOND = 2**62


class Graph:
    """The nodes and constants of a graph; values are referred to by name."""

    def __init__(self) -> None:
        self._onnx = import_onnx()
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def add(self, operation: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add an operator (https://onnx.ai/onnx/operators); return the name of its output."""
        output = name or f"{operation.lower()}_{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(operation, inputs, [output], name=output, **attributes))
        return output

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """Add a constant; return its name."""
        name = f"constant_{len(self._constants)}"
        array = np.ascontiguousarray(values, dtype)
        tensor = self._onnx.numpy_helper.from_array(array.reshape(np.shape(values)), name)  # a scalar stays one
        self._constants.append(tensor)
        return name

    def to_bytes(self, n_outputs: int, *, description: str, metadata: Mapping[str, str]) -> bytes:
        """Return a model from ``images``, uint8 (n, height, width, 3), to ``probabilities`` (n, n_outputs).

        Raises
        ------
        HeadstartError
            If it exceeds the size limit of a single file.
        """
        helper, kinds = self._onnx.helper, self._onnx.TensorProto
        images = helper.make_tensor_value_info("images", kinds.UINT8, ["n", "height", "width", 3])
        outputs = helper.make_tensor_value_info("probabilities", kinds.FLOAT, ["n", n_outputs])
        graph = helper.make_graph(self._nodes, "headstart_classifier", [images], [outputs], self._constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="headstart")
        model.doc_string = description
        helper.set_model_props(model, dict(metadata))
        if model.ByteSize() > MAX_BYTES:
            raise HeadstartError(
                f"The model would have {model.ByteSize():,} bytes; ONNX holds {MAX_BYTES:,} in one file."
            )
        self._onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString(deterministic=True)
        return data


def linear_resize(graph: Graph, images: str, size_px: int) -> str:
    """Add the resize of images/resize.py, bit for bit the same.

    ONNX's Resize may differ in the last bit, which after rounding can be a whole grey level.

    Returns
    -------
    str
        Rounded values in float32, shape (n, size_px, size_px, 3).
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


def mirror(graph: Graph, maps: str) -> str:
    """Reverse the columns of maps, channels first."""
    return cut(graph, maps, graph.constant([-1], np.int64), graph.constant([-BEYOND], np.int64), axis=3, step=-1)


def mean_of_views(graph: Graph, maps: str, n_images: str) -> str:
    """Average the maps of some images with the mirrored maps of their mirror images, which follow them in the batch."""
    start, end = (graph.constant([value], np.int64) for value in (0, BEYOND))
    seen, mirrored = cut(graph, maps, start, n_images, axis=0), cut(graph, maps, n_images, end, axis=0)
    return graph.add("Mul", graph.add("Add", seen, mirror(graph, mirrored)), graph.constant(0.5))


def cut(graph: Graph, value: str, start: str, end: str, *, axis: int, step: int = 1) -> str:
    """Add a slice along one axis."""
    return graph.add("Slice", value, start, end, *(graph.constant([number], np.int64) for number in (axis, step)))


def as_float(graph: Graph, value: str) -> str:
    """Add a conversion to float32."""
    return graph.add("Cast", value, to=import_onnx().TensorProto.FLOAT)


def _as_index(graph: Graph, value: str) -> str:
    """Add a conversion to int64."""
    return graph.add("Cast", value, to=import_onnx().TensorProto.INT64)


def import_onnx() -> Any:
    """Return onnx; raise MissingExtraError if not installed."""
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError(
            'ONNX needs the package onnx, which is missing: pip install "headstart[onnx]"'
        ) from error
    return onnx
