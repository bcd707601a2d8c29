"""Targets: what a head predicts for an image, today one class, as labelled or merged; and the metrics of its predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

from headstart.cache.reader import FeatureCache
from headstart.errors import DataError, ParameterError
from headstart.evaluate.intervals import estimates, f1_interval, influences
from headstart.evaluate.random_crops import refuse_crops
from headstart.evaluate.splits import labelled
from headstart.heads.catalogue import head_kind
from headstart.scores import METRICS, Estimate, PositiveRates, Score, wilson
from headstart.texts import did_you_mean
from headstart.types import SINGLE_LABEL


def score(
    y_true: NDArray[np.integer[Any]],
    probabilities: NDArray[np.floating[Any]],
    class_names: Sequence[str],
    positive: int | None = None,
    units: NDArray[np.integer[Any]] | None = None,
) -> Score:
    """Return the metrics of predictions, the largest probability of each row, the first one if tied.

    ``y_true`` are true class indices, and ``probabilities`` have shape (n_samples, n_classes). Average precision and
    rates are those of the class ``positive``; by default the one-vs-rest mean over all classes, and no rates. Rows of one
    of the ``units`` are dependent; the intervals of the metrics account for it, those of single classes do not.

    Raises DataError if there is nothing to score, shapes do not match, or a probability is not finite.
    """
    n_classes = len(class_names)
    if not len(y_true) or probabilities.shape != (len(y_true), n_classes):
        raise DataError(
            f"Expected at least one label, and probabilities of shape (n, {n_classes}). "
            f"Received: {len(y_true)} labels, {probabilities.shape}."
        )
    found = {
        name: one
        for name, one in estimates(y_true, probabilities, units, positive=positive).items()
        if math.isfinite(one.value)
    }
    values = {name: one.value for name, one in found.items()}
    predicted = probabilities.argmax(axis=1)
    counts = metrics.confusion_matrix(y_true, predicted, labels=np.arange(n_classes))
    return Score(
        n_samples=len(y_true),
        accuracy=values["accuracy"],
        accuracy_interval=_bounds(found["accuracy"]),
        balanced_accuracy=values["balanced_accuracy"],
        f1_macro=values["f1_macro"],
        log_loss=values["log_loss"],
        per_class=[_class_score(name, counts, label) for label, name in enumerate(class_names)],
        confusion=counts.tolist(),
        class_names=tuple(class_names),
        roc_auc_ovr=values.get("roc_auc_ovr"),
        ece=values["ece"],
        average_precision=values.get("average_precision"),
        intervals={name: _bounds(one) for name, one in found.items() if math.isfinite(one.high)},
        positive=None if positive is None else positive_rates(counts, positive, class_names[positive]),
    )


def _class_score(name: str, counts: NDArray[np.int64], label: int) -> dict[str, Any]:
    """Return the rates of a class from the confusion matrix, with their intervals."""
    right, support, called = int(counts[label, label]), int(counts[label].sum()), int(counts[:, label].sum())
    others, either = int(counts.sum()) - support, support + called - right
    kept = others - (called - right)
    parts = {"precision": (right, called), "recall": (right, support), "specificity": (kept, others)}
    shares = {key: n / of if of else 0.0 for key, (n, of) in parts.items()}
    intervals = {f"{key}_interval": wilson(shares[key], of) for key, (_, of) in parts.items()}
    f1 = 2 * right / (support + called) if support + called else 0.0
    return {
        "class": name,
        **shares,
        "f1": f1,
        "support": support,
        **intervals,
        "f1_interval": f1_interval(right, either),
    }


def _bounds(one: Estimate) -> tuple[float, float]:
    return one.low, one.high


def metric_values(
    y_true: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]], positive: int | None = None
) -> dict[str, float]:
    """Return all metrics of ``scores.METRICS`` by name; see :func:`headstart.evaluate.intervals.influences`."""
    found = influences(y_true, probabilities, positive)
    return {metric.name: found[metric.name].value for metric in METRICS}


def positive_rates(counts: NDArray[np.int64], label: int, class_name: str) -> PositiveRates:
    """Return the one-vs-rest rates of a class from the confusion matrix (rows are true classes), with Wilson intervals."""
    right, support, called = int(counts[label, label]), int(counts[label].sum()), int(counts[:, label].sum())
    total = int(counts.sum())
    kept = total - support - called + right
    return PositiveRates(
        class_name,
        sensitivity=_proportion(right, support),
        specificity=_proportion(kept, total - support),
        precision=_proportion(right, called),
        npv=_proportion(kept, total - called),
    )


def _proportion(n: int, of: int) -> Estimate:
    return Estimate(n / of, *wilson(n / of, of)) if of else Estimate(math.nan, math.nan, math.nan)


class Target(Protocol):
    """What a head predicts for an image: how labels become outputs, what folds keep in proportion, how outputs are scored."""

    #: Key in ``TARGETS``; saved with a head.
    name: str
    #: Only heads of this task can predict it (``HeadType.task``).
    task: str

    def encode(
        self, labels: NDArray[np.int64], class_names: Sequence[str]
    ) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Return the output to predict for each row, −1 for none, and the names of the outputs.

        ``labels`` are indices into ``class_names``, −1 where unlabelled, shape (n_rows,).
        """
        ...

    def stratify(self, y: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the stratum of each row, shape (n_rows,): splits and folds keep their shares.

        Rows that :meth:`encode` gave no output are in no fold. Raises DataError if nothing can be learned from ``y``.
        """
        ...

    def metrics(
        self,
        y_true: NDArray[np.integer[Any]],
        probabilities: NDArray[np.floating[Any]],
        names: Sequence[str],
        positive: int | None = None,
        units: NDArray[np.integer[Any]] | None = None,
    ) -> Score:
        """Return the score of predictions; parameters are those of :func:`headstart.evaluate.targets.score`."""
        ...


class SingleLabel:
    """One class per image: the label in the cache."""

    name = SINGLE_LABEL
    task = "classification"
    metrics = staticmethod(score)

    def encode(
        self, labels: NDArray[np.int64], class_names: Sequence[str]
    ) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Return the labels as they are."""
        return labels, tuple(class_names)

    def stratify(self, y: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the classes; raise DataError where fewer than two have a labelled image."""
        labelled(y)
        return y


#: Name → target.
TARGETS: dict[str, Target] = {target.name: target for target in (SingleLabel(),)}


def target_named(name: str, head_types: Sequence[str] = ()) -> Target:
    """Return the target of a name; raise ParameterError if there is none, or a head of these types cannot predict it."""
    if name not in TARGETS:
        raise ParameterError(
            f"There is no target {name!r}. Expected one of: {', '.join(TARGETS)}.{did_you_mean([name], TARGETS)}"
        )
    target = TARGETS[name]
    others = [head_type for head_type in head_types if head_kind(head_type).task != target.task]
    if others:
        raise ParameterError(
            f"The target {name} is a {target.task} task, which these heads cannot do: {', '.join(others)}."
        )
    return target


def encoded(cache: FeatureCache, target: Target) -> FeatureCache:
    """Return a cache whose ``labels`` and ``class_names`` are those of a target; everything else is as in the file.

    Raises DataError if it holds random crops.
    """
    refuse_crops(cache)
    labels, names = target.encode(cache.labels, cache.class_names)
    if names == cache.class_names and np.array_equal(labels, cache.labels):
        return cache
    return cast("FeatureCache", _Encoded(cache, labels, names))


class _Encoded:
    def __init__(self, cache: FeatureCache, labels: NDArray[np.int64], class_names: tuple[str, ...]) -> None:
        self._cache, self.labels, self.class_names = cache, labels, class_names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)


def encoded_names(found: Sequence[str], target: Target) -> Mapping[str, str]:
    """Return the name of the output of each class of some images; a class that the target leaves out is missing."""
    y, names = target.encode(np.arange(len(found)), found)
    return {name: names[label] for name, label in zip(found, y.tolist(), strict=True) if label >= 0}
