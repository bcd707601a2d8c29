"""Targets: what a head predicts for an image; today one class per image, as labelled or merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from headstart.cache.reader import FeatureCache
from headstart.errors import ParameterError
from headstart.evaluate.metrics import score
from headstart.evaluate.splits import labelled
from headstart.heads.catalogue import head_kind
from headstart.scores import Score
from headstart.texts import did_you_mean
from headstart.types import SINGLE_LABEL


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
        """Return the score of predictions; parameters are those of :func:`headstart.evaluate.metrics.score`."""
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
    """Return a cache whose ``labels`` and ``class_names`` are those of a target; everything else is as in the file."""
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
