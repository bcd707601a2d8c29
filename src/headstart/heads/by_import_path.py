"""Any scikit-learn classifier by its import path; importing this module imports neither it nor scikit-learn."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Mapping
from typing import Any

from headstart.errors import DataError, ParameterError
from headstart.texts import did_you_mean

#: Folds of the calibration of a classifier that has no probabilities of its own.
CALIBRATION_FOLDS = 5


def is_path(head_type: str) -> bool:
    """Return whether a type of head is an import path, e.g. ``sklearn.naive_bayes.GaussianNB``."""
    return "." in head_type


def is_scikit_learn(path: str) -> bool:
    """Return whether a path leads into scikit-learn; classes of other packages are never loaded from a file."""
    return path.startswith("sklearn.")


def check_path(path: str, params: Mapping[str, Any]) -> None:
    """Check what can be checked of a path and its parameters without importing anything; raise ParameterError."""
    if not all(part.isidentifier() for part in path.split(".")):
        raise ParameterError(
            f"{path!r} is not an import path of a classifier. Expected e.g. sklearn.naive_bayes.GaussianNB."
        )
    for name, value in params.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ParameterError(
                f"{name} of {path} cannot be {value!r}. Expected: a number, word, true, false, or a list or table of them."
            ) from error


def make_by_path(path: str, params: Mapping[str, Any], random_state: int) -> Any:
    """Return an unfitted classifier with probabilities: its own, or a sigmoid's that cross-validation fits.

    The sigmoid is Platt's, as for the SVMs of the catalogue, with one classifier on all rows. Raises ParameterError if
    the path leads to no classifier of scikit-learn's kind, or it takes no such parameter or value.
    """
    check_path(path, params)
    classifier = instance(classifier_class(path), path, {**params}, random_state)
    if hasattr(classifier, "predict_proba"):
        return classifier
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(CALIBRATION_FOLDS, shuffle=True, random_state=random_state)
    return CalibratedClassifierCV(classifier, ensemble=False, cv=folds)


def imported(path: str) -> Any:
    """Return the object that an import path names."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def classifier_class(path: str) -> Any:
    """Return the class that a path leads to; raise ParameterError if it is no classifier of scikit-learn's kind."""
    from sklearn.base import BaseEstimator, ClassifierMixin

    try:
        found = imported(path)
    except (ImportError, AttributeError) as error:
        raise ParameterError(f"There is no classifier {path}: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, BaseEstimator) and issubclass(found, ClassifierMixin)):
        raise ParameterError(
            f"{path} is no classifier. Expected: a class that is a scikit-learn BaseEstimator and ClassifierMixin."
        )
    return found


def instance(kind: Any, path: str, params: dict[str, Any], random_state: int) -> Any:
    """Return an unfitted classifier, seeded where it takes a seed, its parameters checked by itself."""
    taken = sorted(kind._get_param_names())
    unknown = sorted(set(params) - set(taken))
    if unknown:
        raise ParameterError(
            f"{path} takes no {', '.join(unknown)}. It takes: {', '.join(taken) or 'nothing'}."
            f"{did_you_mean(unknown, taken)}"
        )
    if "random_state" in taken:
        params = {"random_state": random_state, **params}
    try:
        classifier = kind(**params)
        if hasattr(kind, "_parameter_constraints"):
            classifier._validate_params()
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{path} cannot be made of these parameters: {error}") from error
    return classifier


def fit_with_checks(head: Any, head_type: str, X: Any, y: Any) -> Any:
    """Return a fitted head.

    Raises DataError if a classifier by path cannot be fitted on these rows, or its probabilities are not finite.
    """
    if not is_path(head_type):
        return head.fit(X, y)
    try:
        head.fit(X, y)
        finite = all(math.isfinite(value) for value in head.predict_proba(X[:1]).ravel())
    except ValueError as error:
        raise DataError(f"{head_type} cannot be fitted on these features: {error}") from error
    if not finite:
        raise DataError(
            f"{head_type} gives no probabilities on these features (NaN). Try other features or parameters."
        )
    return head
