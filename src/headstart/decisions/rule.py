"""How a head decides: a threshold or costs, and sets of classes; saved with the head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.decisions.conformal import PredictionSets, SetScore, score_sets
from headstart.decisions.cost_matrix import MAX_COST, CostMatrix, CostScore, score_costs
from headstart.decisions.cutoffs import Cutoff, CutoffScore, score_cutoff
from headstart.texts import json_value

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Decision:
    """What is decided for an image.

    Attributes
    ----------
    class_name : str
        The class that the threshold or the costs decide for; without these the most probable one.
    classes : tuple of str, or None
        The classes that are in the set of the image, the most probable first; None of a head without sets.
    """

    class_name: str
    classes: tuple[str, ...] | None = None

    @property
    def unsure(self) -> bool:
        """Whether the set holds several classes, or none; False of a head without sets."""
        return self.classes is not None and len(self.classes) != 1


@dataclass(frozen=True, slots=True)
class DecisionRule:
    """How decisions follow from probabilities; ``cutoff`` and ``costs`` exclude each other."""

    cutoff: Cutoff | None = None
    costs: CostMatrix | None = None
    sets: PredictionSets | None = None

    def decide(self, probabilities: Floats, class_names: Sequence[str]) -> list[Decision]:
        """Return the decision for each image, given probabilities of shape (n_images, n_classes)."""
        chosen = self.chosen(probabilities, class_names).tolist()
        if self.sets is None:
            return [Decision(class_names[label]) for label in chosen]
        order, inside = np.argsort(-probabilities, axis=1, kind="stable"), self.sets.of(probabilities)
        return [
            Decision(class_names[label], tuple(class_names[place] for place in row[members[row]].tolist()))
            for label, row, members in zip(chosen, order, inside, strict=True)
        ]

    def chosen(self, probabilities: Floats, class_names: Sequence[str]) -> NDArray[np.intp]:
        """Return the class that is decided for, shape (n_images,)."""
        if self.cutoff:
            return self.cutoff.decide(probabilities, class_names.index(self.cutoff.positive))
        return self.costs.decide(probabilities) if self.costs else probabilities.argmax(axis=1)

    def score(self, y: NDArray[np.int64], probabilities: Floats, class_names: Sequence[str]) -> DecisionScore:
        """Return how the decisions do on images with the true classes ``y``, indices into ``class_names``."""
        cutoff = None
        if self.cutoff:
            label = class_names.index(self.cutoff.positive)
            cutoff = score_cutoff(self.cutoff, y == label, probabilities[:, label])
        return DecisionScore(
            len(y),
            cutoff,
            score_costs(self.costs, y, probabilities) if self.costs else None,
            score_sets(self.sets, y, probabilities, class_names) if self.sets else None,
        )

    def in_words(self) -> str:
        """Return sentences by which a program that has the probabilities decides as the head does."""
        parts = []
        if self.cutoff:
            name, threshold = self.cutoff.positive, self.cutoff.threshold
            parts.append(f"Decide for {name} where its probability is at least {threshold!r}.")
        if self.costs:
            parts.append("Decide for the lowest expected cost (decision in bundle.json).")
        if self.sets:
            parts.append("A class is in the set where its probability reaches its cutoff (decision in bundle.json).")
        return " ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        parts = {"cutoff": self.cutoff, "costs": self.costs, "sets": self.sets}
        return {name: part.to_dict() for name, part in parts.items() if part is not None}


@dataclass(frozen=True, slots=True)
class DecisionScore:
    """How decisions do on images that the head was not fitted on; what the head does not decide by is None."""

    n_samples: int
    cutoff: CutoffScore | None = None
    costs: CostScore | None = None
    sets: SetScore | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; NaN becomes None."""
        values: dict[str, Any] = json_value({name: part for name, part in asdict(self).items() if part is not None})
        return values


def rule_from(values: Any, class_names: Sequence[str]) -> DecisionRule:
    """Return the rule with these JSON values, every one checked; raise ValueError if one is not what it should be."""
    parts = checked(values, "decision", (), ("cutoff", "costs", "sets"))
    if not parts or ("cutoff" in parts and "costs" in parts):
        raise ValueError(
            f"a decision has a cutoff or costs, and perhaps sets. Received: {', '.join(parts) or 'nothing'}."
        )
    return DecisionRule(
        cutoff_from(parts["cutoff"], class_names) if "cutoff" in parts else None,
        costs_from(parts["costs"], len(class_names)) if "costs" in parts else None,
        sets_from(parts["sets"], len(class_names)) if "sets" in parts else None,
    )


def cutoff_from(values: Any, class_names: Sequence[str]) -> Cutoff:
    """Return the threshold with these JSON values."""
    found = checked(values, "cutoff", ("positive", "threshold", "goal"))
    if found["positive"] not in class_names:
        raise ValueError(f"the positive class of the cutoff is none of the head's. Received: {found['positive']!r}.")
    if not is_between(found["threshold"], 0, 1) or not isinstance(found["goal"], str):
        raise ValueError(f"the threshold of the cutoff is a number from 0 to 1. Received: {found['threshold']!r}.")
    return Cutoff(found["positive"], float(found["threshold"]), found["goal"])


def costs_from(values: Any, n_classes: int) -> CostMatrix:
    """Return the costs with these JSON values."""
    rows = checked(values, "costs", ("costs",))["costs"]
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == n_classes for row in rows):
        raise ValueError(f"costs are {n_classes} rows of {n_classes} numbers.")
    if len(rows) != n_classes or not all(is_between(cost, 0, MAX_COST) for row in rows for cost in row):
        raise ValueError(f"costs are {n_classes} rows of {n_classes} finite numbers from 0.")
    return CostMatrix(tuple(tuple(map(float, row)) for row in rows))


def sets_from(values: Any, n_classes: int) -> PredictionSets:
    """Return the sets with these JSON values."""
    found = checked(values, "sets", ("coverage", "per_class", "cutoffs"))
    coverage, per_class, cutoffs = found["coverage"], found["per_class"], found["cutoffs"]
    if not is_between(coverage, 0, 1) or coverage in (0, 1) or not isinstance(per_class, bool):
        raise ValueError(
            f"sets have a coverage between 0 and 1, per class or not. Received: {coverage!r}, {per_class!r}."
        )
    n_cutoffs = n_classes if per_class else 1
    if not isinstance(cutoffs, list) or len(cutoffs) != n_cutoffs or not all(is_between(one, 0, 1) for one in cutoffs):
        raise ValueError(f"the cutoffs of sets are {n_cutoffs} numbers from 0 to 1.")
    return PredictionSets(float(coverage), per_class, tuple(map(float, cutoffs)))


def checked(values: Any, what: str, required: Sequence[str], optional: Sequence[str] = ()) -> Mapping[str, Any]:
    """Return a mapping with these keys; raise ValueError if it is none."""
    if not isinstance(values, Mapping) or not set(required) <= set(values) <= {*required, *optional}:
        raise ValueError(f"{what} is a table of {', '.join((*required, *optional))}.")
    return values


def is_between(value: Any, low: float, high: float) -> bool:
    """Return whether a value is a number from ``low`` to ``high``; NaN and infinity are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
