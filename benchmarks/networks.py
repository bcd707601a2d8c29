"""VGG16 with the same verified weights as other engines write it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.backbones.vgg16 import BGR_MEANS, load_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


def layers() -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32], bool]]:
    """Yield kernel (output, input, height, width), bias, and whether a pooling follows, in network order."""
    tensors = load_weights().tensors
    names = list(tensors)
    for name, following in zip(names, [*names[1:], ""], strict=True):
        kernel, bias = tensors[name]
        ends = name.partition("_")[0] != following.partition("_")[0]
        yield np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)), bias, ends


def write_onnx(path: Path) -> None:
    """Write VGG16 from uint8 RGB ``images`` (n, 224, 224, 3) to ``features`` (n, 7, 7, 512) as an ONNX file."""
    from onnx import TensorProto, helper, numpy_helper, save

    nodes, constants = [], []

    def add(operation: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{operation}_{len(nodes)}"
        nodes.append(helper.make_node(operation, inputs, [output], **attributes))
        return output

    def constant(values: Any, dtype: Any = np.float32) -> str:
        constants.append(numpy_helper.from_array(np.asarray(values, dtype), f"constant_{len(constants)}"))
        return str(constants[-1].name)

    value = add("Gather", "images", constant([2, 1, 0], np.int64), axis=3)
    value = add("Sub", add("Cast", value, to=TensorProto.FLOAT), constant(BGR_MEANS))
    value = add("Transpose", value, perm=[0, 3, 1, 2])
    for kernel, bias, ends in layers():
        value = add("Relu", add("Conv", value, constant(kernel), constant(bias), pads=[1, 1, 1, 1]))
        if ends:
            value = add("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
    add("Transpose", value, output="features", perm=[0, 2, 3, 1])
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 224, 224, 3])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 7, 7, 512])
    graph = helper.make_graph(nodes, "vgg16", [images], [features], constants)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)


def torch_network() -> Any:
    """Return VGG16 as a plain ``torch.nn.Sequential``: float32 BGR (n, 3, 224, 224), means subtracted, to (n, 512, 7, 7)."""
    import torch
    from torch import nn

    steps: list[nn.Module] = []
    for kernel, bias, ends in layers():
        step = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
        step.weight.data, step.bias.data = torch.from_numpy(kernel), torch.tensor(bias)
        steps += [step, nn.ReLU(inplace=True)]
        if ends:
            steps.append(nn.MaxPool2d(2))
    return nn.Sequential(*steps).eval().to(memory_format=torch.channels_last)
