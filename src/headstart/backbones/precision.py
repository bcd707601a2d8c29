"""The device that the network runs on, the fastest precision that gives the same features on it, and 8-bit integers."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.convnet import Convolution, Weights
from headstart.backbones.vgg16 import BGR_MEANS, NETWORK
from headstart.errors import HeadstartError
from headstart.runtime import import_tensorflow
from headstart.types import Backbone

#: Flags of CPUs with bfloat16 multiply-add units (Intel SDM vol. 2, VDPBF16PS and TDPBF16PS).
BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16")

#: AMD's family of Zen 3 and Zen 4, as listed by Linux. Zen 4 multiplies bfloat16 in halves of a register: float32 by
#: Winograd's convolutions is some 10 % faster. Zen 5 (family 26) multiplies whole registers (decision 0003).
WINOGRAD_PROCESSORS = frozenset({("AuthenticAMD", 25)})

#: Files of GPU drivers on Linux: Nvidia's, AMD's, and that of Windows' Linux.
GPU_DRIVERS = ("/dev/nvidiactl", "/proc/driver/nvidia/gpus", "/dev/kfd", "/dev/dxg")


@dataclass(frozen=True, slots=True)
class Device:
    """A processor for the forward pass."""

    name: str  # ``cpu`` or ``gpu:N``
    tensorflow_name: str
    batch_size: int  # default number of images per forward pass
    reduced_precision: str | None  # reduced type that it multiplies natively
    winograd: bool = False  # whether float32 by Winograd's convolutions is faster than that type


def pick_device(device: str = "auto") -> Device:
    """Return the device of this name; ``auto`` is the first GPU, or the CPU if there is none.

    Side effect: the memory of every visible GPU is set to grow on demand. Raises HeadstartError if the name is not ``auto``,
    ``cpu`` or ``gpu:N``, or there is no such GPU.
    """
    if not re.fullmatch(r"auto|cpu|gpu:\d+", device):
        raise HeadstartError(f"Unknown device {device!r}. Expected auto, cpu or gpu:N, as in gpu:0.")
    if device == "cpu":
        return cpu()
    n_gpus = count_gpus()
    if device == "auto":
        return gpu(0) if n_gpus else cpu()
    index = int(device.removeprefix("gpu:"))
    if index >= n_gpus:
        raise HeadstartError(
            f"There is no {device}: TensorFlow sees {n_gpus} GPU(s).", hint="Use `device='auto'` or cpu."
        )
    return gpu(index)


def cpu() -> Device:
    """Return the CPU of this machine."""
    reduced = "bfloat16" if has_bfloat16(cpu_flags()) else None
    return Device("cpu", "/CPU:0", 32, reduced, winograd=cpu_family() in WINOGRAD_PROCESSORS)


def gpu(index: int) -> Device:
    """Return GPU number ``index``.

    Its batch is half a file of features (``ExtractOptions.file_images``): most of a file is then written when its last
    batch is computed, and at 2,000 images/s the next batch is never late (docs/performance.md).
    """
    return Device(f"gpu:{index}", f"/GPU:{index}", 64, "float16")


def has_gpu_driver() -> bool:
    """Return whether there may be GPUs, without importing TensorFlow, which takes seconds."""
    return sys.platform != "linux" or any(Path(path).exists() for path in GPU_DRIVERS)


def count_gpus() -> int:
    """Return the number of GPUs that TensorFlow sees, after setting their memory to grow on demand.

    Side effect if there are any: float32 is multiplied as float32, not rounded to 19 bits (TensorFloat-32), since a
    recipe names the type of the multiplications.
    """
    if not has_gpu_driver():
        return 0
    tf = import_tensorflow()
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        tf.config.experimental.enable_tensor_float_32_execution(False)
    for found in gpus:
        try:
            tf.config.experimental.set_memory_growth(found, True)
        except RuntimeError:
            break  # TensorFlow was already in use, and its memory is set
    return len(gpus)


def has_bfloat16(flags: frozenset[str]) -> bool:
    """Return whether a CPU with these flags multiplies bfloat16 natively."""
    return not flags.isdisjoint(BFLOAT16_FLAGS)


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the feature flags of the CPU as listed by Linux; empty on other systems."""
    return frozenset(cpuinfo_value("flags", cpuinfo).split())


def cpu_family(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, int]:
    """Return vendor and family of the CPU as listed by Linux; empty and 0 if unknown."""
    family = cpuinfo_value("cpu family", cpuinfo)
    return cpuinfo_value("vendor_id", cpuinfo), int(family) if family.isdecimal() else 0


def cpuinfo_value(name: str, cpuinfo: Path) -> str:
    """Return a value of the first core; empty if unknown."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return ""
    found = re.search(rf"^{name}\s*:(.*)$", text, flags=re.MULTILINE)
    return found.group(1).strip() if found else ""


#: Every row's cosine to float32 must reach this. bfloat16 on AVX512_BF16 gives 0.9999, so a fault stands out.
MIN_COSINE = 0.999


def choose_precision(
    build: Callable[[str], Backbone], reduced: str | None, device: str, images: NDArray[np.uint8]
) -> tuple[Backbone, str]:
    """Return the backbone, in the reduced precision if it gives the features of float32 on these images, and the reason.

    ``build`` returns the backbone for a precision; ``reduced`` is a type that is faster on the device, or None;
    ``device`` is its name for the reason; ``images`` are the first batch of the user's own images, uint8 of shape
    (n_images, size, size, 3).
    """
    exact = build("float32")
    if reduced is None:
        return exact, f"float32: a faster type would change the features on this {device}"
    candidate = build(reduced)
    cosines = row_cosines(exact.forward(images).features, candidate.forward(images).features)
    lowest = float(cosines.min())
    proof = f"lowest cosine to float32 on your first {len(images)} images {lowest:.5f}, wanted ≥ {MIN_COSINE}"
    if lowest >= MIN_COSINE:
        return candidate, f"{reduced}: native on this {device}; {proof}"
    return exact, f"float32: {reduced} did not pass its proof; {proof}"


def row_cosines(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the cosine between rows of equal index, shape (n_rows,), float64.

    1 for two rows of zeros; 0 for zeros against other values, and for values that are not finite.
    """
    x, y = (np.reshape(rows, (len(rows), -1)).astype(np.float64) for rows in (a, b))
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    both_zero = ~x.any(axis=1) & ~y.any(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.einsum("ij,ij->i", x, y) / norms
    return np.where(both_zero, 1.0, np.nan_to_num(cosines, nan=0.0, posinf=0.0, neginf=0.0))


# VGG16 in 8-bit integers: the weights quantised per output channel, the values between the layers per layer.
# Weights are symmetric, −127…127. Values after a ReLU are 0…255, from 0 to the largest value on a sample of the user's
# images; the preprocessed image, whose limits are known, is −128…127. This is the scheme of NNCF with its "min-max"
# estimator, with which the tests compare the ranges; decision 0003 says why not its default.

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
