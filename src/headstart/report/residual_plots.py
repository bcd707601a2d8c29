"""Plots of predicted numbers: against the true ones, and what is left; and the images with the largest errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.report.comparison import Comparison
from headstart.report.svg import ROLES, Plot, draw, look
from headstart.report.text_tables import value_text

#: Points of a plot: more would make the page large, and hide one another.
MAX_POINTS = 2_000

#: Images with the largest errors that are listed.
N_LARGEST = 24


@dataclass(frozen=True, slots=True)
class LargeError:
    """An image whose number is predicted badly."""

    path: str
    true: float
    predicted: float


def residual_plots(comparison: Comparison) -> list[Plot | None]:
    """Return predictions against true numbers, and residuals against predictions, of the recommended head."""
    head = comparison[comparison.recommended]
    truth, predicted = comparison.y_true, head.probabilities[:, 0].astype(np.float64)
    residuals = predicted - truth
    rows = _drawn(len(truth))
    words = f"Residuals, prediction minus truth: mean {value_text(float(residuals.mean()))}, "
    words += ", ".join(
        f"{share} % quantile {value_text(float(np.quantile(residuals, share / 100)))}" for share in (5, 50, 95)
    )
    if len(rows) < len(truth):
        words += f"; {len(rows):,} of {len(truth):,} images are drawn"
    mark = look(head, comparison) | {"linestyle": "none"}
    return [
        draw(
            _painter(truth[rows], predicted[rows], mark, "true number", "predicted number", diagonal=True),
            name="predicted",
            title=f"Predictions of {head.name} against true numbers",
            description=f"{words}.",
            height_pt=370,
        ),
        draw(
            _painter(
                predicted[rows], residuals[rows], mark, "predicted number", "prediction minus truth", diagonal=False
            ),
            name="residuals",
            title=f"Residuals of {head.name}",
            description=f"{words}.",
            height_pt=370,
        ),
    ]


def _drawn(n: int) -> NDArray[np.int64]:
    """Return the rows that are drawn: all, or evenly many of the images in their order."""
    return np.unique(np.linspace(0, n - 1, min(n, MAX_POINTS)).astype(np.int64))


def _painter(
    x: NDArray[np.float64], y: NDArray[np.float64], mark: dict[str, Any], xlabel: str, ylabel: str, *, diagonal: bool
) -> Callable[[Any], None]:
    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        style = {"color": ROLES["soft"], "linewidth": 0.9, "linestyle": (0, (3, 2))}
        if diagonal:
            ends = [float(min(x.min(), y.min())), float(max(x.max(), y.max()))]
            axes.plot(ends, ends, **style)
        else:
            axes.axhline(0, **style)
        axes.plot(x, y, **mark, markersize=3, alpha=0.5)
        axes.set(xlabel=xlabel, ylabel=ylabel)

    return paint


def largest_errors(comparison: Comparison) -> list[LargeError]:
    """Return the images with the largest errors of the recommended head, the largest first."""
    predicted = comparison[comparison.recommended].probabilities[:, 0].astype(np.float64)
    order = np.argsort(-np.abs(predicted - comparison.y_true), kind="stable")[:N_LARGEST]
    return [
        LargeError(comparison.paths[row], float(comparison.y_true[row]), float(predicted[row]))
        for row in order.tolist()
    ]
