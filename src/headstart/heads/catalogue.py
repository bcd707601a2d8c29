"""The catalogue of heads: default features and parameters of each.

Importing this module imports neither scikit-learn nor Keras; making a head does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headstart.errors import HeadstartError, ParameterError
from headstart.heads.by_import_path import check_path, is_path, make_by_path
from headstart.heads.parameters import (
    COUNT,
    DENSE,
    FOLDS,
    FRACTION,
    GAMMA,
    METRIC,
    POSITIVE,
    SCALINGS,
    TUTORIAL,
    WEIGHTED,
    HeadType,
    Parameter,
    check_values,
    count_views,
    is_count,
)
from headstart.types import HeadSpec

#: Eight decades: from nearly the class shares alone to nearly no penalty, on rows of length 1.
DECADES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0)

CALIBRATION = Parameter(5, FOLDS, "Number of calibration folds; fewer where a class has fewer images.")

HEAD_TYPES: dict[str, HeadType] = {
    "dense": DENSE,
    "logistic": HeadType(
        ("avg",),
        "sqrt-l2",
        {
            "C": Parameter(10.0, POSITIVE, "Inverse strength of regularisation."),
            "class_weight": WEIGHTED,
            "max_iter": Parameter(2000, COUNT, "Maximum number of solver steps."),
        },
        {"C": DECADES},
    ),
    "linear-svm": HeadType(
        ("avg",),
        "sqrt-l2",
        {
            "C": Parameter(1.0, POSITIVE, "Inverse strength of regularisation."),
            "class_weight": WEIGHTED,
            "cv": CALIBRATION,
            "max_iter": Parameter(10_000, COUNT, "Maximum number of solver steps."),
        },
        {"C": DECADES},
    ),
    "rbf-svm": HeadType(
        ("avg",),
        "sqrt-l2",
        {
            "C": Parameter(10.0, POSITIVE, "Inverse strength of regularisation."),
            "gamma": Parameter("scale", GAMMA, "Kernel coefficient, as in sklearn.svm.SVC."),
            "gamma_factor": Parameter(1.0, POSITIVE, "Factor that gamma is multiplied by."),
            "class_weight": WEIGHTED,
            "cv": CALIBRATION,
        },
        {"C": (1.0, 10.0, 100.0, 1000.0), "gamma_factor": (0.1, 0.3, 1.0, 3.0)},
    ),
    "ridge": HeadType(
        ("avg",),
        "sqrt-l2",
        {
            "alpha": Parameter(1.0, POSITIVE, "Strength of the L2 penalty."),
            "class_weight": WEIGHTED,
        },
        {"alpha": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)},
    ),
    "knn": HeadType(
        ("avg",),
        "sqrt-l2",
        {
            "n_neighbors": Parameter(10, COUNT, "Number of neighbors."),
            "metric": Parameter("cosine", METRIC, "Distance between rows of features."),
            "smoothing": Parameter(0.1, POSITIVE, "Pseudo-count of images that keeps every probability above 0."),
            "class_weight": WEIGHTED,
        },
        {"n_neighbors": (1, 3, 5, 10, 20, 40)},
    ),
    "nearest-class-mean": HeadType(
        ("avg",),
        "sqrt-l2",
        {"shrinkage": Parameter(0.5, FRACTION, "Weight of the mean variance in that of each feature; 1: Euclidean.")},
        {"shrinkage": (0.03, 0.1, 0.3, 0.5, 0.8, 1.0)},
    ),
}

#: A classifier that is named by its import path; its class defines the parameters.
BY_PATH = HeadType(("avg",), "sqrt-l2", {})

#: Heads with nothing random in them.
DETERMINISTIC = ("ridge", "knn", "nearest-class-mean")

#: scikit-learn takes seeds of 32 bits.
MAX_SEED = 2**32 - 1


def default_spec(
    head_type: str,
    *,
    features: Sequence[str] | None = None,
    scaling: str | None = None,
    random_state: int = 0,
    params: Mapping[str, Any] | None = None,
) -> HeadSpec:
    """Return the spec of a head, the catalogue's defaults where nothing is given.

    ``head_type`` is a name of the catalogue, or the import path of a scikit-learn classifier, whose module is imported.

    Raises
    ------
    HeadstartError
        If there is no such head, or it takes no such parameter, value, scaling or seed.
    """
    kind = head_kind(head_type, scaling)
    spec = HeadSpec(
        head_type, tuple(features or kind.features), scaling or kind.scaling, random_state, dict(params or {})
    )
    check_spec(spec)
    if is_path(head_type):
        make_by_path(head_type, spec.params, random_state)  # before the features are read, not after it
    return spec


def head_kind(head_type: str, scaling: str | None = None) -> HeadType:
    """Return a kind of head by its name, with the defaults that it has on features of this scaling.

    Those of a dense head on features that are not scaled are the Keras tutorials', which train it on raw maps.
    """
    if is_path(head_type):
        return BY_PATH
    if head_type not in HEAD_TYPES:
        raise HeadstartError(
            f"There is no head {head_type!r}. Expected one of: {', '.join(HEAD_TYPES)}; or the import path of a scikit-learn "
            "classifier, e.g. sklearn.naive_bayes.GaussianNB."
        )
    return TUTORIAL if head_type == "dense" and scaling == "none" else HEAD_TYPES[head_type]


def check_spec(spec: HeadSpec) -> None:
    """Check that a head can be made of a spec; its features are checked where the recipe is known.

    Raises
    ------
    HeadstartError
        If it names something that does not exist, or a parameter has a value that it cannot have.
    """
    if is_path(spec.type):
        check_path(spec.type, spec.params)
    else:
        check_values(spec.type, spec.params, head_kind(spec.type).params)
    if spec.scaling not in SCALINGS:
        raise ParameterError(f"Unknown scaling {spec.scaling!r}. Expected one of: {', '.join(SCALINGS)}.")
    if not is_count(spec.random_state, 0) or spec.random_state > MAX_SEED:
        raise ParameterError(f"A seed is a whole number from 0 to {MAX_SEED}. Received: {spec.random_state!r}.")


def make_head(spec: HeadSpec) -> Any:
    """Return an unfitted scikit-learn ``Pipeline`` of scaling and classifier.

    Raises
    ------
    HeadstartError
        If the spec names something that does not exist, or a parameter has a value that it cannot have.
    """
    check_spec(spec)
    from sklearn.pipeline import Pipeline

    from headstart.heads.transforms import make_scaler

    params = {**full_params(spec.type, spec.features, spec.scaling, spec.params), "random_state": spec.random_state}
    return Pipeline([("scale", make_scaler(spec.scaling)), ("classifier", make_classifier(spec.type, params))])


def full_params(head_type: str, features: Sequence[str], scaling: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return every parameter of a head: what is given, else the default that it has on such features."""
    defaults = {name: parameter.default for name, parameter in head_kind(head_type, scaling).params.items()}
    if "views" in defaults:
        defaults["views"] = count_views(features)
    return {**defaults, **params}


def make_classifier(head_type: str, params: Mapping[str, Any]) -> Any:
    """Return an unfitted classifier; only what it needs is imported."""
    if is_path(head_type):
        return make_by_path(head_type, {k: v for k, v in params.items() if k != "random_state"}, params["random_state"])
    if head_type == "dense":
        from headstart.heads.dense import DenseHead

        return DenseHead(**{**params, "hidden": tuple(params["hidden"])})
    if head_type == "logistic":
        from headstart.heads.linear import LogisticHead

        return LogisticHead(**params)
    if head_type in DETERMINISTIC:
        return make_deterministic(head_type, {name: value for name, value in params.items() if name != "random_state"})
    from headstart.heads.svm import LinearSVMHead, RBFSVMHead

    return {"linear-svm": LinearSVMHead, "rbf-svm": RBFSVMHead}[head_type](**params)


def make_deterministic(head_type: str, params: Mapping[str, Any]) -> Any:
    """Return an unfitted classifier that takes no seed."""
    if head_type == "ridge":
        from headstart.heads.ridge import RidgeHead

        return RidgeHead(**params)
    if head_type == "knn":
        from headstart.heads.neighbours import NeighboursHead

        return NeighboursHead(**params)
    from headstart.heads.class_mean import ClassMeanHead

    return ClassMeanHead(**params)
