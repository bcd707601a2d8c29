"""What a type of head predicts with many settings, the work that they share done once.

A regularisation path starts each fit from the last; a kernel serves every C; and heads that see only inner products of rows
are fitted on the rows in the coordinates of their own space (heads/fitting/row_space.py), which are found once for all folds.
Turning the coordinates changes nothing that such a head predicts, so rows that are scored may take part in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit, softmax
from sklearn.utils.class_weight import compute_class_weight

from headstart.heads.catalogue import full_params, make_classifier
from headstart.heads.fitting.linear_path import solve_path
from headstart.heads.fitting.losses import Deviance, SquaredHinge
from headstart.heads.fitting.row_space import row_space
from headstart.heads.ridge import ridge_path, signs
from headstart.heads.svm import numeric_gamma
from headstart.heads.transforms import make_scaler

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Codes = NDArray[np.intp]
    Settings = Sequence[Mapping[str, Any]]

#: Heads that see only inner products of rows, or distances.
ROTATION_INVARIANT = frozenset({"logistic", "linear-svm", "rbf-svm", "ridge", "knn"})

#: Scalings that look at one row at a time; the others are learned from the training rows.
ROW_BY_ROW = frozenset({"sqrt-l2", "l2", "none"})

#: Tolerance of a path's solver, scikit-learn's own default: which class wins is settled long before the coefficients are.
PATH_TOL = 1e-4


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one setting predicts for the test rows.

    Attributes
    ----------
    setting : int
        Its place among the settings.
    predicted : ndarray of shape (n_test,), int
        Labels.
    probabilities : ndarray of shape (n_test, n_fitted), float64, or None
        Of the classes that it was fitted on, which ``classes`` names; None where they were not asked for.
    converged : bool
        Whether its solver came to an end.
    """

    setting: int
    predicted: Codes
    converged: bool = True
    probabilities: NDArray[np.float64] | None = None
    classes: Codes | None = None

    def probabilities_of(self, n_classes: int) -> NDArray[np.float64]:
        """Return probabilities of all classes, shape (n_test, n_classes); 1 of the predicted one where there are none."""
        all_classes = np.zeros((len(self.predicted), n_classes))
        if self.probabilities is None:
            all_classes[np.arange(len(self.predicted)), self.predicted] = 1
        else:
            all_classes[:, self.classes] = self.probabilities
        return all_classes


class Table:
    """Rows of one choice of features and scaling, in the form that each head fits fastest.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features), float32
        Features, unscaled.
    features : tuple of str
        What they are.
    scaling : str
        How they are to be scaled.
    """

    def __init__(self, X: NDArray[np.float32], features: tuple[str, ...], scaling: str) -> None:
        self.features, self.scaling = features, scaling
        self.raw = X

    @cached_property
    def scaled(self) -> NDArray[np.float32]:
        """Scaled rows, where scaling looks at one row at a time."""
        scaled: NDArray[np.float32] = make_scaler(self.scaling).fit_transform(self.raw)
        return scaled

    @cached_property
    def turned(self) -> Any:
        """The same in the coordinates of their row space, float64."""
        return row_space(self.scaled, centred=False).rows

    def prepare(self, head_type: str) -> None:
        """Make what all folds share."""
        if self.scaling in ROW_BY_ROW:
            self.rows(head_type, np.empty(0, np.intp))

    def rows(self, head_type: str, train: Codes) -> Any:
        """Return all rows as a head of this type takes them, scaled as the training rows have it."""
        turn = head_type in ROTATION_INVARIANT
        if self.scaling in ROW_BY_ROW:
            return self.turned if turn else self.scaled
        scaled = make_scaler(self.scaling).fit(self.raw[train]).transform(self.raw)
        return row_space(scaled, centred=False).rows if turn else scaled

    def gamma(self, gamma: str | float, train: Codes) -> float:
        """Return the width of an RBF kernel in numbers for these training rows (heads/svm.py)."""
        scaler = None if self.scaling in ROW_BY_ROW else make_scaler(self.scaling)
        return numeric_gamma(gamma, self.scaled[train] if scaler is None else scaler.fit_transform(self.raw[train]))


def outcomes(
    head_type: str,
    table: Table,
    labels: Codes,
    train: Codes,
    test: Codes,
    settings: Settings,
    random_state: int,
    probabilities: bool = False,
) -> Iterator[Outcome]:
    """Return what every setting of a head, fitted on some rows, predicts for others; in any order.

    Parameters
    ----------
    head_type : str
        Name in the catalogue.
    table : Table
        The rows.
    labels : ndarray of shape (n_samples,), int
        Of all rows.
    train, test : ndarray of int
        Rows to fit on, and to predict.
    settings : sequence of mappings
        Parameters of the head; the catalogue's defaults for those that are missing.
    random_state : int
        Seeds what is random.
    probabilities : bool
        Whether the outcomes have them; heads that calibrate theirs are then fitted one by one.
    """
    rows = table.rows(head_type, train)
    full = [full_params(head_type, table.features, table.scaling, setting) for setting in settings]
    if probabilities and head_type != "logistic":
        return one_by_one(head_type, rows[train], labels[train], rows[test], full, random_state)
    if head_type in {"logistic", "linear-svm"}:
        return along_paths(head_type, rows[train], labels[train], rows[test], full)
    if head_type == "ridge":
        return along_ridge(rows[train], labels[train], rows[test], full)
    if head_type == "rbf-svm":
        return with_kernels(table, rows, labels, train, test, full)
    return one_by_one(head_type, rows[train], labels[train], rows[test], full, random_state)


def along_paths(head_type: str, X: Any, labels: Codes, X_test: Any, settings: Settings) -> Iterator[Outcome]:
    """Yield the outcomes of linear heads, C ascending, each fit started from the last."""
    classes, codes = np.unique(labels, return_inverse=True)
    if head_type == "logistic":  # its intercept is free, so moving the rows changes nothing but the number of steps
        mean = X.mean(axis=0)
        X, X_test = X - mean, X_test - mean
    for group in grouped(settings, "C"):
        setting = settings[group[0]]
        weights = compute_class_weight(setting["class_weight"], classes=classes, y=labels)[codes]
        make = Deviance if head_type == "logistic" else SquaredHinge.of_classes
        path = solve_path(
            X,
            make(codes, len(classes), weights),
            [settings[number]["C"] for number in group],
            tol=PATH_TOL,
            max_iter=setting["max_iter"],
        )
        for number, solution in zip(group, path, strict=True):
            scores = solution.scores(X_test)
            found = logistic_probabilities(scores) if head_type == "logistic" else None
            yield Outcome(number, classes[winners(scores)], solution.converged, found, classes)


def along_ridge(X: Any, labels: Codes, X_test: Any, settings: Settings) -> Iterator[Outcome]:
    """Yield the outcomes of ridge heads; one decomposition serves every alpha."""
    classes, codes = np.unique(labels, return_inverse=True)
    for group in grouped(settings, "alpha"):
        weights = compute_class_weight(settings[group[0]]["class_weight"], classes=classes, y=labels)[codes]
        alphas = [settings[number]["alpha"] for number in group]
        path = ridge_path(X, signs(codes, len(classes)), alphas, weights=weights)
        for number, coef, intercept in zip(group, path.coefs, path.intercepts, strict=True):
            yield Outcome(number, classes[winners(X_test @ coef.T + intercept)])


def winners(scores: NDArray[np.float64]) -> Codes:
    """Return the class with the highest score of each row; a single column decides between two."""
    best: Codes = scores.argmax(axis=1) if scores.shape[1] > 1 else (scores.ravel() > 0).astype(np.intp)
    return best


def logistic_probabilities(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what a logistic head makes of its scores; a single column is that of the second of two classes."""
    if scores.shape[1] == 1:
        positive: NDArray[np.float64] = expit(scores)
        return np.hstack([1 - positive, positive])
    found: NDArray[np.float64] = softmax(scores, axis=1)
    return found


def with_kernels(
    table: Table, rows: Any, labels: Codes, train: Codes, test: Codes, settings: Settings
) -> Iterator[Outcome]:
    """Yield the outcomes of RBF SVMs; one kernel serves every C."""
    from sklearn.metrics.pairwise import euclidean_distances
    from sklearn.svm import SVC

    among = euclidean_distances(rows[train], squared=True)
    between = euclidean_distances(rows[test], rows[train], squared=True)
    for group in grouped(settings, "C"):
        setting = settings[group[0]]
        gamma = setting["gamma_factor"] * table.gamma(setting["gamma"], train)
        kernel, kernel_test = np.exp(-gamma * among), np.exp(-gamma * between)
        for number in group:
            svm = SVC(C=settings[number]["C"], kernel="precomputed", class_weight=settings[number]["class_weight"])
            yield Outcome(number, svm.fit(kernel, labels[train]).predict(kernel_test))


def one_by_one(
    head_type: str, X: Any, labels: Codes, X_test: Any, settings: Settings, random_state: int
) -> Iterator[Outcome]:
    """Yield the outcomes of heads that share nothing."""
    for number, setting in enumerate(settings):
        classifier = make_classifier(head_type, {**setting, "random_state": random_state}).fit(X, labels)
        found = classifier.predict_proba(X_test)
        classes = classifier.classes_
        yield Outcome(number, classes[found.argmax(axis=1)], probabilities=found, classes=classes)


def grouped(settings: Settings, along: str) -> Iterator[list[int]]:
    """Yield the places of settings that differ in one parameter only, by that parameter."""

    def others(number: int) -> str:
        return repr(sorted((name, value) for name, value in settings[number].items() if name != along))

    order = sorted(range(len(settings)), key=lambda number: (others(number), settings[number][along]))
    for _, group in groupby(order, key=others):
        yield list(group)
