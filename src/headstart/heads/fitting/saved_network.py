"""Networks of dense heads in files and in copies; loaded with nothing in them run."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import BundleError
from headstart.heads.fitting.dense_training import build_network

#: Keras classes that a dense head is made of.
KERAS_CLASSES = frozenset(
    {"Sequential", "InputLayer", "Dense", "Dropout", "DTypePolicy", "GlorotUniform", "Zeros", "L2"}
)


class SavedNetwork:
    """Part of a head with a network, ``network_``: its file, and copies of the head.

    A copy, in memory or in a file, has the weights alone, ``weights_``: kernel and bias of each layer. They predict without
    Keras, which makes ``network_`` of them when it is asked for.
    """

    views: int
    n_features_in_: int

    def load_network(self, path: Path) -> Any:
        """Check the network in a file, and take its weights where an older version saved none in the head.

        Raises BundleError if it is damaged, or not this head's.
        """
        n_features, units = self.n_features_in_ // self.views, self._shape()["units"]
        check_network(path, n_features, units)
        if "weights_" in vars(self):
            check_weights(path, self.weights_, n_features, units)
            return self
        network = self._network(self.n_features_in_, seed=0)
        try:
            network.load_weights(path)
        except Exception as error:  # Keras raises many kinds for a damaged file
            raise BundleError(f"{path} cannot be loaded: {error}") from error
        self.network_ = network
        return self

    def layers(self) -> list[tuple[str, NDArray[np.float32], NDArray[np.float32]]]:
        """Return activation, kernel and bias of each layer; dropout does nothing in prediction."""
        shape = self._shape()
        weights = self.network_.get_weights() if "network_" in vars(self) else self.weights_
        names = [shape["activation"]] * (len(shape["units"]) - 1) + [shape.get("last", "softmax")]
        return list(zip(names, weights[::2], weights[1::2], strict=True))

    def __getattr__(self, name: str) -> Any:
        """Make the network of a copy."""
        if name != "network_" or "weights_" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.network_ = self._network(self.n_features_in_, seed=0)
        self.network_.set_weights(self.weights_)
        return self.network_

    def _shape(self) -> dict[str, Any]:
        """Return the arguments of :func:`build_network` that describe the layers."""
        raise NotImplementedError

    def _network(self, n_features: int, seed: int) -> Any:
        return build_network(n_features // self.views, **self._shape(), seed=seed)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())  # type: ignore[call-overload]
        network = state.pop("network_", None)
        if network is not None:
            state["weights_"] = network.get_weights()
        return state


def check_network(path: Path, n_features: int, units: Sequence[int]) -> None:
    """Raise BundleError where a file holds anything but plain layers of these units, or is damaged.

    The file is a whole Keras model that others may load; here its description is compared, and never built. The members
    of its archive have been checked (bundles/trusted_types.py).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            weights_bytes = archive.getinfo("model.weights.h5").file_size
        check_config(path, config, units)
    except BundleError:
        raise
    except Exception as error:  # zipfile, JSON and a foreign description: anything may be wrong
        raise BundleError(f"{path} cannot be loaded: {error}") from error
    n_weights = sum((before + 1) * after for before, after in pairwise((n_features, *units)))
    if 4 * n_weights > weights_bytes:
        raise BundleError(f"{path} holds {weights_bytes:,} bytes of weights, too few for {n_weights:,} of them.")


def check_config(path: Path, config: dict[str, Any], units: Sequence[int]) -> None:
    """Raise BundleError where the description of a network names other layers than a dense head of these units has."""
    unknown = {name for name in class_names_in(config) if name not in KERAS_CLASSES}
    if unknown:
        raise BundleError(
            f"{path} holds layers that no dense head has, and is not loaded: {', '.join(sorted(unknown))}."
        )
    layers = config["config"]["layers"]
    found = [layer["config"]["units"] for layer in layers if layer["class_name"] == "Dense"]
    if found != list(units):
        raise BundleError(f"{path} holds dense layers of {found} units. Expected: {list(units)}.")


def class_names_in(config: Any) -> set[str]:
    """Return every class that a Keras configuration names; one outside of ``keras`` is named with its module."""
    if isinstance(config, list):
        return set().union(*(class_names_in(item) for item in config))
    if not isinstance(config, dict):
        return set()
    found = set().union(*(class_names_in(item) for item in config.values()))
    if "class_name" in config:
        module = str(config.get("module") or "")
        plain = module.split(".", maxsplit=1)[0] == "keras" and not config.get("registered_name")
        found.add(str(config["class_name"]) if plain else f"{module}.{config['class_name']}")
    return found


def check_weights(path: Path, weights: Any, n_features: int, units: Sequence[int]) -> None:
    """Raise BundleError unless there are a finite kernel and a finite bias of each layer."""
    sizes = [n_features, *units]
    shapes = [shape for pair in pairwise(sizes) for shape in (pair, pair[1:])]
    right = isinstance(weights, list) and all(isinstance(one, np.ndarray) for one in weights)
    if not right or [one.shape for one in weights] != shapes or not all(np.isfinite(one).all() for one in weights):
        raise BundleError(f"{path.parent} holds weights that are none of a dense head of {list(units)} units.")
