"""The description of an ONNX model, a TOML file beside it, and the backbone that they make."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headstart.backbones.convnet import LayerSpec, Weights
from headstart.backbones.own_networks.onnx_trial import try_model
from headstart.backbones.spec import BackboneSpec
from headstart.errors import HeadstartError, WeightsError
from headstart.own_network import OUTPUT_KINDS, OWN_NETWORK_RULES, OwnNetwork
from headstart.texts import did_you_mean, reason_of
from headstart.types import Recipe

#: Prefix of ``Recipe.backbone``.
PREFIX = "onnx:"

SUFFIX = ".onnx"

#: Keys of a description with their defaults; None is found out from the model.
DEFAULTS: Mapping[str, Any] = {
    "input": None,
    "size": None,
    "layout": None,
    "channels": "RGB",
    "scale": 1.0,
    "mean": [0.0, 0.0, 0.0],
    "std": [1.0, 1.0, 1.0],
    "output": None,
    "output_kind": None,
    "map_layout": None,
}

#: Size limit of a protobuf message.
MAX_MODEL_BYTES = 2**31 - 1

#: Longer descriptions are none.
MAX_DESCRIPTION_BYTES = 2**16

EXAMPLE = """\
size = 224
scale = "1/255"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]"""

ENGINES = {
    "openvino": "headstart.backbones.own_networks.onnx_engines:OpenVinoOnnxBackbone.from_recipe",
    "onnxruntime": "headstart.backbones.own_networks.onnx_engines:OnnxRuntimeBackbone.from_recipe",
}


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """An ONNX model that was tried, with its complete description."""

    path: Path
    sha256: str  # digest of the file
    network: OwnNetwork
    output: str  # name of the output, or of a value inside
    size_px: int  # height and width of the input

    def spec(self) -> BackboneSpec:
        """Return the backbone."""
        name = f"{PREFIX}{self.path.stem}"
        return make_spec(name, self.sha256, self.network, self.output, self.size_px, self.path)


def is_own_network(name: str) -> bool:
    """Return whether the name of a backbone is that of an ONNX file."""
    return name.endswith(SUFFIX)


def spec_of_file(path: str | Path) -> BackboneSpec:
    """Return the backbone of an ONNX file with a description beside it; raises as :func:`open_model`."""
    return open_model(Path(path)).spec()


def spec_of_recipe(recipe: Recipe) -> BackboneSpec:
    """Return the backbone of a recipe with an own network, whose file is given as weights."""
    if recipe.own_network is None:
        raise HeadstartError(f"The recipe of {recipe.backbone} does not describe its network.")
    return make_spec(recipe.backbone, recipe.weights_sha256, recipe.own_network, recipe.layer, recipe.input_size_px)


def make_spec(
    name: str, sha256: str, network: OwnNetwork, output: str, size_px: int, path: Path | None = None
) -> BackboneSpec:
    """Return a backbone; without a ``path`` the file is given when weights are loaded."""
    side, _, channels = network.map_shape
    load = functools.partial(load_model, name=name, sha256=sha256, network=network, output=output, size_px=size_px)
    return BackboneSpec(
        name=name,
        layers={output: LayerSpec(channels, stride=1, offset=side - size_px)},  # the input has one size
        pooled_layers=(),
        default_layer=output,
        default_input_size_px=size_px,
        preprocessing=str(network),
        weights={"custom": sha256},
        load_weights=functools.partial(load, path),
        engines=ENGINES,
        own_network=network,
    )


def load_model(
    path: Path | None,
    weights: str | Path = "custom",
    *,
    name: str,
    sha256: str,
    network: OwnNetwork,
    output: str,
    size_px: int,
    custom: bool = False,  # every file is the user's own
) -> Weights:
    """Return the model of a backbone: the file at ``path``, or the one that is given as ``weights``.

    Raises WeightsError if no file is given, or it is not the file of the backbone.
    """
    wanted = f"{name.removeprefix(PREFIX)}{SUFFIX} (SHA-256 {sha256})"
    file = path if str(weights) == "custom" else Path(weights)
    if file is None:
        raise WeightsError(
            f"The network of these features is not given: {wanted}.", hint="Name it with `weights=PATH`."
        )
    data = read_model(file)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise WeightsError(
            f"{file} is not the network of these features. Expected: {wanted}. Received: SHA-256 {found}."
        )
    if file != path:  # that one was tried when its description was read
        settings = {**asdict(network), "output": output, "size": size_px}
        tried = _tried(file, found, json.dumps(settings, sort_keys=True))
        if tried.network != network:
            raise WeightsError(f"{file} does not give the features of the recipe: {tried.network} ≠ {network}.")
    return Weights("custom", {}, sha256, str(file), model=data)


def open_model(path: Path) -> OnnxModel:
    """Return a model with its description, found beside it and completed from the model itself.

    Raises
    ------
    HeadstartError
        If a file is missing, the description is invalid, or the model is refused (:func:`try_model`).
    """
    sha256 = hashlib.sha256(read_model(path)).hexdigest()
    return _tried(path, sha256, json.dumps(read_description(path.with_suffix(".toml")), sort_keys=True))


@functools.lru_cache(maxsize=8)
def _tried(path: Path, sha256: str, settings: str) -> OnnxModel:
    """Try a model once per process, and return it."""
    report = try_model(path, sha256, json.loads(settings))
    network = OwnNetwork.from_dict(report["network"])
    return OnnxModel(path, sha256, network, report["output"], report["size"])


def read_model(path: Path) -> bytes:
    """Return the bytes of an ONNX file; raise WeightsError if it cannot be read."""
    try:
        if not path.is_file():
            raise WeightsError(f"There is no ONNX model at {path}.")
        if path.stat().st_size > MAX_MODEL_BYTES:
            raise WeightsError(
                f"{path} has {path.stat().st_size:,} bytes. Expected: at most {MAX_MODEL_BYTES:,}, as a protobuf message has."
            )
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {reason_of(error)}") from error


def read_description(path: Path) -> dict[str, Any]:
    """Return the settings of a description, checked, with defaults; raise HeadstartError if it is missing or invalid."""
    if not path.is_file():
        raise HeadstartError(
            f"An own network needs a description: there is no {path}. Write what the network was trained with, e.g.\n\n"
            f"{EXAMPLE}\n\nPixels of 0–255 become (pixel · scale − mean) / std."
        )
    try:
        if path.stat().st_size > MAX_DESCRIPTION_BYTES:
            raise ValueError(f"it is longer than {MAX_DESCRIPTION_BYTES:,} bytes")
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise HeadstartError(f"{path} cannot be read as TOML: {error}") from error
    unknown = sorted(set(values) - set(DEFAULTS))
    if unknown:
        raise HeadstartError(
            f"{path} has the unknown key {unknown[0]!r}. Expected some of: {', '.join(DEFAULTS)}."
            f"{did_you_mean(unknown[:1], tuple(DEFAULTS))}"
        )
    return {name: checked_setting(path, name, values[name]) for name in values} | {
        name: value for name, value in DEFAULTS.items() if name not in values
    }


def checked_setting(path: Path, name: str, value: Any) -> Any:
    """Return a value of a description; raise HeadstartError if it is invalid."""
    if name == "scale":
        value = as_number(value)
    if name in {"mean", "std"} and not isinstance(value, list):
        value = [value] * 3
    if name == "size":
        valid = type(value) is int and 1 <= value <= 4096
    elif name == "output":
        valid = isinstance(value, str) and value != ""
    else:
        valid = OWN_NETWORK_RULES[name](value)
    if not valid:
        raise HeadstartError(f"{path}: {name} must be {EXPECTED[name]}. Received: {value!r}.")
    return value


#: What each key of a description may be, for messages.
EXPECTED = {
    "input": "the name of an input of the model",
    "size": "the height and width in pixels, 1 to 4096",
    "layout": "NCHW or NHWC",
    "map_layout": "NCHW or NHWC",
    "channels": "RGB or BGR",
    "scale": 'a number other than 0, or a fraction such as "1/255"',
    "mean": "one number or three",
    "std": "one number or three, none of them 0",
    "output": "the name of an output, or of a value inside of the model",
    "output_kind": f"one of {', '.join(OUTPUT_KINDS)}",
}


def as_number(value: Any) -> Any:
    """Return the number of a fraction such as ``1/255``; other values as they are."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*", value) if isinstance(value, str) else None
    return float(found[1]) / float(found[2]) if found and float(found[2]) else value
