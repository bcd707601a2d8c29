"""The target ``normal``: normal images or others, for heads that are fitted on the normal ones alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError, ParameterError
from headstart.evaluate.target_types.class_target import SingleLabel
from headstart.scores import ANOMALY_METRICS, AnomalyScore, Metric, class_index
from headstart.texts import listed
from headstart.types import NORMAL

#: Classes named in a message.
MAX_LISTED = 20


class Normal(SingleLabel):
    """Two outputs: the normal class, and all others. Fits see the normal images alone; all are scored.

    Parameters
    ----------
    normal : str, optional
        The class of normal images; to be named for a fit.
    """

    name = NORMAL
    tasks: Sequence[str] = ("anomaly",)
    all_metrics: Sequence[Metric] = ANOMALY_METRICS
    choices: Sequence[str] = tuple(metric.name for metric in ANOMALY_METRICS)

    def __init__(self, normal: str | None = None) -> None:
        self.normal = normal

    def for_head(self, names: Sequence[str]) -> Normal:
        """Return the target of a saved head, whose first output is the normal class."""
        return Normal(names[0])

    def outputs(
        self, labels: NDArray[np.int64], class_names: Sequence[str], targets: NDArray[np.float64] | None = None
    ) -> tuple[NDArray[np.int64], tuple[str, ...], NDArray[np.int64]]:
        """Return 0 for each labelled row, since fits need one class alone; the names; and 0 for normal rows, 1 for others.

        Raises ParameterError if no class is named.
        """
        if self.normal is None:
            raise ParameterError(
                f"Which images are normal is not known. Expected one of: {listed(list(class_names), MAX_LISTED)}.",
                hint="Name their class in `normal`.",
            )
        normal = np.array([*(name == self.normal for name in class_names), False])[labels]
        known = labels >= 0
        names = (self.normal, f"not {self.normal}")
        return np.where(known, 0, -1), names, np.where(known, np.where(normal, 0, 1), -1)

    def weights(self, y: NDArray[np.int64], weights: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        """Return the weights in a fit: 0 of images that are not normal."""
        return np.where(y == 0, 1.0 if weights is None else weights, 0.0)

    def stratify(self, y: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return normal or not; raise DataError if fewer than two images are normal."""
        if (y == 0).sum() < 2:
            raise DataError(
                f"A head for anomalies needs at least two images of the normal class {self.normal!r}. "
                f"Found {int((y == 0).sum())}.",
                hint="Name the class of normal images in `normal`.",
            )
        return y

    def positive_index(self, positive: str | None, class_names: Sequence[str]) -> int | None:
        """Return the index of the class that is to be found: by default the images that are not normal."""
        return len(class_names) - 1 if positive is None else class_index(positive, class_names)

    def metrics(  # type: ignore[override]
        self,
        y_true: NDArray[np.int64],
        outputs: NDArray[np.floating[Any]],
        names: Sequence[str],
        positive: int | None = None,
        units: NDArray[np.integer[Any]] | None = None,
    ) -> AnomalyScore:
        """Return the score of two classes, and the rates of images that are not normal."""
        base = SingleLabel.metrics(y_true, outputs, names, 1 if positive is None else positive, units)
        values: dict[str, Any] = {one.name: getattr(base, one.name) for one in fields(base)}
        return AnomalyScore(**values)
