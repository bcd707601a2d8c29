"""The catalogue of heads: one entry says everything about each.

Importing this module imports neither scikit-learn nor Keras; making a head does.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from headstart.errors import DataError, HeadstartError, ParameterError
from headstart.heads.entries.head_entry import HeadType
from headstart.heads.entries.regression_entries import ANOMALY_TYPES, ORDER_TYPES, REGRESSION_TYPES
from headstart.heads.head_specs import (
    ACTIVATION,
    CLASS_WEIGHT,
    COUNT,
    FOLDS,
    FOLDS_OR_NONE,
    FRACTION,
    GAMMA,
    MEMBERS,
    METRIC,
    NOT_NEGATIVE,
    POSITIVE,
    RATE,
    SCALINGS,
    SCHEDULE,
    SHARE,
    SWITCH,
    UNITS,
    Parameter,
    check_path,
    check_values,
    count_views,
    imported,
    is_count,
    is_path,
    make_by_path,
)
from headstart.types import ENSEMBLE, HeadSpec

#: Eight decades: from nearly the class shares alone to nearly no penalty, on rows of length 1.
DECADES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0)

#: Up to this many rows or columns, linear heads are solved in the row space (heads/fitting/row_space.py); above it, the
#: decomposition (time ∝ n³) costs more than it saves.
MAX_RANK = 4096

CALIBRATION = Parameter(5, FOLDS, "Number of calibration folds; fewer where a class has fewer images.")
CLASS_WEIGHTS = Parameter(
    None, CLASS_WEIGHT, "Weight of each class; balanced: inversely proportional to its number of images."
)
INVERSE_PENALTY = "Inverse strength of regularisation."


def _dense(
    *, epochs: int, learning_rate: float, schedule: str, grid: Mapping[str, Sequence[Any]], **options: Any
) -> HeadType:
    return HeadType(
        estimator="headstart.heads.dense.DenseHead",
        params={
            "hidden": Parameter((256,), UNITS, "Units of the hidden layers."),
            "activation": Parameter("relu", ACTIVATION, "Activation of the hidden layers."),
            "dropout": Parameter(0.0, RATE, "Fraction of hidden units dropped in each step."),
            "epochs": Parameter(epochs, COUNT, "Passes over the data."),
            "batch_size": Parameter(32, COUNT, "Images per step."),
            "learning_rate": Parameter(learning_rate, POSITIVE, "Learning rate of Adam."),
            "schedule": Parameter(schedule, SCHEDULE, "Learning rate over the epochs: constant, or falling to 0."),
            "l2": Parameter(0.0, NOT_NEGATIVE, "L2 penalty on the kernels."),
            "early_stopping": Parameter(False, SWITCH, "Stop when the loss on held-out images no longer falls."),
            "validation_fraction": Parameter(
                0.1, SHARE, "Fraction of the training images held out for early stopping."
            ),
            "patience": Parameter(5, COUNT, "Epochs without a lower held-out loss before stopping early."),
            "cv": Parameter(0, FOLDS_OR_NONE, "Folds of the temperature scaling, one more fit each; 0: no scaling."),
            "views": Parameter(
                1, COUNT, "Equally wide parts of a row that show the same image; 5 on crops unless set."
            ),
            "class_weight": CLASS_WEIGHTS,
        },
        grid=grid,
        searched_by=(),
        keras=True,
        **options,
    )


#: The dense head as the Keras tutorials train it, layer by layer and step by step: on raw maps.
TUTORIAL = _dense(
    features=("flatten",),
    scaling="none",
    epochs=10,
    learning_rate=0.001,
    schedule="constant",
    grid={"dropout": (0.0, 0.5), "learning_rate": (0.0003, 0.001), "epochs": (10, 20)},
)

HEAD_TYPES: dict[str, HeadType] = {
    # As it predicts best (docs/adr/0005-dense-head.md).
    "dense": _dense(
        features=("crops",),
        scaling="l2",
        epochs=40,
        learning_rate=0.003,
        schedule="linear",
        grid={"learning_rate": (0.001, 0.003, 0.01), "epochs": (20, 40)},
        unscaled=TUTORIAL,
    ),
    "logistic": HeadType(
        estimator="headstart.heads.linear.LogisticHead",
        params={
            "C": Parameter(10.0, POSITIVE, INVERSE_PENALTY),
            "class_weight": CLASS_WEIGHTS,
            "max_iter": Parameter(2000, COUNT, "Maximum number of solver steps."),
        },
        grid={"C": DECADES},
        searched_by=("fit-head", "benchmark-heads"),
        grid_solver="headstart.heads.grid_predictions.logistic_path",
        grid_probabilities=True,
        rotation_invariant=True,
        matrix_copies=6,
        max_square=MAX_RANK,
    ),
    "linear-svm": HeadType(
        estimator="headstart.heads.svm.LinearSVMHead",
        params={
            "C": Parameter(1.0, POSITIVE, INVERSE_PENALTY),
            "class_weight": CLASS_WEIGHTS,
            "cv": CALIBRATION,
            "max_iter": Parameter(10_000, COUNT, "Maximum number of solver steps."),
        },
        grid={"C": DECADES},
        searched_by=("fit-head", "benchmark-heads"),
        grid_solver="headstart.heads.grid_predictions.linear_svm_path",
        rotation_invariant=True,
        matrix_copies=6,
        max_square=MAX_RANK,
        saved_types=("headstart.heads.linear.LinearSVM",),
    ),
    "rbf-svm": HeadType(
        estimator="headstart.heads.svm.RBFSVMHead",
        params={
            "C": Parameter(10.0, POSITIVE, INVERSE_PENALTY),
            "gamma": Parameter("scale", GAMMA, "Kernel coefficient, as in sklearn.svm.SVC."),
            "gamma_factor": Parameter(1.0, POSITIVE, "Factor that gamma is multiplied by."),
            "class_weight": CLASS_WEIGHTS,
            "cv": CALIBRATION,
        },
        grid={"C": (1.0, 10.0, 100.0, 1000.0), "gamma_factor": (0.1, 0.3, 1.0, 3.0)},
        max_search_images=5_000,  # kernels take time and memory that grow with its square
        grid_solver="headstart.heads.grid_predictions.with_kernels",
        rotation_invariant=True,
        matrix_copies=6,
    ),
    "ridge": HeadType(
        estimator="headstart.heads.ridge.RidgeHead",
        params={
            "alpha": Parameter(1.0, POSITIVE, "Strength of the L2 penalty."),
            "class_weight": CLASS_WEIGHTS,
        },
        grid={"alpha": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)},
        searched_by=("fit-head", "benchmark-heads"),
        grid_solver="headstart.heads.grid_predictions.along_ridge",
        rotation_invariant=True,
        max_square=sys.maxsize,  # always
    ),
    "knn": HeadType(
        estimator="headstart.heads.neighbours.NeighboursHead",
        params={
            "n_neighbors": Parameter(10, COUNT, "Number of neighbors."),
            "metric": Parameter("cosine", METRIC, "Distance between rows of features."),
            "smoothing": Parameter(0.1, POSITIVE, "Pseudo-count of images that keeps every probability above 0."),
            "class_weight": CLASS_WEIGHTS,
        },
        grid={"n_neighbors": (1, 3, 5, 10, 20, 40)},
        rotation_invariant=True,
    ),
    "nearest-class-mean": HeadType(
        estimator="headstart.heads.class_mean.ClassMeanHead",
        params={
            "shrinkage": Parameter(0.5, FRACTION, "Weight of the mean variance in that of each feature; 1: Euclidean.")
        },
        grid={"shrinkage": (0.03, 0.1, 0.3, 0.5, 0.8, 1.0)},
        baseline=True,
    ),
    **REGRESSION_TYPES,
    **ORDER_TYPES,
    **ANOMALY_TYPES,
}

#: The mean of several heads. It is no entry of the catalogue, since its members are chosen (selection/ensemble_members.py).
ENSEMBLE_TYPE = HeadType(
    estimator="headstart.heads.ensemble.EnsembleHead",
    scaling="none",
    params={"members": Parameter((), MEMBERS, "The heads whose probabilities are averaged.")},
    searched_by=("fit-head", "benchmark-heads"),
    matrix_copies=8,
)

#: Types of heads that an ensemble is made of: those whose settings are searched, and that skops saves as a whole.
MEMBER_TYPES = tuple(
    name
    for name, kind in HEAD_TYPES.items()
    if kind.task == "classification" and "benchmark-heads" in kind.searched_by and not (kind.keras or kind.baseline)
)

#: A classifier that is named by its import path; its class defines the parameters.
BY_PATH = HeadType(estimator="", searched_by=())

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
    Raises HeadstartError if there is no such head, or it takes no such parameter, value, scaling or seed.
    """
    kind = head_kind(head_type, scaling)
    spec = HeadSpec(
        head_type, tuple(features or kind.features), scaling or kind.scaling, random_state, dict(params or {})
    )
    check_spec(spec)
    if is_path(head_type):
        make_by_path(head_type, spec.params, random_state)  # before the features are read, not after it
    return spec


def heads_for(task: str) -> tuple[str, ...]:
    """Return the names of the heads that can do a task."""
    return tuple(name for name, kind in HEAD_TYPES.items() if kind.task == task)


def default_head(task: str) -> str:
    """Return the head that is fitted for a task unless another one is named."""
    return "logistic" if task == "classification" else heads_for(task)[0]


def head_kind(head_type: str, scaling: str | None = None) -> HeadType:
    """Return the entry of a head, by its name and the scaling of its features."""
    if is_path(head_type):
        return BY_PATH
    if head_type == ENSEMBLE:
        return ENSEMBLE_TYPE
    if head_type not in HEAD_TYPES:
        raise HeadstartError(
            f"There is no head {head_type!r}. Expected one of: {', '.join(HEAD_TYPES)}; or the import path of a scikit-learn "
            "classifier, e.g. sklearn.naive_bayes.GaussianNB."
        )
    kind = HEAD_TYPES[head_type]
    return kind.unscaled if scaling == "none" and kind.unscaled else kind


def check_spec(spec: HeadSpec) -> None:
    """Raise HeadstartError unless a head can be made of a spec; its features are checked where the recipe is known."""
    if is_path(spec.type):
        check_path(spec.type, spec.params)
    else:
        check_values(spec.type, spec.params, head_kind(spec.type).params)
    for member in spec.params.get("members", ()) if spec.type == ENSEMBLE else ():
        member_spec(member)
    if spec.scaling not in SCALINGS:
        raise ParameterError(f"Unknown scaling {spec.scaling!r}. Expected one of: {', '.join(SCALINGS)}.")
    if spec.widths and not (len(spec.widths) > 1 and all(map(is_count, spec.widths))):
        raise ParameterError(
            f"widths are the columns of each of several caches, 1 or more each. Received: {spec.widths}."
        )
    if not is_count(spec.random_state, 0) or spec.random_state > MAX_SEED:
        raise ParameterError(f"A seed is a whole number from 0 to {MAX_SEED}. Received: {spec.random_state!r}.")


def check_crops(spec: HeadSpec) -> None:
    """Raise DataError if a head is calibrated in folds of rows, on both sides of which crops of an image would lie."""
    if spec.type == ENSEMBLE:
        raise DataError(
            "The members of an ensemble are chosen on images alone. Received: crops. Fit a head of one type."
        )
    if not is_path(spec.type):
        return  # the heads of the catalogue know groups of rows
    from sklearn.calibration import CalibratedClassifierCV

    if isinstance(
        make_classifier(spec.type, {**spec.params, "random_state": spec.random_state}), CalibratedClassifierCV
    ):
        raise DataError(
            f"{spec.type} has no probabilities of its own, and crops of one image would lie on both sides of its "
            "calibration. Received: crops. Fit linear-svm, rbf-svm or another head of the catalogue."
        )


def member_spec(member: Mapping[str, Any]) -> HeadSpec:
    """Return the spec of a member of an ensemble; raise ParameterError if it cannot be one."""
    if member["type"] not in MEMBER_TYPES:
        raise ParameterError(
            f"A {member['type']} head is no member of an ensemble. Expected one of: {', '.join(MEMBER_TYPES)}."
        )
    kind = HEAD_TYPES[member["type"]]
    spec = HeadSpec(
        type=member["type"],
        features=tuple(member.get("features", kind.features)),
        scaling=member.get("scaling", kind.scaling),
        random_state=member.get("random_state", 0),
        params=dict(member.get("params", {})),
        widths=tuple(member.get("widths", ())),
    )
    check_spec(spec)
    return spec


def make_head(spec: HeadSpec) -> Any:
    """Return an unfitted scikit-learn ``Pipeline`` of scaling and classifier.

    Raises HeadstartError if the spec names something that does not exist, or a parameter has a value that it cannot have.
    """
    check_spec(spec)
    from sklearn.pipeline import Pipeline

    from headstart.heads.transforms import make_scaler

    params = {**full_params(spec.type, spec.features, spec.scaling, spec.params), "random_state": spec.random_state}
    return Pipeline(
        [("scale", make_scaler(spec.scaling, spec.widths)), ("classifier", make_classifier(spec.type, params))]
    )


def full_params(head_type: str, features: Sequence[str], scaling: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return every parameter of a head: what is given, else the default that it has on such features."""
    defaults = {name: parameter.default for name, parameter in head_kind(head_type, scaling).params.items()}
    if "views" in defaults:
        defaults["views"] = count_views(features)
    return {**defaults, **params}


def make_classifier(head_type: str, params: Mapping[str, Any]) -> Any:
    """Return an unfitted classifier; only its own module is imported."""
    if is_path(head_type):
        return make_by_path(head_type, {k: v for k, v in params.items() if k != "random_state"}, params["random_state"])
    estimator = imported(head_kind(head_type).estimator)
    given = {k: v for k, v in params.items() if k != "random_state" or k in estimator._get_param_names()}
    # What was a tuple is a list in JSON and TOML.
    return estimator(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


def heads_with(method: str) -> list[str]:
    """Return the names of the heads whose estimator has a method; the modules of all estimators are imported."""
    return [name for name, kind in HEAD_TYPES.items() if hasattr(imported(kind.estimator), method)]
