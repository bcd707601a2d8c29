"""Targets: what a head predicts for an image: one class, as labelled or merged, one of ordered levels, or a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from headstart.cache.reader import FeatureCache
from headstart.errors import ParameterError
from headstart.evaluate.intervals import Influence, Units
from headstart.evaluate.random_crops import refuse_crops
from headstart.evaluate.target_types.class_target import SingleLabel
from headstart.evaluate.target_types.normal_target import Normal
from headstart.evaluate.target_types.number_target import Number
from headstart.evaluate.target_types.order_target import Order
from headstart.heads.catalogue import head_kind, heads_for
from headstart.scores import Criterion, Estimate, Metric, metric_named
from headstart.texts import did_you_mean
from headstart.types import NORMAL, NUMBER, ORDER, SINGLE_LABEL


class Target(Protocol):
    """What a head predicts for an image, what folds keep in proportion, and how predictions are scored.

    An output is what a head predicts for a row: a class index, a number. Predictions have a column for each output name.
    """

    #: Key in ``TARGETS``; saved with a head.
    name: str
    #: Only heads of these tasks can predict it (``HeadType.task``); those of the first are its own.
    tasks: Sequence[str]
    #: Name of the baseline that knows nothing of the images (:meth:`know_nothing`).
    baseline: str
    #: Classes of labels that a fit needs at least.
    n_classes_needed: int
    #: Metrics in display order, the first is that of choices by default; and the names of those that choices may go by.
    all_metrics: Sequence[Metric]
    choices: Sequence[str]
    #: Description of the intervals of a comparison.
    interval_method: str

    def outputs(
        self, labels: NDArray[np.int64], class_names: Sequence[str], targets: NDArray[np.float64] | None
    ) -> tuple[NDArray[np.int64], tuple[str, ...], NDArray[Any]]:
        """Return the class of each row for splits, −1 where nothing is to be predicted; names of outputs; and the outputs.

        ``labels`` are indices into ``class_names``, −1 where unlabelled, and ``targets`` numbers, NaN for none, shape
        (n_rows,); None if there are none. The outputs are the classes themselves, or have another type.
        """
        ...

    def weights(self, y: NDArray[Any], weights: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        """Return the weights of rows in a fit, given those of the cache; 0 for rows that are only scored."""
        ...

    def for_head(self, names: Sequence[str]) -> Target:
        """Return the target as a saved head predicts it, given the names of its outputs."""
        ...

    def stratify(self, y: NDArray[Any]) -> NDArray[np.int64]:
        """Return the stratum of each row by its output, shape (n_rows,): splits and folds keep their shares.

        Rows without an output are in no fold. Raises DataError if nothing can be learned from ``y``.
        """
        ...

    def positive_index(self, positive: str | None, class_names: Sequence[str]) -> int | None:
        """Return the index of the positive class, None for none; raise ParameterError if there is no such class."""
        ...

    def metrics(
        self,
        y_true: NDArray[Any],
        outputs: NDArray[np.floating[Any]],
        names: Sequence[str],
        positive: int | None = None,
        units: NDArray[np.integer[Any]] | None = None,
    ) -> Any:
        """Return the score of predictions; parameters are those of :func:`headstart.evaluate.targets.score`."""
        ...

    def influences(
        self, y_true: NDArray[Any], outputs: NDArray[np.floating[Any]], positive: int | None = None
    ) -> dict[str, Influence]:
        """Return all metrics by name, with the influence of each row."""
        ...

    def estimates(
        self,
        y_true: NDArray[Any],
        outputs: NDArray[np.floating[Any]],
        units: NDArray[np.integer[Any]] | None = None,
        *,
        positive: int | None = None,
        variance_factor: float = 1.0,
    ) -> dict[str, Estimate]:
        """Return all metrics by name, with their intervals."""
        ...

    def finish(
        self, name: str, value: float, variance: float, y_true: NDArray[Any], outputs: Any, units: Units, factor: float
    ) -> Estimate:
        """Return a metric with its interval, from its variance times a factor."""
        ...

    def unit_of(self, name: str, y_true: NDArray[Any]) -> float:
        """Return the size of a large difference between two heads in a metric."""
        ...

    def know_nothing(self, y: NDArray[Any], weights: NDArray[np.float64] | None, n_outputs: int) -> NDArray[np.float64]:
        """Return the prediction of the baseline for every image, shape (n_outputs,), given outputs to fit on."""
        ...


#: Name → target.
TARGETS: dict[str, Target] = {SINGLE_LABEL: SingleLabel(), NUMBER: Number(), ORDER: Order(), NORMAL: Normal()}


def target_named(name: str | Target, head_types: Sequence[str] = ()) -> Target:
    """Return the target of a name, or the target itself.

    Raises ParameterError if there is none, or a head of these types cannot predict it.
    """
    if isinstance(name, str) and name not in TARGETS:
        raise ParameterError(
            f"There is no target {name!r}. Expected one of: {', '.join(TARGETS)}.{did_you_mean([name], TARGETS)}"
        )
    target = TARGETS[name] if isinstance(name, str) else name
    others = [head_type for head_type in head_types if head_kind(head_type).task not in target.tasks]
    if others:
        able = [head_type for task in target.tasks for head_type in heads_for(task)]
        raise ParameterError(
            f"The target {target.name} is a {target.tasks[0]} task, which these heads cannot do: {', '.join(others)}. "
            f"Expected one of: {', '.join(able)}."
        )
    return target


def criterion_for(target: Target, metric: str | None, positive: str | None, class_names: Sequence[str]) -> Criterion:
    """Return the criterion of choices, by default the first metric of a target.

    Raises ParameterError if the target has no such metric or positive class.
    """
    chosen = metric_named(metric or target.choices[0], target.choices)
    return Criterion(chosen.name, target.positive_index(positive, class_names), target)


def target_of(criterion: Criterion) -> Target:
    """Return the target of a criterion; one class per image unless it names another."""
    return TARGETS[SINGLE_LABEL] if criterion.target is None else cast("Target", criterion.target)


def value_of(criterion: Criterion, y_true: NDArray[Any], outputs: NDArray[np.floating[Any]]) -> float:
    """Return the metric of a criterion for some predictions."""
    return target_of(criterion).influences(y_true, outputs, criterion.positive)[criterion.metric].value


def encoded(cache: FeatureCache, target: Target) -> FeatureCache:
    """Return a cache whose ``labels`` and ``class_names`` are those of a target; everything else is as in the file.

    Where outputs are no classes, ``outputs`` holds them. Raises DataError if the cache holds random crops.
    """
    refuse_crops(cache)
    labels, names, outputs = target.outputs(cache.labels, cache.class_names, cache.targets)
    if names == cache.class_names and outputs is labels and np.array_equal(labels, cache.labels):
        return cache
    weights = target.weights(outputs, cache.weights)
    return cast("FeatureCache", _Encoded(cache, labels, names, None if outputs is labels else outputs, weights))


class _Encoded:
    def __init__(
        self,
        cache: FeatureCache,
        labels: NDArray[np.int64],
        class_names: tuple[str, ...],
        outputs: NDArray[Any] | None,
        weights: NDArray[np.float64] | None,
    ) -> None:
        self._cache, self.labels, self.class_names, self.outputs = cache, labels, class_names, outputs
        self.weights = weights

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)
