"""The description of an ONNX model of the user's own, as it stands in a recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

#: What the output of an own network is: one vector per image; a map; or tokens, of which the first is taken, or those of the
#: patches as a map.
OUTPUT_KINDS = ("vector", "map", "class-token", "patch-tokens")


@dataclass(frozen=True, slots=True)
class OwnNetwork:
    """How images are given to an ONNX model of the user's own, and what its output is.

    A pixel of 0–255 becomes ``(pixel · scale − mean) / std``, with ``mean`` and ``std`` in the order of ``channels``.
    """

    input: str  # name of the model's input
    layout: str  # ``NCHW`` or ``NHWC``, of the input
    channels: str  # ``RGB`` or ``BGR``
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    output_kind: str  # one of :data:`OUTPUT_KINDS`
    map_layout: str  # ``NCHW`` or ``NHWC``, of a map
    map_shape: tuple[int, int, int]  # height, width and channels of the stored map; a vector is a map of 1 × 1

    def __str__(self) -> str:
        return (
            f"{self.channels} {self.layout}, scale {self.scale:g}, mean {self.mean}, std {self.std}, {self.output_kind}"
        )

    @classmethod
    def from_dict(cls, values: Any) -> OwnNetwork:
        """Return the inverse of ``asdict``; raise ValueError if a field is missing, unknown or invalid."""
        names = {f.name for f in fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            raise ValueError(f"own_network needs exactly the fields {sorted(names)}. Received: {values!r}")
        for name, valid in OWN_NETWORK_RULES.items():
            if not valid(values[name]):
                raise ValueError(f"own_network.{name} is invalid. Received: {values[name]!r}")
        tuples = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **tuples})


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list | tuple) and len(values) == 3 and all(is_finite(value) for value in values)


def is_finite(value: Any) -> bool:
    """Return whether a value is a finite int or float."""
    return type(value) in {int, float} and math.isfinite(value)


#: Valid values of the fields of :class:`OwnNetwork`.
OWN_NETWORK_RULES: Mapping[str, Callable[[Any], bool]] = {
    "input": lambda value: isinstance(value, str) and value != "",
    "layout": lambda value: value in {"NCHW", "NHWC"},
    "map_layout": lambda value: value in {"NCHW", "NHWC"},
    "channels": lambda value: value in {"RGB", "BGR"},
    "scale": lambda value: is_finite(value) and value != 0,
    "mean": _are_numbers,
    "std": lambda value: _are_numbers(value) and all(value),
    "output_kind": lambda value: value in OUTPUT_KINDS,
    "map_shape": lambda value: _are_numbers(value) and all(type(side) is int and side > 0 for side in value),
}
