"""What describes a head: its parameters and their allowed values, the import path of a scikit-learn classifier, a TOML file.

Importing this module imports neither scikit-learn nor a classifier.
"""

from __future__ import annotations

import importlib
import json
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from headstart.errors import DataError, ParameterError
from headstart.texts import did_you_mean
from headstart.types import ENSEMBLE

#: Activations of hidden layers, as Keras names them.
ACTIVATIONS = ("relu", "gelu", "silu", "elu", "selu", "tanh")

#: How a learning rate changes during training.
SCHEDULES = ("constant", "linear", "cosine")

#: Distances between rows of features, as scikit-learn names them.
METRICS = ("cosine", "euclidean")


@dataclass(frozen=True, slots=True)
class Kind:
    """The values that a parameter takes: a description, and a function that tests one."""

    words: str
    accepts: Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a head."""

    default: Any  # value unless it is set
    kind: Kind  # allowed values
    help: str  # one line for the user


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: Any, least: int = 1) -> bool:
    """Return whether a value is a whole number, ``least`` or more."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def are_units(value: Any) -> bool:
    """Return whether a value is a list of units of layers."""
    return isinstance(value, Sequence) and not isinstance(value, str) and all(is_count(unit) for unit in value)


def are_members(value: Any) -> bool:
    """Return whether a value is a list of members of an ensemble, as far as their form goes."""
    return isinstance(value, Sequence) and not isinstance(value, str) and all(map(is_member, value))


def is_member(value: Any) -> bool:
    """Return whether a value has the form of a member of an ensemble."""
    if not isinstance(value, Mapping) or not isinstance(value.get("type"), str) or set(value) - set(MEMBER_KEYS):
        return False
    if not all(isinstance(value[name], kind) for name, kind in MEMBER_KEYS.items() if name in value):
        return False
    words = all(isinstance(name, str) for name in value.get("features", ()))
    return words and all(
        isinstance(part, Sequence) and len(part) == 2 and all(is_count(end, 0) for end in part) and part[0] < part[1]
        for part in value.get("columns", ())
    )


#: Keys of a member of an ensemble, and what each must be.
MEMBER_KEYS: dict[str, Any] = {
    "type": str,
    "features": (list, tuple),
    "scaling": str,
    "random_state": int,
    "params": Mapping,
    "widths": (list, tuple),
    "columns": (list, tuple),
}

COUNT = Kind("a whole number, 1 or more", is_count)
FOLDS = Kind("a whole number, 2 or more", lambda value: is_count(value, 2))
FOLDS_OR_NONE = Kind(
    "0, or a whole number, 2 or more", lambda value: is_count(value, 2) or (is_count(value, 0) and value == 0)
)
POSITIVE = Kind("a number above 0", lambda value: is_number(value) and value > 0)
NOT_NEGATIVE = Kind("a number, 0 or more", lambda value: is_number(value) and value >= 0)
RATE = Kind("a number from 0 to below 1", lambda value: is_number(value) and 0 <= value < 1)
SHARE = Kind("a number between 0 and 1", lambda value: is_number(value) and 0 < value < 1)
FRACTION = Kind("a number above 0, 1 at most", lambda value: is_number(value) and 0 < value <= 1)
METRIC = Kind(f"one of {', '.join(METRICS)}", lambda value: value in METRICS)
SWITCH = Kind("true or false", lambda value: isinstance(value, bool))
UNITS = Kind("whole numbers, 1 or more each; none for no hidden layer", are_units)
MEMBERS = Kind("a list of tables with type, features, scaling, random_state, params, widths and columns", are_members)
ACTIVATION = Kind(f"one of {', '.join(ACTIVATIONS)}", lambda value: value in ACTIVATIONS)
SCHEDULE = Kind(f"one of {', '.join(SCHEDULES)}", lambda value: value in SCHEDULES)
GAMMA = Kind("scale, auto, or a number above 0", lambda value: value in ("scale", "auto") or POSITIVE.accepts(value))
CLASS_WEIGHT = Kind(
    "nothing, balanced, or a weight for each class",
    lambda value: value is None or value == "balanced" or isinstance(value, Mapping),
)


def check_values(head_type: str, values: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> None:
    """Raise ParameterError if a head has no such parameter, or it cannot have such a value."""
    unknown = sorted(set(values) - set(parameters))
    if unknown:
        article = "An" if head_type == ENSEMBLE else "A"
        raise ParameterError(
            f"{article} {head_type} head takes no {', '.join(unknown)}. It takes: {', '.join(parameters)}."
            f"{did_you_mean(unknown, parameters)}"
        )
    for name, value in values.items():
        if not parameters[name].kind.accepts(value):
            raise ParameterError(
                f"{name} of a {head_type} head cannot be {value!r}. Expected: {parameters[name].kind.words}."
            )


#: Keys of the file, and what each must be.
KEYS: dict[str, tuple[type, str]] = {
    "type": (str, "a name of the catalogue, or an import path, e.g. sklearn.naive_bayes.GaussianNB"),
    "features": (list, "a list of names"),
    "scaling": (str, "a name"),
    "random_state": (int, "a whole number"),
    "params": (dict, "a table"),
}


def read_config(path: str | Path) -> dict[str, Any]:
    """Return the values of a config file, as keyword arguments of :func:`headstart.heads.catalogue.default_spec`.

    Raises ParameterError if it cannot be read, is not TOML, names no type, or has an unknown key.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ParameterError(f"{path} cannot be read as TOML: {error}") from error
    unknown = sorted(set(values) - set(KEYS))
    if unknown:
        raise ParameterError(
            f"Unknown keys in {path}: {', '.join(unknown)}. Expected: {', '.join(KEYS)}.{did_you_mean(unknown, KEYS)}"
        )
    if "type" not in values:
        raise ParameterError(f'{path} does not say which head to fit. Expected a line like: type = "ridge".')
    for name, value in values.items():
        kind, words = KEYS[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ParameterError(f"{name} in {path} cannot be {value!r}. Expected: {words}.")
    if not all(isinstance(feature, str) for feature in values.get("features", ())):
        raise ParameterError(f"features in {path} cannot be {values['features']!r}. Expected: a list of names.")
    return {"head_type": values.pop("type"), **values}


#: Poolings of the stored layer.
POOLINGS = ("flatten", "avg", "max", "gem", "crops")

#: Averages in ``crops``, side by side: one of the whole map and one of each of its four corners.
N_CROPS = 5

#: Exponent of ``gem``; 1 would be ``avg``, infinity ``max``. The fixed value of Radenović, Tolias & Chum, "Fine-tuning CNN
#: image retrieval with no human annotation", PAMI 2018.
GEM_POWER = 3.0

#: Scalings of a row of features.
SCALINGS = ("sqrt-l2", "l2", "standard", "none")


def count_views(features: Sequence[str]) -> int:
    """Return the number of views of the image in one row of features, stored side by side with equal widths."""
    return N_CROPS if tuple(features) == ("crops",) else 1


#: Separates the number of a cache of a join, from 1, from the name of one of its features.
OF_CACHE = ":"


def numbered(features: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return the features of each cache of a join as names with the number of the cache, e.g. ``2:avg``."""
    return tuple(f"{number}{OF_CACHE}{name}" for number, names in enumerate(features, 1) for name in names)


def by_cache(features: Sequence[str], n_caches: int) -> tuple[tuple[str, ...], ...]:
    """Return the features of each cache of a join; a name without a number is one of every cache.

    Raises ParameterError if there is no cache of a number, or no feature of a cache.
    """
    found: list[list[str]] = [[] for _ in range(n_caches)]
    for feature in features:
        number, colon, name = feature.partition(OF_CACHE)
        if colon and not (number.isdecimal() and 1 <= int(number) <= n_caches):
            raise ParameterError(
                f"There is no cache of the feature {feature!r}. Expected: a number from 1 to {n_caches} before the colon, "
                f"e.g. 1{OF_CACHE}avg, or a name alone for every cache."
            )
        for names in found[int(number) - 1 : int(number)] if colon else found:
            names.append(name if colon else feature)
    missing = [str(number) for number, names in enumerate(found, 1) if not names]
    if missing:
        raise ParameterError(
            f"The features {', '.join(features)} have none of cache {', '.join(missing)}. Expected: at least one of each of "
            f"the {n_caches} caches; leave out a cache that is not needed."
        )
    return tuple(map(tuple, found))


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


def takes_weights(estimator: Any) -> bool:
    """Return whether the fit of a classifier or scaler takes weights of the rows."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.utils.validation import has_fit_parameter

    fitted = estimator.estimator if isinstance(estimator, CalibratedClassifierCV) else estimator
    return bool(has_fit_parameter(fitted, "sample_weight"))


def given_weights(estimator: Any, weights: Any) -> dict[str, Any]:
    """Return the arguments by which an estimator's fit takes the weights of the rows; none if it takes none."""
    return {} if weights is None or not takes_weights(estimator) else {"sample_weight": weights}


def given_groups(estimator: Any, groups: Any) -> dict[str, Any]:
    """Return the arguments by which a classifier's fit takes groups of rows; none if it takes none."""
    from sklearn.utils.validation import has_fit_parameter

    return {"groups": groups} if groups is not None and has_fit_parameter(estimator, "groups") else {}


def fit_weighted(head: Any, X: Any, y: Any, weights: Any = None, groups: Any = None) -> Any:
    """Return a pipeline fitted on rows with weights, shape (n_samples,), by default 1; rows of weight 0 are left out.

    A head that leaves out rows of its fit leaves out all of a group (of ``groups``, shape (n_samples,)) together. A scaler or
    classifier that takes no weights is fitted on the other rows as if all weighed the same.
    """
    if weights is not None and not (used := weights > 0).all():
        X, y, weights, groups = X[used], y[used], weights[used], None if groups is None else groups[used]
    steps = [(name, given_weights(step, weights)) for name, step in head.steps]
    steps.append((head.steps[-1][0], given_groups(head[-1], groups)))
    return head.fit(X, y, **{f"{name}__{key}": value for name, given in steps for key, value in given.items()})


def unweighted_notes(head: Any, head_type: str, weights: Any) -> list[str]:
    """Return the sentence that a head takes no weights, if there are any and it does not."""
    if weights is None or takes_weights(head[-1]) or all(weight in (0, 1) for weight in weights):
        return []
    return [
        f"{head_type} takes no weights: every image it is fitted on counts the same, and those of weight 0 not at all."
    ]


def fit_with_checks(head: Any, head_type: str, X: Any, y: Any, weights: Any = None, groups: Any = None) -> Any:
    """Return a head fitted by :func:`fit_weighted`.

    Raises DataError if a classifier by path cannot be fitted on these rows, or its probabilities are not finite.
    """
    if not is_path(head_type):
        return fit_weighted(head, X, y, weights, groups)
    try:
        fit_weighted(head, X, y, weights, groups)
        finite = all(math.isfinite(value) for value in head.predict_proba(X[:1]).ravel())
    except ValueError as error:
        raise DataError(f"{head_type} cannot be fitted on these features: {error}") from error
    if not finite:
        raise DataError(
            f"{head_type} gives no probabilities on these features (NaN). Try other features or parameters."
        )
    return head
