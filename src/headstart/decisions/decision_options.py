"""What a user asks of the decisions of a head, and the rule that meets it on predictions of images left out of the fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.decisions.conformal import choose_sets
from headstart.decisions.cost_matrix import read_cost_matrix
from headstart.decisions.cutoffs import Cutoff, Goal, parse_goal, threshold_for
from headstart.decisions.rule import DecisionRule
from headstart.errors import ParameterError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DecisionOptions:
    """What decisions are to be like; made by :func:`decision_options`, which checks it."""

    positive: str | None = None
    goal: Goal | None = None  # of the threshold on the probability of the positive class
    cost_matrix: str | Path | None = None  # file with the costs of every mistake
    coverage: float | None = None  # of the sets
    per_class: bool = False

    @property
    def needs_predictions(self) -> bool:
        """Whether the rule depends on predictions of images left out of a fit."""
        return self.goal is not None or self.coverage is not None


def decision_options(
    at: str | None,
    positive: str | None,
    cost_matrix: str | Path | None,
    coverage: float | None,
    *,
    per_class: bool = False,
) -> DecisionOptions | None:
    """Return what is asked of decisions, None for nothing; raise ParameterError where it does not fit together.

    The parameters are those of :func:`headstart.fit.fit_head`.
    """
    if at is not None and cost_matrix is not None:
        raise ParameterError("A threshold (`at`) and a matrix of costs (`cost_matrix`) both decide. Leave one out.")
    if at is not None and positive is None:
        raise ParameterError(f"A threshold for {at} is one for the positive class. Name it (`positive`).")
    if coverage is not None and not 0 < coverage < 1:
        raise ParameterError(f"A coverage lies between 0 and 1. Received: {coverage}.")
    if per_class and coverage is None:
        raise ParameterError("`coverage_per_class` goes with a `coverage`.")
    if at is None and cost_matrix is None and coverage is None:
        return None
    return DecisionOptions(positive, None if at is None else parse_goal(at), cost_matrix, coverage, per_class)


def check_costs(options: DecisionOptions | None, class_names: Sequence[str]) -> None:
    """Raise DataError if there is a cost matrix that cannot be read, or is not one of these classes."""
    if options is not None and options.cost_matrix is not None:
        read_cost_matrix(options.cost_matrix, class_names)


def choose_rule(
    options: DecisionOptions,
    class_names: Sequence[str],
    positive: int | None,
    y: NDArray[np.int64],
    probabilities: Floats,
) -> DecisionRule:
    """Return the rule that does what is asked.

    Parameters
    ----------
    positive : int or None
        The positive class, an index into ``class_names``.
    y : ndarray of shape (n_images,), int64
        True classes of the training images.
    probabilities : ndarray of shape (n_images, n_classes), float64
        Predictions of each image by a head that was not fitted on it; empty if the rule needs none.

    Raises
    ------
    DataError
        If no threshold meets the goal, there are too few images, or the cost matrix cannot be read.
    """
    cutoff = sets = None
    if options.goal is not None and positive is not None:
        threshold = threshold_for(options.goal, y == positive, probabilities[:, positive])
        cutoff = Cutoff(class_names[positive], threshold, options.goal.text)
    if options.coverage is not None:
        sets = choose_sets(y, probabilities, class_names, coverage=options.coverage, per_class=options.per_class)
    costs = None if options.cost_matrix is None else read_cost_matrix(options.cost_matrix, class_names)
    return DecisionRule(cutoff, costs, sets)
