"""Labels, checked and encoded; rows held out; and temperature scaling of the scores of such rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp
from sklearn.utils.multiclass import check_classification_targets

from headstart.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def encode(y: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the classes, sorted, and the index of each row's label among them.

    Raises
    ------
    DataError
        If there are fewer than two classes.
    ValueError
        If the labels are no classes, as numbers with fractions.
    """
    check_classification_targets(y)
    classes, indices = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise DataError(f"A classifier needs at least two classes. Received: 1 class, {classes[0]!r}.")
    return classes, indices.astype(np.int64)


def hold_out(codes: NDArray[np.int64], fraction: float, *, seed: int, least: int = 0) -> NDArray[np.int64]:
    """Return rows to hold out, ascending: a fraction of each class, ``least`` at least, but never all of a class."""
    order = np.random.default_rng(seed).permutation(len(codes))
    by_class = [order[codes[order] == code] for code in np.unique(codes)]
    return np.sort(
        np.concatenate([rows[: min(max(least, round(fraction * len(rows))), len(rows) - 1)] for rows in by_class])
    )


#: The temperature is sought between the largest and the smallest share of the scores' own spread that mean anything.
LOG_BOUNDS = (-12.0, 12.0)


def fit_temperature(
    scores: NDArray[np.float64], labels: NDArray[np.int64], weights: NDArray[np.float64] | None = None
) -> float:
    """Return the temperature ``t`` for which ``softmax(scores / t)``, or its mean over views, has the smallest log-loss.

    Guo et al., "On calibration of modern neural networks", ICML 2017; the targets are smoothed as in Platt, "Probabilistic
    outputs for support vector machines", 1999 (n + 1 of n + k rows, for k classes), so that scores without a mistake have a
    best temperature too, and no class of a new row gets probability 0 for want of mistakes.

    Parameters
    ----------
    scores : ndarray of shape (n_samples, n_classes) or (n_samples, n_views, n_classes), float64
        Scores of rows that the model was not fitted on: left out, or held out.
    labels : ndarray of shape (n_samples,), int64
        Columns of the true classes.
    weights : ndarray of shape (n_samples,), float64, optional
        Weights of the rows.
    """
    if scores.ndim == 2:
        scores = scores[:, None]
    n_samples, n_views, n_classes = scores.shape
    centred = scores - scores.mean(axis=-1, keepdims=True)
    spread = float(np.sqrt(np.mean(centred**2)))
    if not spread > 0:  # no score, no row: any temperature gives the same probabilities
        return 1.0
    others = 1.0 / (n_samples + n_classes)
    targets = np.full((n_samples, n_classes), others)
    targets[np.arange(n_samples), labels] = 1.0 - others * (n_classes - 1)
    if weights is not None:
        targets *= weights[:, None]

    def log_loss(log_temperature: float) -> float:
        of_views = log_softmax(centred / (spread * np.exp(log_temperature)), axis=-1)
        return -float(np.sum(targets * (logsumexp(of_views, axis=1) - np.log(n_views))))

    found = minimize_scalar(log_loss, bounds=LOG_BOUNDS, method="bounded", options={"xatol": 1e-6})
    return spread * float(np.exp(found.x))
