"""Predictions of the training images by heads of the same setting that were not fitted on them, and decisions by them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.decisions.decision_options import DecisionOptions, choose_rule
from headstart.decisions.rule import DecisionRule, DecisionScore
from headstart.errors import DataError, ParameterError
from headstart.evaluate.folds import Folds, make_folds
from headstart.evaluate.splits import Sides
from headstart.evaluate.targets import Target
from headstart.heads.catalogue import head_kind
from headstart.selection.cross_validation import CrossValidation, LocalPool
from headstart.selection.search import MAX_VALUES, N_SPLITS, make_tables
from headstart.types import HeadSpec


@dataclass(frozen=True, slots=True)
class ChosenRule:
    """How a head decides, and what that was chosen on."""

    rule: DecisionRule
    folds: str = ""  # description of the folds; empty if the rule does not depend on predictions
    notes: tuple[str, ...] = ()  # sentences on deviations of the folds
    score: DecisionScore | None = None  # on the predictions it was chosen on


def check_deciding(deciding: DecisionOptions | None, spec: HeadSpec) -> None:
    """Raise ParameterError where decisions are asked for, and a head has no probabilities of classes."""
    if deciding is not None and head_kind(spec.type).task in ("regression", "anomaly"):
        raise ParameterError(
            f"A {spec.type} head is not fitted on images of several classes. Thresholds, costs and sets need that."
        )


def choose_by_folds(
    sides: Sides, spec: HeadSpec, target: Target, options: DecisionOptions, *, streamed: bool
) -> ChosenRule:
    """Return the rule that does what is asked on the training images; no other image is read.

    It is chosen on predictions of folds, each by a head of this setting that was fitted on the other folds, weights and
    crops included; the predictions themselves count the same, as in all scores. Raises DataError if it cannot be chosen.
    """
    names, positive = sides.class_names, target.positive_index(options.positive, sides.class_names)
    if not options.needs_predictions:
        nothing = np.empty((0, len(names)))
        return ChosenRule(choose_rule(options, names, positive, np.empty(0, np.int64), nothing))
    if streamed:
        raise DataError(
            "The features exceed the memory, and a threshold or a coverage is chosen on folds in memory only.",
            hint="Raise `max_memory`, choose fewer `features`, or fit without `at` and `coverage`.",
        )
    y, folds = sides.y_train, folds_of(sides, spec, target)
    probabilities = predictions(sides, spec, folds)
    rule = choose_rule(options, names, positive, y, probabilities)
    return ChosenRule(rule, folds.description, folds.notes, rule.score(y, probabilities, names))


def folds_of(sides: Sides, spec: HeadSpec, target: Target) -> Folds:
    """Return folds of the training images that keep copies and groups together, and the classes in proportion."""
    rows, train = sides.split.train.tolist(), sides.train
    sha256, groups = train.sha256, train.groups
    return make_folds(
        sides.y_train,
        n_splits=N_SPLITS,
        sha256=[sha256[row] for row in rows],
        groups=[groups[row] for row in rows],
        strata=target.stratify(sides.y_train),
        random_state=spec.random_state,
        class_names=sides.class_names,
    )


def predictions(sides: Sides, spec: HeadSpec, folds: Folds) -> NDArray[np.float64]:
    """Return the probabilities of each training image by the head that was not fitted on its fold.

    Raises DataError if they are not finite.
    """
    tables = make_tables(sides.train, [spec], sides.split.train, sides.weights, sides.crops)
    n_values = max(table.raw.size for table in tables.values())
    validation = CrossValidation(
        specs=[[spec]],
        tables=lambda _: tables,
        labels=sides.y_train,
        folds=folds,
        inner=lambda _: folds,
        n_classes=len(sides.class_names),
        pool=LocalPool(None if n_values <= MAX_VALUES else 1),  # folds at a time hold a copy each
    )
    found = validation.run().probabilities
    if not np.isfinite(found).all():
        raise DataError(
            f"A {spec.type} head gives no probabilities in some fold (NaN). Try other features or parameters."
        )
    return np.clip(found, 0, 1)
