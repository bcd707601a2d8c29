"""Support vector machines with probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import cross_val_predict
from sklearn.svm import SVC
from sklearn.utils.validation import check_is_fitted, validate_data

from headstart.errors import DataError
from headstart.heads.base import (
    Head,
    Layer,
    calibrated_layer,
    encode,
    fit_temperature,
    groups_per_class,
    row_weights,
    softmax_layer,
    stratified_folds,
    weighted_rows,
)
from headstart.heads.fitting.row_space import row_space
from headstart.heads.linear import LinearSVM

#: Tolerance of the linear SVM's solver: coefficients within about 0.2 % of the largest of the exact ones, nearer than
#: ``LinearSVC`` comes by default.
SVM_TOL = 1e-6

#: Size of libsvm's kernel cache.
KERNEL_CACHE_MB = 500.0


class CalibratedSVM(Head):
    """An SVM whose decisions become probabilities by a calibration that cross-validation fits.

    With two classes, by a sigmoid: Platt, "Probabilistic outputs for support vector machines", 1999, by scikit-learn's
    ``CalibratedClassifierCV``. With more, by one temperature (heads/base.py): a sigmoid for each class against the rest,
    scaled to add up to 1, is much too unsure (docs/heads.md). Not ``SVC(probability=True)``, which is slower and does not
    agree with ``predict``.

    Attributes
    ----------
    calibrated_ : CalibratedClassifierCV
        With two classes: the fitted SVM with its sigmoid.
    svm_, temperature_ : estimator, float
        With more than two classes: the fitted SVM, and the divisor of its decisions before the softmax.
    n_iter_ : int
        Iterations of its solver.
    """

    _sparse = True

    cv: int
    class_weight: Any
    random_state: Any

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> CalibratedSVM:
        """Fit on rows of features, an array or CSR matrix of shape (n_samples, n_features), with labels and weights.

        Rows of one group (of ``groups``, shape (n_samples,)), as crops of an image, are in one fold of the calibration.
        Raises DataError if a class has a single row or group: the probabilities come from cross-validation.
        """
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=np.float64)
        X, y, counts, groups = weighted_rows(X, y, sample_weight, groups)
        self.classes_, codes = encode(y)
        n_groups = groups_per_class(codes, groups)
        if n_groups.min() < 2:
            rare = self.classes_[n_groups.argmin()]
            raise DataError(
                f"Calibration needs at least two images of each class. Received: n_samples=1 of class {rare!r}. "
                "Use logistic, or leave the class out."
            )
        folds = stratified_folds(codes, self.cv, seed=self.random_state, groups=groups)
        # The probabilities are weighted as the SVM is: unweighted, they would undo what class_weight does.
        unweighted = self.class_weight is None and counts is None
        weights = None if unweighted else row_weights(self.class_weight, y, counts)
        for name in ("calibrated_", "svm_", "temperature_"):  # of an earlier fit, to another number of classes
            self.__dict__.pop(name, None)
        self.n_iter_ = int(np.max(self._calibrate(X, y, folds, weights, counts).n_iter_))
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return probabilities of shape (n_samples, n_classes), float64, in the order of ``classes_``."""
        check_is_fitted(self, "classes_")
        X = validate_data(self, X, accept_sparse="csr", dtype=np.float64, reset=False)
        probabilities: NDArray[np.float64]
        if hasattr(self, "temperature_"):
            probabilities = softmax(self.svm_.decision_function(X) / self.temperature_, axis=1)
        else:  # two classes, or a head that was saved when every number of them had sigmoids
            probabilities = self.calibrated_.predict_proba(X)
        return probabilities

    def _calibrate(self, X: Any, y: Any, folds: Any, weights: Any, counts: Any) -> Any:
        """Fit the SVM, and what its decisions become probabilities by; return the former.

        ``weights`` are those of the rows in the loss, ``counts`` those without the weights of the classes; None for ones.
        """
        if len(self.classes_) == 2:
            calibrated = CalibratedClassifierCV(self._svm(), ensemble=False, cv=folds).fit(X, y, weights)
            self.calibrated_ = calibrated.set_params(cv=len(folds))  # not the numbers of the rows
            return self.calibrated_.calibrated_classifiers_[0].estimator
        given = {} if weights is None else {"sample_weight": weights}
        scores = cross_val_predict(self._svm(), X, y, cv=folds, method="decision_function", params=given)
        self.temperature_ = fit_temperature(scores, np.searchsorted(self.classes_, y), weights, counts)
        self.svm_ = self._svm().fit(X, y, **given)
        return self.svm_

    def _svm(self) -> Any:
        raise TypeError(f"{type(self).__name__} is no SVM of its own; use LinearSVMHead or RBFSVMHead.")


class LinearSVMHead(CalibratedSVM):
    """A linear SVM with the squared hinge, one against the rest as ``LinearSVC``, with probabilities.

    Parameters
    ----------
    C : float
        Inverse strength of regularisation.
    class_weight : None, "balanced" or mapping
        As in scikit-learn.
    cv : int
        Folds of the calibration; fewer where a class has fewer rows.
    max_iter : int
        Steps of the solver at most.
    random_state : int, RandomState or None
        Seeds the folds.
    """

    def __init__(
        self, C: float = 1.0, *, class_weight: Any = None, cv: int = 5, max_iter: int = 10_000, random_state: Any = None
    ) -> None:
        self.C = C
        self.class_weight = class_weight
        self.cv = cv
        self.max_iter = max_iter
        self.random_state = random_state

    def to_layers(self) -> tuple[Layer, ...]:
        """Return the one layer that gives ``predict_proba``."""
        check_is_fitted(self, "classes_")
        if hasattr(self, "temperature_"):
            factor = 1.0 / self.temperature_
            return (softmax_layer(factor * self.svm_.coef_, factor * self.svm_.intercept_),)
        return (calibrated_layer(self.calibrated_.calibrated_classifiers_[0]),)

    def _calibrate(self, X: Any, y: Any, folds: Any, weights: Any, counts: Any) -> Any:
        space = row_space(X, centred=False)  # one for the SVM and all folds of its calibration
        svm = super()._calibrate(space.rows, y, folds, weights, counts)
        svm.coef_, svm.n_features_in_ = space.to_features(svm.coef_.T), X.shape[1]
        if len(self.classes_) == 2:
            self.calibrated_.n_features_in_ = X.shape[1]
        return svm

    def _svm(self) -> LinearSVM:
        return LinearSVM(C=self.C, tol=SVM_TOL, max_iter=self.max_iter, reduce=False)


class RBFSVMHead(CalibratedSVM):
    """An SVM with the radial basis function kernel (libsvm), with probabilities.

    Parameters
    ----------
    C, class_weight, cv, random_state
        As of :class:`LinearSVMHead`.
    gamma : "scale", "auto" or float
        Width of the kernel, as in ``sklearn.svm.SVC``.
    gamma_factor : float
        Factor of ``gamma``: with it, one grid serves every scaling and number of features.
    """

    def __init__(
        self,
        C: float = 10.0,
        *,
        gamma: str | float = "scale",
        gamma_factor: float = 1.0,
        class_weight: Any = None,
        cv: int = 5,
        random_state: Any = None,
    ) -> None:
        self.C = C
        self.gamma = gamma
        self.gamma_factor = gamma_factor
        self.class_weight = class_weight
        self.cv = cv
        self.random_state = random_state

    def _calibrate(self, X: Any, y: Any, folds: Any, weights: Any, counts: Any) -> Any:
        is_plain = self.gamma_factor == 1 and counts is None
        self.gamma_ = self.gamma if is_plain else self.gamma_factor * numeric_gamma(self.gamma, X, counts)
        return super()._calibrate(X, y, folds, weights, counts)

    def _svm(self) -> SVC:
        return SVC(C=self.C, gamma=self.gamma_, cache_size=KERNEL_CACHE_MB)


def numeric_gamma(gamma: str | float, X: Any, counts: NDArray[np.float64] | None = None) -> float:
    """Return the number that ``sklearn.svm.SVC`` takes ``scale`` or ``auto`` for on these rows; a number is itself.

    A row of ``counts`` n counts as n rows in the variance, by default 1; shape (n_samples,).
    """
    if not isinstance(gamma, str):
        return float(gamma)
    variance = 1.0
    if gamma == "scale":
        squares = X.multiply(X) if sparse.issparse(X) else X**2
        square, mean = (
            values.mean() if counts is None else np.average(np.asarray(values.mean(axis=1)).ravel(), weights=counts)
            for values in (squares, X)
        )
        variance = float(square - mean**2) or 1.0
    return float(1.0 / (X.shape[1] * variance))
