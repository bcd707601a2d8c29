"""What the parameters of heads may be; importing it costs nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from headstart.errors import ParameterError
from headstart.texts import did_you_mean

#: Activations of hidden layers, as Keras names them.
ACTIVATIONS = ("relu", "gelu", "silu", "elu", "selu", "tanh")

#: What becomes of a learning rate.
SCHEDULES = ("constant", "linear", "cosine")

#: Distances between rows of features, as scikit-learn names them.
METRICS = ("cosine", "euclidean")


@dataclass(frozen=True, slots=True)
class Kind:
    """What values a parameter takes: in words for a person, and as a test."""

    words: str
    accepts: Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a head.

    Attributes
    ----------
    default : value
        What it is unless it is set.
    kind : Kind
        What it may be set to.
    help : str
        What it does, in one line.
    """

    default: Any
    kind: Kind
    help: str


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: Any, least: int = 1) -> bool:
    """Return whether a value is a whole number, ``least`` or more."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def are_units(value: Any) -> bool:
    """Return whether a value lists the units of layers."""
    return isinstance(value, Sequence) and not isinstance(value, str) and all(is_count(unit) for unit in value)


COUNT = Kind("a whole number, 1 or more", is_count)
FOLDS = Kind("a whole number, 2 or more", lambda value: is_count(value, 2))
FOLDS_OR_NONE = Kind(
    "0, or a whole number, 2 or more", lambda value: is_count(value, 2) or (is_count(value, 0) and value == 0)
)
POSITIVE = Kind("a number above 0", lambda value: is_number(value) and value > 0)
NOT_NEGATIVE = Kind("a number, 0 or more", lambda value: is_number(value) and value >= 0)
RATE = Kind("a number from 0 to below 1", lambda value: is_number(value) and 0 <= value < 1)
SHARE = Kind("a number between 0 and 1", lambda value: is_number(value) and 0 < value < 1)
FRACTION = Kind("a number above 0, 1 at most", lambda value: is_number(value) and 0 < value <= 1)
METRIC = Kind(f"one of {', '.join(METRICS)}", lambda value: value in METRICS)
SWITCH = Kind("true or false", lambda value: isinstance(value, bool))
UNITS = Kind("whole numbers, 1 or more each; none for no hidden layer", are_units)
ACTIVATION = Kind(f"one of {', '.join(ACTIVATIONS)}", lambda value: value in ACTIVATIONS)
SCHEDULE = Kind(f"one of {', '.join(SCHEDULES)}", lambda value: value in SCHEDULES)
GAMMA = Kind("scale, auto, or a number above 0", lambda value: value in ("scale", "auto") or POSITIVE.accepts(value))
CLASS_WEIGHT = Kind(
    "nothing, balanced, or a weight for each class",
    lambda value: value is None or value == "balanced" or isinstance(value, Mapping),
)


def check_values(head_type: str, values: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> None:
    """Check the values of parameters.

    Raises
    ------
    ParameterError
        If the head has no such parameter, or it cannot have such a value.
    """
    unknown = sorted(set(values) - set(parameters))
    if unknown:
        raise ParameterError(
            f"A {head_type} head takes no {', '.join(unknown)}. It takes: {', '.join(parameters)}."
            f"{did_you_mean(unknown, parameters)}"
        )
    for name, value in values.items():
        if not parameters[name].kind.accepts(value):
            raise ParameterError(
                f"{name} of a {head_type} head cannot be {value!r}. Expected: {parameters[name].kind.words}."
            )
