"""Predictions of a type of head with many settings; work that the settings share is done once.

A regularisation path starts each fit from the last; a kernel serves every C; and heads that see only inner products of rows
are fitted on the rows in the coordinates of their own space (heads/fitting/row_space.py), which are found once for all folds.
Turning the coordinates changes nothing that such a head predicts, so rows that are scored may take part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from headstart.heads.base import both_sides, row_weights
from headstart.heads.catalogue import full_params, head_kind, make_classifier
from headstart.heads.fitting.linear_solvers import Deviance, Loss, Solution, SquaredHinge, solve_path
from headstart.heads.fitting.row_space import row_space
from headstart.heads.head_specs import given_groups, given_weights, imported
from headstart.heads.ridge import ridge_path, signs
from headstart.heads.svm import numeric_gamma
from headstart.heads.transforms import make_scaler

Codes = NDArray[np.intp]
Settings = Sequence[Mapping[str, Any]]

#: Scalings that look at one row at a time; the others are learned from the training rows.
ROW_BY_ROW = frozenset({"sqrt-l2", "l2", "none"})

#: Tolerance of a path's solver, scikit-learn's own default: which class wins is settled long before the coefficients are.
PATH_TOL = 1e-4


@dataclass(frozen=True, slots=True)
class Outcome:
    """Predictions of one setting for the test rows."""

    setting: int  # its place among the settings
    predicted: NDArray[Any]  # labels, or numbers, float64; shape (n_test,)
    converged: bool = True  # whether its solver came to an end
    #: Probabilities of ``classes``, those it was fitted on; None where they were not asked for; shape (n_test,
    #: n_fitted)
    probabilities: NDArray[np.float64] | None = None
    classes: Codes | None = None

    def outputs_of(self, n_outputs: int) -> NDArray[np.float64]:
        """Return what is predicted, shape (n_test, n_outputs): numbers, or probabilities of all classes.

        Without probabilities, that of the predicted class is 1.
        """
        if self.predicted.dtype.kind == "f":
            return self.predicted[:, None]
        return self.probabilities_of(n_outputs)

    def probabilities_of(self, n_classes: int) -> NDArray[np.float64]:
        """Return probabilities of all classes, shape (n_test, n_classes); 1 of the predicted one where there are none."""
        all_classes = np.zeros((len(self.predicted), n_classes))
        if self.probabilities is None:
            all_classes[np.arange(len(self.predicted)), self.predicted] = 1
        else:
            all_classes[:, self.classes] = self.probabilities
        return all_classes


class Table:
    """Rows of one choice of features and scaling, in the form that each head fits fastest; ``X`` is not scaled.

    Of a join of caches, ``widths`` are the columns of each, which are scaled on their own. ``weights`` are those of the rows
    in a fit, shape (n_samples,); None for ones. The last rows are crops: ``crops`` is the row of the image of each.
    """

    def __init__(
        self,
        X: NDArray[np.float32],
        features: tuple[str, ...],
        scaling: str,
        widths: Sequence[int] = (),
        weights: NDArray[np.float64] | None = None,
        crops: Codes | None = None,
    ) -> None:
        self.features, self.scaling, self.widths = features, scaling, widths
        self.raw, self.weights, self.crops = X, weights, crops

    @cached_property
    def scaled(self) -> NDArray[np.float32]:
        """Scaled rows, where scaling looks at one row at a time."""
        scaled: NDArray[np.float32] = make_scaler(self.scaling, self.widths).fit_transform(self.raw)
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
        turn = head_kind(head_type).rotation_invariant
        if self.scaling in ROW_BY_ROW:
            return self.turned if turn else self.scaled
        scaled = self._fitted_scaler(train).transform(self.raw)
        return row_space(scaled, centred=False).rows if turn else scaled

    def gamma(self, gamma: str | float, train: Codes) -> float:
        """Return the width of an RBF kernel in numbers for these training rows (heads/svm.py)."""
        by_row = self.scaling in ROW_BY_ROW
        scaled = self.scaled[train] if by_row else self._fitted_scaler(train).transform(self.raw[train])
        return numeric_gamma(gamma, scaled, self.weights_of(train))

    def fitted(self, train: Codes, labels: NDArray[Any]) -> tuple[Codes, NDArray[Any]]:
        """Return the rows of a fit on some images, those of their crops behind them, and the label of every row there is."""
        if self.crops is None:
            return train, labels
        own = len(labels) + np.flatnonzero(np.isin(self.crops, train))
        return np.concatenate([train, own]), np.concatenate([labels, labels[self.crops]])

    def groups_of(self, rows: Codes) -> Codes | None:
        """Return the image of each of some rows; None where every row is an image."""
        if self.crops is None:
            return None
        n_images = len(self.raw) - len(self.crops)
        return np.concatenate([np.arange(n_images), self.crops])[rows]

    def weights_of(self, rows: Codes) -> NDArray[np.float64] | None:
        """Return the weights of some rows; None for ones."""
        return None if self.weights is None else self.weights[rows]

    def _fitted_scaler(self, train: Codes) -> Any:
        scaler = make_scaler(self.scaling, self.widths)
        return scaler.fit(self.raw[train], **given_weights(scaler, self.weights_of(train)))


@dataclass(frozen=True, slots=True)
class Division:
    """Rows to fit on and rows to predict, scaled."""

    X: Any  # rows to fit on, scaled; shape (n_train, n_features)
    y: NDArray[Any]  # their labels or numbers; shape (n_train,)
    X_test: Any  # rows to predict; shape (n_test, n_features)
    #: Returns the number for a ``gamma`` of ``sklearn.svm.SVC`` on the rows to fit on
    gamma: Callable[[str | float], float]
    weights: NDArray[np.float64] | None = None  # of the rows to fit on, above 0; None for ones; shape (n_train,)
    groups: Codes | None = None  # image of each row to fit on, where there are crops; shape (n_train,)

    def weights_with(self, class_weight: Any) -> NDArray[np.float64]:
        """Return the weights of the rows in a loss."""
        return row_weights(class_weight, self.y, self.weights)


def outcomes(
    head_type: str,
    table: Table,
    labels: NDArray[Any],
    train: Codes,
    test: Codes,
    settings: Settings,
    random_state: int,
    probabilities: bool = False,
) -> Iterator[Outcome]:
    """Return the predictions of a head, fitted on some rows, with every setting, for others; in any order.

    A setting holds the parameters that are not the catalogue's defaults. With ``probabilities``, heads that calibrate
    theirs are fitted one by one.
    """
    kind = head_kind(head_type)
    train, labels = table.fitted(train, labels)
    weights = table.weights_of(train)
    if weights is not None:
        train, weights = train[weights > 0], weights[weights > 0]
    rows = table.rows(head_type, train)
    division = Division(
        rows[train], labels[train], rows[test], partial(table.gamma, train=train), weights, table.groups_of(train)
    )
    full = [full_params(head_type, table.features, table.scaling, setting) for setting in settings]
    if kind.grid_solver and (kind.grid_probabilities or not probabilities or kind.task == "regression"):
        found: Iterator[Outcome] = imported(kind.grid_solver)(division, full)
        return found
    return one_by_one(head_type, division, full, random_state)


def logistic_path(rows: Division, settings: Settings) -> Iterator[Outcome]:
    """Yield the outcomes of logistic regression."""
    mean = rows.X.mean(axis=0)  # its intercept is free, so centring changes nothing but the number of steps
    centred = replace(rows, X=rows.X - mean, X_test=rows.X_test - mean)
    for number, scores, solution, classes in along_path(centred, settings, Deviance):
        predicted = classes[both_sides(scores).argmax(axis=1)]
        yield Outcome(number, predicted, solution.converged, logistic_probabilities(scores), classes)


def linear_svm_path(rows: Division, settings: Settings) -> Iterator[Outcome]:
    """Yield the outcomes of linear SVMs, without probabilities."""
    for number, scores, solution, classes in along_path(rows, settings, SquaredHinge.of_classes):
        yield Outcome(number, classes[both_sides(scores).argmax(axis=1)], solution.converged)


def along_path(
    rows: Division, settings: Settings, make_loss: Callable[[Codes, int, NDArray[np.float64]], Loss]
) -> Iterator[tuple[int, NDArray[np.float64], Solution, Codes]]:
    """Yield setting, test scores, solution and classes of linear heads, C ascending, each started from the last."""
    classes, codes = np.unique(rows.y, return_inverse=True)
    for group in grouped(settings, "C"):
        setting = settings[group[0]]
        weights = rows.weights_with(setting["class_weight"])
        loss, Cs = make_loss(codes, len(classes), weights), [settings[number]["C"] for number in group]
        path = solve_path(rows.X, loss, Cs, tol=PATH_TOL, max_iter=setting["max_iter"])
        for number, solution in zip(group, path, strict=True):
            yield number, solution.scores(rows.X_test), solution, classes


def along_ridge(rows: Division, settings: Settings) -> Iterator[Outcome]:
    """Yield the outcomes of ridge heads, without probabilities; one decomposition serves every alpha."""
    classes, codes = np.unique(rows.y, return_inverse=True)
    for group in grouped(settings, "alpha"):
        weights = rows.weights_with(settings[group[0]]["class_weight"])
        alphas = [settings[number]["alpha"] for number in group]
        path = ridge_path(rows.X, signs(codes, len(classes)), alphas, weights=weights)
        for number, coef, intercept in zip(group, path.coefs, path.intercepts, strict=True):
            yield Outcome(number, classes[both_sides(rows.X_test @ coef.T + intercept).argmax(axis=1)])


def with_kernels(rows: Division, settings: Settings) -> Iterator[Outcome]:
    """Yield the outcomes of RBF SVMs, without probabilities; one kernel serves every C."""
    from sklearn.metrics.pairwise import euclidean_distances
    from sklearn.svm import SVC

    among = euclidean_distances(rows.X, squared=True)
    between = euclidean_distances(rows.X_test, rows.X, squared=True)
    for group in grouped(settings, "C"):
        setting = settings[group[0]]
        gamma = setting["gamma_factor"] * rows.gamma(setting["gamma"])
        kernel, kernel_test = np.exp(-gamma * among), np.exp(-gamma * between)
        for number in group:
            weights = rows.weights_with(settings[number]["class_weight"])
            svm = SVC(C=settings[number]["C"], kernel="precomputed").fit(kernel, rows.y, sample_weight=weights)
            yield Outcome(number, svm.predict(kernel_test))


def one_by_one(head_type: str, rows: Division, settings: Settings, random_state: int) -> Iterator[Outcome]:
    """Yield the outcomes of heads that share nothing."""
    kind = head_kind(head_type)
    for number, setting in enumerate(settings):
        classifier = make_classifier(head_type, {**setting, "random_state": random_state})
        given = {**given_weights(classifier, rows.weights), **given_groups(classifier, rows.groups)}
        classifier.fit(rows.X, rows.y, **given)
        if kind.task == "regression":
            yield Outcome(number, np.asarray(classifier.predict(rows.X_test), np.float64))
            continue
        found = classifier.predict_proba(rows.X_test)
        classes = classifier.classes_
        yield Outcome(number, classes[found.argmax(axis=1)], probabilities=found, classes=classes)


def logistic_probabilities(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probabilities of a logistic head by its scores; a single column is that of the second of two classes."""
    if scores.shape[1] == 1:
        positive: NDArray[np.float64] = expit(scores)
        return np.hstack([1 - positive, positive])
    found: NDArray[np.float64] = softmax(scores, axis=1)
    return found


def grouped(settings: Settings, along: str) -> Iterator[list[int]]:
    """Yield the places of settings that differ in one parameter only, by that parameter."""

    def others(number: int) -> str:
        return repr(sorted((name, value) for name, value in settings[number].items() if name != along))

    order = sorted(range(len(settings)), key=lambda number: (others(number), settings[number][along]))
    for _, group in groupby(order, key=others):
        yield list(group)
