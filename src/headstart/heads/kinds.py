"""What a type of head is, and the names of heads and options; importing it costs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headstart.heads.parameters import (
    ACTIVATION,
    CLASS_WEIGHT,
    COUNT,
    FOLDS_OR_NONE,
    NOT_NEGATIVE,
    POSITIVE,
    RATE,
    SCHEDULE,
    SHARE,
    SWITCH,
    UNITS,
    Parameter,
)

#: Poolings of the stored layer.
POOLINGS = ("flatten", "avg", "max", "gem", "crops")

#: Averages that ``crops`` puts side by side: of the whole map and of its four corners.
N_CROPS = 5

#: Exponent of ``gem``; 1 would be ``avg``, infinity ``max``. The fixed value of Radenović, Tolias & Chum, "Fine-tuning CNN
#: image retrieval with no human annotation", PAMI 2018.
GEM_POWER = 3.0

#: Scalings of a row of features.
SCALINGS = ("sqrt-l2", "l2", "standard", "none")


def count_views(features: Sequence[str]) -> int:
    """Return of how many views of the same image a row of features is made, each in as many columns, side by side."""
    return N_CROPS if tuple(features) == ("crops",) else 1


@dataclass(frozen=True, slots=True)
class HeadType:
    """A kind of head.

    Attributes
    ----------
    features : tuple of str
        What it is fitted on unless told otherwise.
    scaling : str
        How that is scaled.
    params : mapping of str to Parameter
        The parameters that may be set: default, values, help.
    grid : mapping of str to sequence
        The values of parameters that a search tries, every combination of them, the defaults among them.
    """

    features: tuple[str, ...]
    scaling: str
    params: Mapping[str, Parameter]
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)


WEIGHTED = Parameter(None, CLASS_WEIGHT, "balanced gives rare classes their weight.")


def dense_params(*, epochs: int, learning_rate: float, schedule: str) -> dict[str, Parameter]:
    """Return the parameters of a dense head with these defaults."""
    return {
        "hidden": Parameter((256,), UNITS, "Units of the hidden layers."),
        "activation": Parameter("relu", ACTIVATION, "Of the hidden layers."),
        "dropout": Parameter(0.0, RATE, "Share of hidden units left out in each step."),
        "epochs": Parameter(epochs, COUNT, "Passes over the data."),
        "batch_size": Parameter(32, COUNT, "Images per step."),
        "learning_rate": Parameter(learning_rate, POSITIVE, "Of Adam."),
        "schedule": Parameter(schedule, SCHEDULE, "Whether the learning rate falls to 0, and how."),
        "l2": Parameter(0.0, NOT_NEGATIVE, "L2 penalty on the kernels."),
        "early_stopping": Parameter(False, SWITCH, "Stop when held-out images are predicted best."),
        "validation_fraction": Parameter(0.1, SHARE, "Share of the images held out for early stopping."),
        "patience": Parameter(5, COUNT, "Epochs to wait for a better one before stopping early."),
        "cv": Parameter(0, FOLDS_OR_NONE, "Folds of a temperature for the probabilities, each a fit more; 0 for none."),
        "views": Parameter(1, COUNT, "Parts of a row that show the same image, as wide each; 5 on crops unless set."),
        "class_weight": WEIGHTED,
    }


#: The dense head as it predicts best (docs/adr/0005-dense-head.md).
DENSE = HeadType(
    ("crops",),
    "l2",
    dense_params(epochs=40, learning_rate=0.003, schedule="linear"),
    {"learning_rate": (0.001, 0.003, 0.01), "epochs": (20, 40)},
)

#: The dense head as the Keras tutorials train it, layer by layer and step by step: on raw maps.
TUTORIAL = HeadType(
    ("flatten",),
    "none",
    dense_params(epochs=10, learning_rate=0.001, schedule="constant"),
    {"dropout": (0.0, 0.5), "learning_rate": (0.0003, 0.001), "epochs": (10, 20)},
)
