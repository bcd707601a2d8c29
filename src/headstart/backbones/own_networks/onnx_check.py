"""A check of an ONNX model's description: the values that the network gets, its features and rate, and a reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.convnet import Weights
from headstart.backbones.own_networks.onnx_description import OnnxModel, open_model
from headstart.backbones.own_networks.onnx_engines import IMAGES_A_THREAD, OnnxBackbone, installed, preprocessed
from headstart.backbones.own_networks.onnx_model import as_maps
from headstart.backbones.precision import row_cosines
from headstart.errors import HeadstartError
from headstart.images.discovery.refs import state_of
from headstart.images.load import load_image
from headstart.own_network import OwnNetwork
from headstart.runtime import available_threads, per_second
from headstart.texts import reason_of
from headstart.types import Backbone, ImageRef

#: Preprocessing of published networks: (channels, scale, mean, std).
CONVENTIONS: Mapping[str, tuple[str, float, tuple[float, float, float], tuple[float, float, float]]] = {
    "torchvision and timm (ImageNet's means and deviations)": (
        "RGB", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ),
    "VGG and ResNet of Keras (BGR, ImageNet's means)": ("BGR", 1.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    "CLIP": (
        "RGB", 1 / 255, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    ),
    "−1 to 1": ("RGB", 1 / 127.5, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
    "0 to 1": ("RGB", 1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "0 to 255": ("RGB", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "EfficientNet-Lite": ("RGB", 1.0, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
}  # fmt: skip

#: Features of the original network on the same pixels must have this cosine. VGG16 on 12 photographs: other engine 0.9999999,
#: channels in the other order 0.59 to 0.89, means that are wrong by 4 to 7 grey levels 0.996 to 0.9997.
MIN_COSINE = 0.9999

#: Largest difference, of a whole range of values, at which two preprocessings are equal.
SAME_RANGE = 2e-3

#: A reference is a few megabytes.
MAX_REFERENCE_BYTES = 2**28

MEASURED_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """What was found out about an ONNX model and its description."""

    model: OnnxModel
    inputs: tuple[
        tuple[float, float], ...
    ]  # mean and deviation of the image's values per channel, as the network takes them
    features: Mapping[str, float]  # least, greatest, mean, and the share of zeros
    images_per_second: Mapping[str, float]  # by engine
    cosine: float | None  # to the reference; None without one
    problems: tuple[str, ...]  # what is wrong or not proven

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        network = self.model.network
        return {
            "path": str(self.model.path),
            "sha256": self.model.sha256,
            "input": network.input,
            "input_size_px": self.model.size_px,
            "preprocessing": str(network),
            "output": self.model.output,
            "map_shape": list(network.map_shape),
            "input_mean_and_deviation": [list(pair) for pair in self.inputs],
            "features": dict(self.features),
            "images_per_second": dict(self.images_per_second),
            "cosine_to_reference": self.cosine,
            "problems": list(self.problems),
        }


def check_model(
    path: str | Path, image: str | Path, reference: str | Path | None = None, *, seconds: float = MEASURED_SECONDS
) -> ModelCheck:
    """Check an ONNX model and the description beside it on an image.

    Parameters
    ----------
    path, image : str or Path
        The model, and an image file; it is resized as by ``extract-features``, so that one of the model's own size is
        compared pixel by pixel.
    reference : str or Path, optional
        ``.npy`` file with the output of the original network, behind its own preprocessing, for the same image.
    seconds : float
        Time for which each engine's rate is measured.

    Raises
    ------
    HeadstartError
        If a file is missing or invalid, or the model is refused.
    ImageError
        If the image cannot be read.
    """
    model = open_model(Path(path))
    pixels = read_pixels(Path(image), model.size_px)
    weights = model.spec().loaded(None)
    backbones = {engine: build(model, weights, engine) for engine in installed()}
    outputs = {engine: backbone.forward(pixels).features for engine, backbone in backbones.items()}
    engine = next(iter(backbones))
    maps = outputs[engine]
    problems = [
        f"On {other} the features are others than on {engine}: cosine {cosine:.5f}."
        for other, values in outputs.items()
        if (cosine := row_cosines(maps, values)[0]) < MIN_COSINE
    ]
    cosine = None
    if reference is not None:
        expected = read_reference(Path(reference), model)
        cosine = float(row_cosines(maps, expected)[0])
        if cosine < MIN_COSINE:
            problems.append(explained(model, backbones[engine], pixels, expected, cosine))
        elif not (pixels[..., 0] - pixels[..., 2]).any():
            problems.append("The image is grey, so that the order of the channels is not proven: take one in colour.")
    elif doubt := doubt_of(model.network):
        problems.append(doubt)
    values = preprocessed(pixels, model.network)[0]
    channels = values if model.network.layout == "NCHW" else values.transpose(2, 0, 1)
    return ModelCheck(
        model=model,
        inputs=tuple((float(channel.mean()), float(channel.std())) for channel in channels),
        features={
            "least": float(maps.min()),
            "greatest": float(maps.max()),
            "mean": float(maps.mean()),
            "zeros": float((maps == 0).mean()),
        },
        images_per_second={name: rate_of(backbone, pixels, seconds) for name, backbone in backbones.items()},
        cosine=cosine,
        problems=tuple(problems),
    )


def read_pixels(path: Path, size_px: int) -> NDArray[np.uint8]:
    """Return an image as the network takes it before preprocessing, uint8 of shape (1, size_px, size_px, 3), RGB."""
    try:
        ref = ImageRef(path.name, None, None, None, *state_of(path.stat()))
    except OSError as error:
        raise HeadstartError(f"{path} cannot be read: {reason_of(error)}") from error
    return load_image(path.parent, ref, size_px=size_px, resize_preset="keras-bilinear").pixels[np.newaxis]


def build(model: OnnxModel, weights: Weights, engine: str) -> OnnxBackbone:
    """Return the backbone of a model on an engine."""
    spec = model.spec()
    recipe = spec.recipe(weights=weights.name, weights_sha256=weights.sha256)
    backbone = spec.engine(engine)(recipe, weights, spec=spec, device="cpu")
    if not isinstance(backbone, OnnxBackbone):
        raise TypeError(f"{engine} is no engine of ONNX models")
    return backbone


def rate_of(backbone: Backbone, pixels: NDArray[np.uint8], seconds: float) -> float:
    """Return the images/s, for a few images per thread."""
    batch = pixels.repeat(IMAGES_A_THREAD * available_threads(), 0)
    return per_second(lambda: backbone.forward(batch), len(batch), seconds)


def read_reference(path: Path, model: OnnxModel) -> NDArray[np.float32]:
    """Return the features of the original network, shape (1, height, width, channels); HeadstartError if they do not fit."""
    try:
        if path.stat().st_size > MAX_REFERENCE_BYTES:
            raise ValueError("it is too large")
        # Mapped, since a header may claim more values than the file has.
        values = np.asarray(np.load(path, allow_pickle=False, mmap_mode="r"), np.float32)
    except (OSError, ValueError, TypeError, EOFError, OverflowError) as error:
        raise HeadstartError(f"{path} cannot be read as a NumPy array of features: {error}") from error
    network = model.network
    height, width, channels = network.map_shape
    if values.size == height * width * channels:
        in_front = network.map_layout == "NCHW" and values.shape[-3:] == (channels, height, width)
        values = values.reshape((1, channels, height, width) if in_front else (1, *network.map_shape))
        return values.transpose(0, 2, 3, 1) if in_front else values
    axes = {"vector": 2, "map": 4}.get(network.output_kind, 3)
    try:
        maps = as_maps(values if values.ndim == axes else values[np.newaxis], network.output_kind, network.map_layout)
    except HeadstartError:
        maps = values
    if maps.shape != (1, *network.map_shape):
        raise HeadstartError(
            f"{path} has the shape {values.shape}, and is not the output of {model.path.name} for one image, which is "
            f"{'×'.join(map(str, network.map_shape))}."
        )
    return maps


def explained(
    model: OnnxModel, backbone: OnnxBackbone, pixels: NDArray[np.uint8], expected: NDArray[np.float32], cosine: float
) -> str:
    """Return a sentence on features that are not those of the reference, with the preprocessing that gives them."""
    found = f"The features are not those of the reference: cosine {cosine:.5f}, expected ≥ {MIN_COSINE}. "
    for other in alternatives(model.network):
        maps = backbone.maps(pixels, other)
        if row_cosines(maps, expected)[0] >= MIN_COSINE:
            return f"{found}With this description they are:\n\n{as_toml(other)}"
    return (
        f"{found}No usual preprocessing gives them. Look at the output that was compared, at the size of the image (the "
        f"original may have cropped it: compare an image of {model.size_px} × {model.size_px} pixels), and at its mode."
    )


def alternatives(network: OwnNetwork) -> Iterator[OwnNetwork]:
    """Yield the network with the usual preprocessings, and with these and its own in the other order of channels."""
    given = network.scale, network.mean, network.std
    for channels, scale, mean, std in CONVENTIONS.values():
        yield with_preprocessing(network, channels, scale, mean, std)
    for channels, (scale, mean, std) in product(("RGB", "BGR"), (given, *(way[1:] for way in CONVENTIONS.values()))):
        yield with_preprocessing(network, channels, scale, mean, std)
        yield with_preprocessing(network, channels, scale, mean[::-1], std[::-1])


def with_preprocessing(network: OwnNetwork, channels: str, scale: float, mean: Any, std: Any) -> OwnNetwork:
    """Return a network with another preprocessing."""
    return replace(network, channels=channels, scale=scale, mean=mean, std=std)


def as_toml(network: OwnNetwork) -> str:
    """Return a preprocessing as lines of a description."""
    scale = f'"1/{1 / network.scale:g}"' if network.scale != 1 else "1"
    return f'channels = "{network.channels}"\nscale = {scale}\nmean = {list(network.mean)}\nstd = {list(network.std)}'


def doubt_of(network: OwnNetwork) -> str:
    """Return a sentence on a preprocessing that is not that of a known family of networks; empty if it is."""
    for name, (channels, scale, mean, std) in CONVENTIONS.items():
        usual = with_preprocessing(network, channels, scale, mean, std)
        other = "BGR" if channels == "RGB" else "RGB"
        turned = [
            replace(usual, channels=other),
            replace(usual, mean=mean[::-1], std=std[::-1]),
        ]
        if is_same(network, usual):
            return ""
        if any(is_same(network, one) for one in turned):
            return (
                f"Means and deviations are those of {name}, but with the channels in the other order. It takes:\n\n"
                f"{as_toml(usual)}"
            )
    return (
        f"This preprocessing is none of the usual ones ({'; '.join(CONVENTIONS)}). If the network was trained with it, prove "
        "it: give its own features of the image as a reference."
    )


def is_same(network: OwnNetwork, other: OwnNetwork) -> bool:
    """Return whether two preprocessings give the same values, about."""
    if network.channels != other.channels:
        return False
    ends = [(np.outer([0, 255], [one.scale] * 3) - one.mean) / one.std for one in (network, other)]
    return bool(np.abs(ends[0] - ends[1]).max() <= SAME_RANGE * np.ptp(ends[1]))
