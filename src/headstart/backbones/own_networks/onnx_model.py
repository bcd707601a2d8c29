"""An ONNX model as data: what it may hold, its input, and its output as maps; no runtime reads it here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import HeadstartError

#: Operators that give other values each time, and those that repeat as often as their input says.
RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
LOOPS = frozenset({"Loop", "Scan", "SequenceMap"})


def parsed(data: bytes) -> Any:
    """Return the model in some bytes; raise HeadstartError if they hold none."""
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf raises several kinds
        raise HeadstartError("it is no ONNX model, or a damaged one.") from error
    if not model.graph.node or not model.graph.output:
        raise HeadstartError("it is no ONNX model, or an empty one.")
    return model


def graphs(model: Any) -> Iterator[tuple[Sequence[Any], Sequence[Any]]]:
    """Yield nodes and constants of a model's graph, of the graphs inside of it, and of its functions."""
    waiting = [(list(model.graph.node), list(model.graph.initializer))]
    waiting += [(list(function.node), []) for function in model.functions]
    while waiting:
        nodes, constants = waiting.pop()
        for attribute in (attribute for node in nodes for attribute in node.attribute):
            constants += [attribute.t, *attribute.tensors]
            inside = [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
            waiting += [(list(graph.node), list(graph.initializer)) for graph in inside]
        yield nodes, constants


def check_operators(model: Any) -> None:
    """Raise HeadstartError for operators and constants that a backbone may not have."""
    for nodes, constants in graphs(model):
        found = {node.op_type for node in nodes}
        if found & RANDOM:
            raise HeadstartError(f"it has the operator {min(found & RANDOM)}, whose values are others each time.")
        if found & LOOPS:
            raise HeadstartError(f"it has the operator {min(found & LOOPS)}, which may repeat without end.")
        for constant in constants:
            if constant.external_data or constant.data_location:
                raise HeadstartError(
                    f"its tensor {constant.name!r} lies in another file. Save the model with all tensors in one file."
                )


@dataclass(frozen=True, slots=True)
class ModelInput:
    """The input of a model."""

    name: str
    layout: str  # ``NCHW`` or ``NHWC``
    size_px: int  # height and width
    n_images: int  # number of images of a pass; 0 if any
    dtype: str

    def shape(self, n_images: int) -> tuple[int, int, int, int]:
        """Return the shape for so many images."""
        size = self.size_px
        return (n_images, 3, size, size) if self.layout == "NCHW" else (n_images, size, size, 3)


def find_input(model: Any, settings: Mapping[str, Any]) -> ModelInput:
    """Return the input, from the settings or the model; raise HeadstartError if it does not take images."""
    constants = {constant.name for constant in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in constants}
    name = settings["input"] or next(iter(inputs), "")
    if name not in inputs or len(inputs) > 1:
        raise HeadstartError(f"one input is expected, of images. Received: {', '.join(map(repr, inputs)) or 'none'}.")
    kind = inputs[name].type.tensor_type
    sides = [axis.dim_value if axis.HasField("dim_value") else 0 for axis in kind.shape.dim]
    if len(sides) != 4:
        raise HeadstartError(
            f"the input {name!r} has the shape {sides}; four axes are expected, e.g. (n, 3, 224, 224)."
        )
    layout = settings["layout"] or ("NCHW" if sides[1] == 3 else "NHWC" if sides[3] == 3 else "")
    if not layout:
        raise HeadstartError(f"the shape of the input {name!r}, {sides}, shows no layout. Write layout = NCHW or NHWC.")
    height, width = sides[2:] if layout == "NCHW" else sides[1:3]
    if sides[1 if layout == "NCHW" else 3] not in {0, 3}:
        raise HeadstartError(f"the input {name!r} has the shape {sides}, which is not that of RGB images in {layout}.")
    size = settings["size"] or height
    if not size:
        raise HeadstartError(f"the input {name!r} has no size of its own. Write size = …, in pixels.")
    if any(side not in {0, size} for side in (height, width)):
        raise HeadstartError(f"the input {name!r} is {height} × {width} pixels. Expected: {size} × {size}.")
    return ModelInput(name, layout, size, sides[0], input_type(kind.elem_type, settings))


def input_type(number: int, settings: Mapping[str, Any]) -> str:
    """Return the NumPy type of an input of this ONNX type; integers take pixels as they are."""
    import onnx

    kinds = onnx.TensorProto
    names = {kinds.FLOAT: "float32", kinds.FLOAT16: "float16", kinds.UINT8: "uint8"}
    if number not in names:
        raise HeadstartError("its input is neither float32, float16 nor uint8.")
    plain = settings["scale"] == 1 and set(settings["mean"]) == {0} and set(settings["std"]) == {1}
    if names[number] == "uint8" and not plain:
        raise HeadstartError("its input is uint8, which takes pixels as they are: leave out scale, mean and std.")
    return names[number]


def prepared(model: Any, given: ModelInput, output: str, n_images: int) -> bytes:
    """Return the model, which is changed, for so many images, with one output, which may be any value inside of it.

    Raises HeadstartError if there is no such value.
    """
    import onnx

    produced = {name for node in model.graph.node for name in node.output if name}
    if output not in produced:
        outputs = ", ".join(repr(value.name) for value in model.graph.output)
        raise HeadstartError(f"it has no output or inner value {output!r}. Its outputs: {outputs}.")
    graph = model.graph
    del graph.output[:], graph.value_info[:]  # shapes are inferred anew
    graph.output.append(onnx.helper.make_empty_tensor_value_info(output))
    shape = next(value for value in graph.input if value.name == given.name).type.tensor_type.shape
    for axis, length in zip(shape.dim, given.shape(n_images), strict=True):
        axis.dim_value = length
    data: bytes = model.SerializeToString()
    return data


def kind_of(shape: Sequence[int]) -> str:
    """Return what an output of this shape is; raise HeadstartError where that is not clear."""
    if len(shape) == 3:
        raise HeadstartError(
            f'its output has the shape {tuple(shape)}: tokens? Write output_kind = "class-token", the first one, or '
            '"patch-tokens", a map of the last ones.'
        )
    if len(shape) not in {2, 4}:
        raise HeadstartError(f"its output has the shape {tuple(shape)}. Expected: two to four axes.")
    return "vector" if len(shape) == 2 else "map"


def layout_of(shape: Sequence[int], input_layout: str) -> str:
    """Return the layout of a map, whose two equal sides are height and width; that of the input where all are equal."""
    if len(shape) != 4 or shape[1] == shape[2] == shape[3]:
        return input_layout
    return "NHWC" if shape[1] == shape[2] else "NCHW"


def as_maps(values: NDArray[Any], kind: str, layout: str) -> NDArray[np.float32]:
    """Return an output as maps, shape (n_images, height, width, n_channels), float32.

    Of tokens, those of the patches are the last ones, as many as fill a square: classes and registers come before them.
    """
    axes = {"vector": 2, "map": 4, "class-token": 3, "patch-tokens": 3}[kind]
    if kind == "vector" and values.ndim == 4 and values.shape.count(1) >= 2:
        values = values.reshape(len(values), -1)
    if values.ndim != axes or not values.size:
        raise HeadstartError(f"its output has the shape {values.shape}, which is not that of a {kind}.")
    values = np.asarray(values, np.float32)
    if kind == "map":
        return values.transpose(0, 2, 3, 1) if layout == "NCHW" else values
    if kind == "patch-tokens":
        side = int(np.sqrt(values.shape[1]))
        return values[:, -(side**2) :].reshape(len(values), side, side, -1)
    return values.reshape(len(values), 1, 1, -1) if kind == "vector" else values[:, None, :1]
