"""Ridge regression on ordered levels, divided into levels by thresholds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.utils.validation import validate_data

from headstart.heads.base import Head, Layer, encode, fit_temperature, softmax_layer, weighted_rows
from headstart.heads.grid_predictions import Division, Outcome, Settings, grouped
from headstart.heads.ridge import ridge_path

Floats = NDArray[np.float64]

#: Improvements of the thresholds at most; Dinkelbach's method converges superlinearly, in practice within six.
MAX_STEPS = 50


class OrdinalRidgeHead(Head):
    """Ridge regression on the number of the level, 0, 1, 2 …, and thresholds between the levels.

    The thresholds give exact leave-one-out scores the largest quadratic weighted kappa. Probabilities are those of the
    adjacent-categories logit (Agresti, Analysis of Ordinal Categorical Data, 2010, section 4.1) with these thresholds:
    ``log p[k] − log p[k − 1] = (score − thresholds_[k − 1]) / temperature_``, so that the most probable level is the one that
    the score lies in; the temperature is chosen by the log-loss of the same scores.

    Parameters
    ----------
    alpha : float
        Strength of the L2 penalty.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The levels, in ascending order.
    coef_, intercept_ : ndarray of shape (n_features,), float
        Of the score.
    thresholds_ : ndarray of shape (n_classes - 1,), float64
        Between the levels, ascending; two are equal around a level that is never predicted.
    temperature_ : float
        Divisor of the scores.
    """

    _sparse = True

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> OrdinalRidgeHead:
        """Fit on rows of features, an array or CSR matrix of shape (n_samples, n_features), with labels and weights.

        The order of the labels is that of ``np.unique``. Rows of one group (of ``groups``, shape (n_samples,)), as crops of
        an image, are left out together.
        """
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=(np.float64, np.float32))
        X, y, counts, groups = weighted_rows(X, y, sample_weight, groups)
        self.classes_, codes = encode(y)
        weights = np.ones(len(codes)) if counts is None else counts
        wanted = codes[:, None].astype(np.float64)
        path = ridge_path(X, wanted, [self.alpha], weights=weights, counts=counts, groups=groups)
        self.coef_, self.intercept_ = path.coefs[0, 0], float(path.intercepts[0, 0])
        left_out = path.left_out[0, :, 0]
        self.thresholds_ = best_thresholds(left_out, codes, weights)
        self.temperature_ = fit_temperature(level_scores(left_out, self.thresholds_), codes, weights, counts)
        return self

    def positions(self, X: Any) -> Floats:
        """Return the scores, on the scale of the levels' numbers; shape (n_samples,), float64."""
        scores: Floats = np.asarray(self._validated(X) @ self.coef_, np.float64) + self.intercept_
        return scores

    def predict_proba(self, X: Any) -> Floats:
        """Return probabilities of shape (n_samples, n_classes), float64, in the order of ``classes_``."""
        scores = level_scores(self.positions(X), self.thresholds_)
        probabilities: Floats = softmax(scores / self.temperature_, axis=1)
        return probabilities

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True  # on classes without an order
        return tags

    def to_layers(self) -> tuple[Layer, ...]:
        """Return the one layer that gives ``predict_proba``."""
        numbers = np.arange(len(self.classes_))
        offsets = np.concatenate([[0.0], np.cumsum(self.thresholds_)])
        coefficients = numbers[:, None] * self.coef_ / self.temperature_
        return (softmax_layer(coefficients, (numbers * self.intercept_ - offsets) / self.temperature_),)


def level_scores(scores: Floats, thresholds: Floats) -> Floats:
    """Return a score for each level, shape (n_samples, n_levels): the largest is that of the level that a score lies in."""
    offsets = np.concatenate([[0.0], np.cumsum(thresholds)])
    found: Floats = np.arange(len(offsets)) * scores[:, None] - offsets
    return found


def best_thresholds(scores: Floats, codes: NDArray[np.int64], weights: Floats) -> Floats:
    """Return the thresholds of the scores with the largest quadratic weighted kappa, ascending, shape (n_levels - 1,).

    Kappa is 1 − O / E, where O sums a cost of each row and E an expected one, both by the level predicted for it. The
    smallest ratio is found by minimising O − ratio · E for the last ratio (Dinkelbach, "On nonlinear fractional
    programming", Management Science 13, 1967); that is exact, by dynamic programming over the sorted scores.
    """
    levels = np.arange(int(codes.max()) + 1)
    values, place = np.unique(scores, return_inverse=True)
    observed, expected = np.zeros((2, len(values), len(levels)))
    distances = (codes[:, None] - levels) ** 2 * weights[:, None]
    np.add.at(observed, place, distances)
    totals = np.bincount(place, weights, len(values))
    expected[:] = totals[:, None] * (distances.sum(axis=0) / weights.sum())
    ratio = 1.0
    cuts = np.zeros(len(levels) - 1, np.int64)
    for _ in range(MAX_STEPS):
        found = cheapest_cuts(observed - ratio * expected)
        chosen = np.searchsorted(found, np.arange(len(values)), side="right")
        rows = np.arange(len(values))
        smaller = float(observed[rows, chosen].sum() / expected[rows, chosen].sum())
        if smaller >= ratio - 1e-12:
            break
        ratio, cuts = smaller, found
    margin = max(float(values[-1] - values[0]), 1.0)
    edges = np.concatenate([[values[0] - margin], (values[1:] + values[:-1]) / 2, [values[-1] + margin]])
    thresholds: Floats = edges[cuts]
    return thresholds


def cheapest_cuts(costs: Floats) -> NDArray[np.int64]:
    """Return where each next level begins, for rows in order whose levels do not fall, so that their costs are smallest.

    ``costs`` of each level for each row have shape (n_rows, n_levels); the result has shape (n_levels - 1,).
    """
    sums = np.concatenate([np.zeros((1, costs.shape[1])), np.cumsum(costs, axis=0)])
    best, starts = sums[:, 0], []
    for level in range(1, costs.shape[1]):
        before = best - sums[:, level]
        lowest = np.minimum.accumulate(before)
        is_new = np.concatenate([[True], before[1:] < lowest[:-1]])
        starts.append(np.maximum.accumulate(np.where(is_new, np.arange(len(before)), 0)))
        best = sums[:, level] + lowest
    end, cuts = len(costs), []
    for start in reversed(starts):
        end = int(start[end])
        cuts.append(end)
    return np.array(cuts[::-1], np.int64)


def along_ordinal_ridge(rows: Division, settings: Settings) -> Iterator[Outcome]:
    """Yield the outcomes of ordinal ridge heads, without probabilities; one decomposition serves every alpha."""
    classes, codes = np.unique(rows.y, return_inverse=True)
    weights = np.ones(len(codes)) if rows.weights is None else rows.weights
    wanted = codes[:, None].astype(np.float64)
    for group in grouped(settings, "alpha"):
        alphas = [settings[number]["alpha"] for number in group]
        path = ridge_path(rows.X, wanted, alphas, weights=weights, counts=rows.weights, groups=rows.groups)
        for place, number in enumerate(group):
            thresholds = best_thresholds(path.left_out[place, :, 0], codes, weights)
            scores = rows.X_test @ path.coefs[place, 0] + path.intercepts[place, 0]
            yield Outcome(number, classes[level_scores(scores, thresholds).argmax(axis=1)])
