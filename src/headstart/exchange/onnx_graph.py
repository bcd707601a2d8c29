"""A graph of ONNX operators: what a network or a head is written with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from headstart.errors import HeadstartError, MissingExtraError

#: Versions of operators and file format supported by every runtime since 2023
#: (https://github.com/onnx/onnx/blob/main/docs/Versioning.md).
OPSET, IR_VERSION = 18, 8

#: Size limit of a protobuf message.
MAX_BYTES = 2**31 - 1

#: Parameters of ``selu`` in Keras (Klambauer et al., "Self-Normalizing Neural Networks", 2017).
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805

#: Slice bound beyond the end of every axis.
BEYOND = 2**62


class Graph:
    """The nodes and constants of a graph; values are referred to by name."""

    def __init__(self) -> None:
        self._onnx = import_onnx()
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._versions = {"": OPSET}  # of the operators, by domain

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

    def include(self, model: Any) -> None:
        """Take over nodes and constants of an ONNX model, whose names occur nowhere else, with its versions of operators."""
        self._nodes += model.graph.node
        self._constants += model.graph.initializer
        for one in model.opset_import:
            domain = "" if one.domain == "ai.onnx" else one.domain
            self._versions[domain] = max(one.version, self._versions.get(domain, 0))

    def to_bytes(self, n_outputs: int, *, description: str, metadata: Mapping[str, str]) -> bytes:
        """Return a model from ``images``, uint8 (n, height, width, 3), to ``probabilities`` (n, n_outputs).

        Raises HeadstartError if it exceeds the size limit of a single file.
        """
        helper, kinds = self._onnx.helper, self._onnx.TensorProto
        images = helper.make_tensor_value_info("images", kinds.UINT8, ["n", "height", "width", 3])
        outputs = helper.make_tensor_value_info("probabilities", kinds.FLOAT, ["n", n_outputs])
        graph = helper.make_graph(self._nodes, "headstart_classifier", [images], [outputs], self._constants)
        opset = [helper.make_opsetid(*one) for one in self._versions.items()]
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


def cut(graph: Graph, value: str, start: str, end: str, *, axis: int, step: int = 1) -> str:
    """Add a slice along one axis."""
    return graph.add("Slice", value, start, end, *(graph.constant([number], np.int64) for number in (axis, step)))


def as_float(graph: Graph, value: str) -> str:
    """Add a conversion to float32."""
    return graph.add("Cast", value, to=import_onnx().TensorProto.FLOAT)


def over_positions(graph: Graph, how: str, maps: str, *, keepdims: int = 0) -> str:
    """Add ``Mean`` or ``Max`` over all positions of maps, channels first."""
    return graph.add(f"Reduce{how}", maps, graph.constant([2, 3], np.int64), keepdims=keepdims)


def activate(graph: Graph, activation: str, value: str, name: str = "") -> str:
    """Add an activation as defined by Keras; raise HeadstartError if it is unknown. ``name`` names the output."""
    plain = {"relu": "Relu", "tanh": "Tanh", "elu": "Elu", "sigmoid": "Sigmoid"}
    if activation in plain:
        return graph.add(plain[activation], value, name=name)
    if activation == "relu6":
        return graph.add("Clip", value, graph.constant(0), graph.constant(6), name=name)
    if activation == "softmax":
        return graph.add("Softmax", value, axis=1)
    if activation == "selu":
        return graph.add("Selu", value, alpha=SELU_ALPHA, gamma=SELU_SCALE)
    if activation == "silu":
        return graph.add("Mul", value, graph.add("Sigmoid", value))
    if activation == "gelu":  # x · Φ(x), the exact one (Hendrycks & Gimpel, 2016)
        error = graph.add("Erf", graph.add("Mul", value, graph.constant(1 / math.sqrt(2))))
        return graph.add(
            "Mul", graph.add("Mul", value, graph.constant(0.5)), graph.add("Add", error, graph.constant(1))
        )
    raise HeadstartError(f"The activation {activation} cannot be exported to ONNX.")


def import_onnx() -> Any:
    """Return onnx; raise MissingExtraError if not installed."""
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError(
            'ONNX needs the package onnx, which is missing: pip install "headstart[onnx]"'
        ) from error
    return onnx
