"""Logistic regression and the linear support vector machine: scikit-learn's objectives, solved in the row space.

With fewer images than features (25,088 of them in a flattened map) that is many times faster,
and gives the same coefficients. The values of C that a search tries are in heads/catalogue.py. Rows
that do not fit in memory are taken block by block.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import validate_data

from headstart.heads.base import Layer, LinearHead, encode, row_weights, softmax_layer, weighted_rows
from headstart.heads.catalogue import MAX_RANK
from headstart.heads.fitting.linear_solvers import (
    Deviance,
    Loss,
    Problem,
    Solution,
    SquaredHinge,
    curvatures,
    finish,
    minimise,
    no_solution,
    slopes,
    softmax,
    solve_alone,
)
from headstart.heads.fitting.row_space import no_space, row_space
from headstart.heads.out_of_core import MAX_PASSES, Rows, of_blocks, solver_bytes, warn_unfinished

#: Largest component of the gradient of the mean loss at which L-BFGS stops on rows taken block by block: that of
#: scikit-learn's ``LogisticRegression``, in scaled coordinates, where it is stricter; in memory, with cheaper steps, 1e-8.
GRADIENT_TOLERANCE = 1e-4

#: Steps after which a linear SVM is solved by Newton's method.
EASY_STEPS = 50


class LinearClassifier(LinearHead):
    """Base class of linear classifiers; ``n_iter_`` is the number of steps of the solver."""

    C: float
    class_weight: Any
    tol: float
    max_iter: int
    reduce: bool = True
    _loss: Callable[..., Loss]

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LinearClassifier:
        """Fit on rows of features, an array or CSR matrix of shape (n_samples, n_features), with labels and weights."""
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=(np.float64, np.float32))
        X, y, weights, _ = weighted_rows(X, y, sample_weight)
        self.classes_, codes = encode(y)
        loss = self._loss(codes, len(self.classes_), row_weights(self.class_weight, y, weights))
        space = row_space(X, centred=not loss.penalised_intercept) if self.reduce else no_space(X)
        solution = self._solve(space.rows, loss)
        self.coef_ = space.to_features(solution.weights)
        self.intercept_ = solution.intercept - self.coef_ @ space.mean
        self.n_iter_ = solution.n_iter
        if not solution.converged:
            warnings.warn(
                f"{type(self).__name__} with C={self.C:g} has not converged in {self.max_iter} steps; its coefficients are "
                "not the best ones yet. Raise max_iter, lower C, or scale the features (sqrt-l2, l2 or standard).",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _solve(self, rows: Any, loss: Any) -> Solution:
        return solve_alone(rows, loss, self.C, tol=self.tol, max_iter=self.max_iter)


class LogisticHead(LinearClassifier):
    """Multinomial logistic regression with an L2 penalty: the objective and coefficients of ``LogisticRegression``.

    Parameters
    ----------
    C : float
        Inverse strength of regularisation.
    class_weight : None, "balanced" or mapping
        As in scikit-learn.
    tol : float
        Largest component of the gradient of the mean loss at which to stop, in coordinates where its Hessian has about
        ones on the diagonal.
    max_iter : int
        Steps of the solver at most.
    """

    _loss = Deviance

    def __init__(self, C: float = 10.0, *, class_weight: Any = None, tol: float = 1e-8, max_iter: int = 2000) -> None:
        self.C = C
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter

    def fit_rows(self, rows: Rows, y: NDArray[Any], sample_weight: Any = None) -> LogisticHead:
        """Fit on scaled rows that are taken block by block: the same objective, to ``GRADIENT_TOLERANCE``."""
        self.classes_, codes = encode(y)
        self.n_features_in_ = rows.shape[1]
        loss = Deviance(codes, len(self.classes_), row_weights(self.class_weight, y, sample_weight))
        solution = solve_by_blocks(rows, loss, self.C, self.max_iter)
        self.coef_, self.intercept_ = np.ascontiguousarray(solution.weights.T), solution.intercept
        self.n_iter_ = solution.n_iter
        return self

    def streaming_bytes(self, n_features: int, n_classes: int) -> int:
        """Return the memory that :meth:`fit_rows` needs beside the rows of a block, bytes."""
        return solver_bytes(30, n_features, 1 if n_classes == 2 else n_classes)  # steps and gradients of L-BFGS

    def to_layers(self) -> tuple[Layer, ...]:
        """Return the one layer that gives ``predict_proba``."""
        return (softmax_layer(self.coef_, self.intercept_),)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return probabilities of shape (n_samples, n_classes), float64, in the order of ``classes_``."""
        scores = self._scores(X)
        return softmax(np.hstack([np.zeros_like(scores), scores]) if scores.shape[1] == 1 else scores)


class LinearSVM(LinearClassifier):
    """One-vs-rest linear SVM with the squared hinge: the objective of ``LinearSVC``, which penalises the intercept too.

    Parameters are those of :class:`LogisticHead`; without ``reduce``, rows are in the coordinates of their space already.
    """

    _loss = SquaredHinge.of_classes

    def __init__(
        self,
        C: float = 1.0,
        *,
        class_weight: Any = None,
        tol: float = 1e-8,
        max_iter: int = 10_000,
        reduce: bool = True,
    ) -> None:
        self.C = C
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.reduce = reduce

    def _solve(self, rows: Any, loss: Any) -> Solution:
        """Solve step by step, and exactly where steps get nowhere: margins of few rows make the objective hard to walk."""
        steps = min(self.max_iter, EASY_STEPS)
        if sparse.issparse(rows) or min(rows.shape) > MAX_RANK:
            steps = self.max_iter  # too large for systems of equations
        solution = solve_alone(rows, loss, self.C, tol=self.tol, max_iter=steps)
        return solution if solution.converged or steps == self.max_iter else finish(rows, loss, self.C, solution)


class StreamedProblem(Problem):
    """The objective of a linear head; value and gradient are added up block by block, in float64."""

    def curvatures(self, start: Solution) -> NDArray[np.float64]:
        """Return the second derivative of the loss by each weight and intercept."""
        total = np.zeros(self.shape)
        for part in of_blocks(lambda numbers, block: curvatures(block, self.loss.take(numbers), start), self.rows):
            total += part
        return total

    def slopes(self, all_weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the loss, and its derivative by each weight and intercept."""
        value, gradient = 0.0, np.zeros(self.shape)
        for part, slope in of_blocks(
            lambda numbers, block: slopes(block, self.loss.take(numbers), all_weights), self.rows
        ):
            value += part
            gradient += slope
        return value, gradient


def solve_by_blocks(rows: Rows, loss: Loss, C: float, max_iter: int) -> Solution:
    """Return the minimum of ``C · loss + ½ ‖weights‖²`` by L-BFGS, to ``GRADIENT_TOLERANCE`` or ``MAX_PASSES``."""
    start = no_solution(rows.shape[1], loss.n_outputs)
    problem, max_iter = StreamedProblem(rows, loss, C, start), min(max_iter, MAX_PASSES)
    found = minimise(problem, problem.join(start.weights, start.intercept), tol=GRADIENT_TOLERANCE, max_iter=max_iter)
    if not found.converged:
        warn_unfinished(f"logistic with C={C:g}", max_iter, "Lower C")
    return Solution(C, *problem.split(found.x), found.n_iter, found.converged)
