"""The threshold on the probability of the positive class, chosen for a recall, a precision or the costs of mistakes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headstart.decisions.conformal import ROUNDING, least_images, quantile_from_above
from headstart.errors import DataError, ParameterError
from headstart.scores import Estimate, proportion
from headstart.texts import did_you_mean

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Counts = NDArray[np.intp]

#: What a goal may look like.
EXAMPLES = "recall=0.95, precision=0.9 or cost=fn:10,fp:1"


@dataclass(frozen=True, slots=True)
class Goal:
    """What a threshold is chosen for."""

    kind: Literal["recall", "precision", "cost"]
    text: str  # as it was given, e.g. ``recall=0.95``
    level: float = 0.0  # the recall or precision to reach, between 0 and 1
    fn: float = 0.0  # cost of a positive image that is not called positive, and of another image that is
    fp: float = 0.0


def parse_goal(text: str) -> Goal:
    """Return the goal that a text like ``recall=0.95`` or ``cost=fn:10,fp:1`` names; raise ParameterError if it is none."""
    kind, _, value = text.strip().partition("=")
    if kind in ("recall", "precision"):
        level = number(value)
        if not 0 < level < 1:
            raise ParameterError(f"The {kind} of a threshold lies between 0 and 1. Received: {text!r}.")
        return Goal("recall" if kind == "recall" else "precision", f"{kind}={level:g}", level)
    if kind == "cost":
        parts = dict(part.strip().partition(":")[::2] for part in value.split(","))
        costs = {name: number(cost) for name, cost in parts.items()}
        if set(costs) == {"fn", "fp"} and all(0 < cost < np.inf for cost in costs.values()):
            return Goal("cost", f"cost=fn:{costs['fn']:g},fp:{costs['fp']:g}", fn=costs["fn"], fp=costs["fp"])
        raise ParameterError(
            "Costs are those of a false negative and of a false positive, both above 0, e.g. cost=fn:10,fp:1. "
            f"Received: {text!r}."
        )
    raise ParameterError(
        f"A threshold is chosen for {EXAMPLES}. Received: {text!r}.{did_you_mean([kind], ('recall', 'precision', 'cost'))}"
    )


def number(text: str) -> float:
    """Return the number in a text; NaN if there is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def threshold_for(goal: Goal, is_positive: Mask, probabilities: Floats) -> float:
    """Return the threshold that meets a goal: an image is called positive where its probability is at least that.

    Every threshold is one of the ``probabilities``, those of the positive class by heads that were not fitted on the image,
    shape (n_images,). For a recall: the largest at which another positive image is found with this probability (the
    ⌈recall · (n + 1)⌉-th largest of n positive images, so that the recall of these images reaches it too). For a
    precision: the smallest at which ⌈precision · (n + 1)⌉ of n images called positive are so, which gives the most recall; a
    single image called so is not enough. For costs: the one with the lowest cost of all mistakes, the largest of equal ones.

    Raises DataError if no threshold meets the goal.
    """
    return CHOICES[goal.kind](goal, is_positive, probabilities)


def for_recall(goal: Goal, is_positive: Mask, probabilities: Floats) -> float:
    """Return the threshold for a recall."""
    found = quantile_from_above(probabilities[is_positive], goal.level)
    if found is None:
        raise DataError(
            f"A recall of {goal.level:g} needs at least {least_images(goal.level):,} positive training images. Received: "
            f"{is_positive.sum():,}. Expected: more images, or a lower recall."
        )
    return found


def for_precision(goal: Goal, is_positive: Mask, probabilities: Floats) -> float:
    """Return the threshold for a precision."""
    thresholds, right, wrong = counts_from_above(is_positive, probabilities)
    precision = right / (right + wrong + 1)
    enough = np.flatnonzero(precision >= goal.level * (1 - ROUNDING))
    if not len(enough):
        best = int(precision.argmax())
        raise DataError(
            f"No threshold reaches a precision of {goal.level:g} on enough images: the best is {right[best]:,.0f} of "
            f"{right[best] + wrong[best]:,.0f} called positive. Expected: a lower precision, or a better head."
        )
    return float(thresholds[enough[-1]])


def for_costs(goal: Goal, is_positive: Mask, probabilities: Floats) -> float:
    """Return the threshold with the lowest cost."""
    thresholds, right, wrong = counts_from_above(is_positive, probabilities)
    of_none = goal.fn * is_positive.sum()
    costs = goal.fn * (is_positive.sum() - right) + goal.fp * wrong
    if of_none <= costs.min():
        raise DataError(
            "With these costs no threshold is cheaper on the training images than calling none of them positive "
            f"({goal.text}). Expected: a higher cost of false negatives (fn), or a better head."
        )
    return float(thresholds[np.flatnonzero(costs <= costs.min() + ROUNDING * of_none)[0]])


def counts_from_above(is_positive: Mask, probabilities: Floats) -> tuple[Floats, Counts, Counts]:
    """Return all thresholds, the largest first, and the numbers of positive and of other images that reach each."""
    thresholds, place = np.unique(-probabilities, return_inverse=True)
    right, wrong = (np.cumsum(np.bincount(place, own, len(thresholds))) for own in (is_positive, ~is_positive))
    return -thresholds, right, wrong


CHOICES: Mapping[str, Callable[[Goal, Mask, Floats], float]] = {
    "recall": for_recall,
    "precision": for_precision,
    "cost": for_costs,
}


@dataclass(frozen=True, slots=True)
class Cutoff:
    """A threshold on the probability of a class.

    Attributes
    ----------
    positive : str
        Name of the class.
    threshold : float
        Least probability, from 0 to 1, at which an image is called positive.
    goal : str
        What it was chosen for, e.g. ``recall=0.95``.
    """

    positive: str
    threshold: float
    goal: str

    def decide(self, probabilities: Floats, positive: int) -> NDArray[np.intp]:
        """Return the class of each image: the positive one from the threshold on, else the most probable of the others."""
        others = probabilities.copy()
        others[:, positive] = -1
        return np.where(probabilities[:, positive] >= self.threshold, positive, others.argmax(axis=1))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"positive": self.positive, "threshold": self.threshold, "goal": self.goal}


@dataclass(frozen=True, slots=True)
class CutoffScore:
    """Rates at a threshold, with Wilson's 95 % intervals; NaN where the denominator is 0."""

    positive: str
    threshold: float
    goal: str
    recall: Estimate
    precision: Estimate
    specificity: Estimate
    called_per_1000: Estimate  # images called positive, of 1,000


def score_cutoff(cutoff: Cutoff, is_positive: Mask, probabilities: Floats) -> CutoffScore:
    """Return the rates at a threshold on some images; both arrays have shape (n_images,)."""
    called = probabilities >= cutoff.threshold
    share = proportion(int(called.sum()), len(called))
    return CutoffScore(
        cutoff.positive,
        cutoff.threshold,
        cutoff.goal,
        recall=proportion(int(called[is_positive].sum()), int(is_positive.sum())),
        precision=proportion(int(is_positive[called].sum()), int(called.sum())),
        specificity=proportion(int((~called[~is_positive]).sum()), int((~is_positive).sum())),
        called_per_1000=Estimate(1000 * share.value, 1000 * share.low, 1000 * share.high),
    )
