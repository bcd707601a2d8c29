"""VGG16 in 8-bit integers: the weights quantised per output channel, the values between the layers per layer.

Weights are symmetric, −127…127. Values after a ReLU are 0…255, from 0 to the largest value on a sample of the user's
images; the preprocessed image, whose limits are known, is −128…127. This is the scheme of NNCF with its "min-max"
estimator, with which the tests compare the ranges; decision 0003 says why not its default.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.layers import Convolution
from headstart.backbones.precision import cpu_flags
from headstart.backbones.vgg16 import BGR_MEANS, NETWORK
from headstart.backbones.weights import Weights
from headstart.errors import HeadstartError

#: Images and random seed of the sample. More images change the features by less than 1e-3 (decision 0003).
CALIBRATION_IMAGES = 64
CALIBRATION_SEED = 0

#: The convolutions, in network order.
CONVOLUTIONS = tuple(layer.name for layer in NETWORK.layers if isinstance(layer, Convolution))

#: Values of −128 and 127 in the preprocessed image: the largest distance of a pixel from its mean is 255 − 103.939.
INPUT_RANGE = (-(255 - min(BGR_MEANS)) * 128 / 127, 255 - min(BGR_MEANS))

#: Range of a layer whose output is zero on the whole sample.
MIN_RANGE = 1e-3

#: Flags of CPUs that sum 8-bit products without saturation (Intel SDM vol. 2, VPDPBUSD and TDPBUSD). Others clip sums of two
#: at 16 bits, which gives other features.
INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8")


@dataclass(frozen=True, slots=True)
class QuantizedLayer:
    """A convolution in integers."""

    kernel: NDArray[np.int8]  # shape (output, input, height, width); that of the first layer takes RGB
    scale: NDArray[np.float32]  # value of 1 in the kernel, shape (output, 1, 1, 1)
    bias: NDArray[np.float32]  # not quantised, shape (output,)


def oihw(weights: Weights, name: str, *, turned: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return kernel, shape (output, input, height, width), and bias of a convolution; ``turned`` takes RGB instead of BGR."""
    kernel, bias = weights.tensors[name]
    if turned:
        kernel = kernel[:, :, ::-1]
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)), bias


def quantize_layers(weights: Weights) -> dict[str, QuantizedLayer]:
    """Return every convolution in integers, in network order."""
    layers = {}
    for name in CONVOLUTIONS:
        kernel, bias = oihw(weights, name, turned=name == CONVOLUTIONS[0])
        largest = np.abs(kernel).max(axis=(1, 2, 3), keepdims=True)
        scale = (np.where(largest > 0, largest, 1) / np.float32(127)).astype(np.float32)
        integers = np.clip(np.rint(kernel / scale), -127, 127).astype(np.int8)
        layers[name] = QuantizedLayer(integers, scale, np.asarray(bias, np.float32))
    return layers


def network_sha256(layers: Mapping[str, QuantizedLayer], ranges: Sequence[float]) -> str:
    """Return the digest of a quantised network: per layer integers, scales and biases, then the ranges; little-endian."""
    digest = hashlib.sha256()
    for layer in layers.values():
        digest.update(layer.kernel.tobytes())
        digest.update(layer.scale.astype("<f4", copy=False).tobytes())
        digest.update(layer.bias.astype("<f4", copy=False).tobytes())
    digest.update(np.asarray(ranges, "<f4").tobytes())
    return digest.hexdigest()


def sample_sha256(digests: Sequence[str]) -> str:
    """Return the digest of the sorted digests of some files."""
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def images_to_pay(seconds: float, rate: float, int8_rate: float) -> float:
    """Return the number of images from which int8 is faster in total; infinite if it never is.

    n / rate = seconds + n / int8_rate, solved for n. ``seconds`` is the time for the sample, its forward pass and the second
    network; the rates are images per second in the other precision and in int8.
    """
    return max(seconds, 0.0) / (1 / rate - 1 / int8_rate) if int8_rate > rate else float("inf")


def adds_up_int8(flags: frozenset[str]) -> bool:
    """Return whether a CPU with these flags sums 8-bit products without clipping; True if no flags are known."""
    return not flags or not flags.isdisjoint(INT8_FLAGS)


def check_int8_cpu(flags: frozenset[str] | None = None) -> None:
    """Raise HeadstartError if the CPU is known to clip sums of 8-bit products.

    Nothing is refused where the system does not list flags; ``verify`` compares features there.
    """
    flags = cpu_flags() if flags is None else flags
    if not adds_up_int8(flags):
        raise HeadstartError(
            f"This processor has none of {', '.join(INT8_FLAGS)}: it clips sums of 8-bit products, which gives other "
            "features.",
            hint="Use `precision='auto'`, or a machine that has one of them for features of precision int8.",
        )
