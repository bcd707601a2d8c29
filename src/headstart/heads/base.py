"""What heads share: their base classes, encoded labels, rows held out, temperature scaling, and layers for export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin, is_regressor
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from headstart.errors import DataError

#: The temperature is sought between the largest and the smallest share of the scores' own spread that mean anything.
LOG_BOUNDS = (-12.0, 12.0)


class Head(ClassifierMixin, BaseEstimator):
    """Base class of heads: the label with the highest score, by default the most probable one."""

    #: Whether rows may be a CSR matrix.
    _sparse = False

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the label with the highest score of each row, the first of equal ones."""
        best = self._class_scores(X).argmax(axis=1)  # first, so that an unfitted head says so
        labels: NDArray[Any] = self.classes_[best]
        return labels

    def _class_scores(self, X: Any) -> NDArray[np.floating[Any]]:
        """Return a score for each class, shape (n_samples, n_classes)."""
        probabilities: NDArray[np.floating[Any]] = self.predict_proba(X)
        return probabilities

    def _validated(self, X: Any) -> Any:
        check_is_fitted(self, "classes_")
        return validate_data(self, X, accept_sparse="csr", dtype=(np.float64, np.float32), reset=False)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self._sparse
        return tags


class LinearHead(Head):
    """Base class of linear heads, with ``coef_`` and ``intercept_``: a row per class, or a single one for two classes."""

    _sparse = True

    coef_: NDArray[np.float64]
    intercept_: NDArray[np.float64]

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return the scores of each class, shape (n_samples, n_classes), float64; shape (n_samples,) for two."""
        scores = self._scores(X)
        return scores.ravel() if scores.shape[1] == 1 else scores

    def _scores(self, X: Any) -> NDArray[np.float64]:
        X = self._validated(X)
        return np.asarray(X @ self.coef_.T) + self.intercept_

    def _class_scores(self, X: Any) -> NDArray[np.float64]:
        return both_sides(self._scores(X))


def both_sides(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a score for each class, where two classes have one column between them."""
    return np.hstack([-scores, scores]) if scores.shape[1] == 1 else scores


def encode(y: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the classes, sorted, and the index of each row's label among them; raise DataError if there is only one."""
    check_classification_targets(y)
    classes, indices = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise DataError(f"A classifier needs at least two classes. Received: 1 class, {classes[0]!r}.")
    return classes, indices.astype(np.int64)


def weighted_rows(
    X: Any, y: Any, sample_weight: Any, groups: Any = None
) -> tuple[Any, Any, NDArray[np.float64] | None, NDArray[np.int64] | None]:
    """Return rows, labels, weights, float64, and groups without the rows of weight 0, which no head is fitted on.

    Groups are numbered anew. None for no weights or no groups. Raises ValueError if a weight is negative or not finite, or
    there is not one for each row, and DataError if all are 0.
    """
    if groups is not None:
        groups = np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)
    if sample_weight is None:
        return X, y, None, groups
    weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    used = weights > 0
    if not used.any():
        raise DataError("A classifier needs rows of at least two classes. Received: only rows of weight 0.")
    if used.all():
        return X, y, weights, groups
    return X[used], y[used], weights[used], None if groups is None else groups[used]


def row_weights(class_weight: Any, y: Any, sample_weight: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Return the weight of each row in a loss, shape (n_samples,): its own, by default 1, times that of its class.

    ``class_weight`` is as in scikit-learn; by ``balanced``, the rows of each class weigh the same together.
    """
    weights = np.ones(len(y)) if sample_weight is None else sample_weight
    if class_weight is None:
        return weights
    classes, codes = np.unique(y, return_inverse=True)
    if isinstance(class_weight, str) and class_weight == "balanced":
        sums = np.bincount(codes, weights)
        by_class = sums.sum() / (len(sums) * sums)
    else:
        by_class = compute_class_weight(class_weight, classes=classes, y=y)
    weighted: NDArray[np.float64] = weights * by_class[codes]
    return weighted


def stratified_folds(
    codes: NDArray[np.int64], n_folds: int, *, seed: Any, groups: NDArray[np.int64] | None = None
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return rows to fit on and rows left out of each fold, with all classes in their shares as far as groups allow.

    Rows of one group are in one fold. There are fewer folds where a class has fewer rows, or groups; none if it has one.
    """
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    n_folds = min(n_folds, int(groups_per_class(codes, groups).min()))
    if n_folds < 2:
        return []
    return list(kind(n_folds, shuffle=True, random_state=seed).split(codes, codes, groups))


def groups_per_class(codes: NDArray[np.int64], groups: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Return the number of groups, without any of rows, of each class, shape (n_classes,)."""
    n_classes = int(codes.max()) + 1
    return np.bincount(codes if groups is None else np.unique(groups * n_classes + codes) % n_classes)


def hold_out(
    codes: NDArray[np.int64],
    fraction: float,
    *,
    seed: int,
    least: int = 0,
    groups: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Return rows to hold out, ascending: a fraction of each class, ``least`` at least, but never all of a class.

    With ``groups``, that many of the groups, by the class of their first row, with all rows of them.
    """
    if groups is not None:
        names, first = np.unique(groups, return_index=True)
        held_out = names[hold_out(codes[first], fraction, seed=seed, least=least)]
        return np.flatnonzero(np.isin(groups, held_out))
    order = np.random.default_rng(seed).permutation(len(codes))
    by_class = [order[codes[order] == code] for code in np.unique(codes)]
    return np.sort(
        np.concatenate([rows[: min(max(least, round(fraction * len(rows))), len(rows) - 1)] for rows in by_class])
    )


def fit_temperature(
    scores: NDArray[np.float64],
    labels: NDArray[np.int64],
    weights: NDArray[np.float64] | None = None,
    counts: NDArray[np.float64] | None = None,
) -> float:
    """Return the temperature ``t`` for which ``softmax(scores / t)``, or its mean over views, has the smallest log-loss.

    Guo et al., "On calibration of modern neural networks", ICML 2017; the targets are smoothed as in Platt, "Probabilistic
    outputs for support vector machines", 1999 (n + 1 of n + k rows, for k classes), so that scores without a mistake have a
    best temperature too, and no class of a new row gets probability 0 for want of mistakes.

    ``scores`` are those of rows that the model was not fitted on, shape (n_samples, n_classes) or (n_samples, n_views,
    n_classes); ``labels`` the columns of the true classes, ``weights`` those of the rows in the loss, and ``counts`` how many
    rows each stands for (its sample weight, by default 1), shape (n_samples,).
    """
    if scores.ndim == 2:
        scores = scores[:, None]
    n_samples, n_views, n_classes = scores.shape
    centred = scores - scores.mean(axis=-1, keepdims=True)
    squares = centred**2 if counts is None else np.average(centred**2, axis=0, weights=counts)
    spread = float(np.sqrt(np.mean(squares)))
    if not spread > 0:  # no score, no row: any temperature gives the same probabilities
        return 1.0
    others = 1.0 / ((n_samples if counts is None else counts.sum()) + n_classes)
    targets = np.full((n_samples, n_classes), others)
    targets[np.arange(n_samples), labels] = 1.0 - others * (n_classes - 1)
    if weights is not None:
        targets *= weights[:, None]

    def log_loss(log_temperature: float) -> float:
        of_views = log_softmax(centred / (spread * np.exp(log_temperature)), axis=-1)
        return -float(np.sum(targets * (logsumexp(of_views, axis=1) - np.log(n_views))))

    found = minimize_scalar(log_loss, bounds=LOG_BOUNDS, method="bounded", options={"xatol": 1e-6})
    return spread * float(np.exp(found.x))


def outputs_of(head: Any, X: Any, n_outputs: int) -> NDArray[np.float64]:
    """Return what a fitted head predicts, shape (n_samples, n_outputs): numbers, or probabilities of all classes.

    A class that the head was not fitted on has probability 0.
    """
    if is_regressor(head):
        return np.asarray(head.predict(X), np.float64).reshape(len(X), n_outputs)
    probabilities = np.zeros((len(X), n_outputs))
    probabilities[:, head.classes_] = head.predict_proba(X)
    return probabilities


@dataclass(frozen=True, slots=True)
class Layer:
    """A dense layer of an exported head: ``activation(x @ kernel + bias)``."""

    kernel: NDArray[np.float32]  # shape (n_inputs, n_outputs)
    bias: NDArray[np.float32]  # shape (n_outputs,)
    activation: (
        str  # ``softmax``, ``sigmoid``, ``linear``, or one of ``heads.parameters.ACTIVATIONS``; named as in Keras
    )
    normalised: bool = False  # whether each row of the outputs is to be divided by its sum


def softmax_layer(coefficients: Any, intercepts: Any) -> Layer:
    """Return linear coefficients, one row per class, as a layer; a single row stands for the second of two classes."""
    kernel, bias = np.asarray(coefficients, np.float64), np.asarray(intercepts, np.float64).ravel()
    if len(kernel) == 1:
        # softmax([0, z]) is [1 − sigmoid(z), sigmoid(z)], scikit-learn's two probabilities
        kernel, bias = np.vstack([np.zeros_like(kernel), kernel]), np.concatenate([[0.0], bias])
    return Layer(kernel.T.astype(np.float32), bias.astype(np.float32), "softmax")


def calibrated_layer(fitted: Any) -> Layer:
    """Return a linear SVM with Platt's sigmoid; of more than two classes, as heads had it once, a sigmoid for each."""
    a = np.array([sigmoid.a_ for sigmoid in fitted.calibrators])[:, None]
    b = np.array([sigmoid.b_ for sigmoid in fitted.calibrators])
    svm = fitted.estimator
    kernel, bias = -a * svm.coef_, -(a[:, 0] * svm.intercept_ + b)
    if len(kernel) == 1:
        kernel, bias = np.vstack([-kernel, kernel]), np.concatenate([-bias, bias])  # 1 − sigmoid(z) is sigmoid(−z)
    return Layer(kernel.T.astype(np.float32), bias.astype(np.float32), "sigmoid", normalised=len(kernel) > 2)
