"""The heads there are: what each is fitted on by default, and which parameters it takes.

Importing this module imports neither scikit-learn nor Keras; making a head does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.errors import HeadstartError
from headstart.schema import HeadSpec


@dataclass(frozen=True, slots=True)
class HeadType:
    """A kind of head.

    Attributes
    ----------
    features : tuple of str
        What it is fitted on unless told otherwise.
    scaling : str
        How that is scaled.
    params : mapping of str to value
        The parameters that may be set, and their defaults.
    """

    features: tuple[str, ...]
    scaling: str
    params: Mapping[str, Any]


HEAD_TYPES: dict[str, HeadType] = {
    "dense": HeadType(
        ("flatten",),
        "none",
        {
            "hidden": (256,),
            "dropout": 0.0,
            "epochs": 10,
            "batch_size": 32,
            "learning_rate": 0.001,
            "l2": 0.0,
            "early_stopping": False,
            "validation_fraction": 0.1,
            "patience": 5,
            "class_weight": None,
        },
    ),
    "logistic": HeadType(("avg",), "sqrt-l2", {"C": 10.0, "class_weight": None, "max_iter": 2000}),
    "linear-svm": HeadType(("avg",), "sqrt-l2", {"C": 1.0, "class_weight": None, "cv": 5, "max_iter": 10_000}),
    "rbf-svm": HeadType(("avg",), "sqrt-l2", {"C": 10.0, "gamma": "scale", "class_weight": None, "cv": 5}),
}


def default_spec(
    head_type: str,
    *,
    features: Sequence[str] | None = None,
    scaling: str | None = None,
    random_state: int = 0,
    params: Mapping[str, Any] | None = None,
) -> HeadSpec:
    """Return the spec of a head, the catalogue's defaults where nothing is given.

    Raises
    ------
    HeadstartError
        If there is no such head, or it takes no such parameter.
    """
    kind = head_kind(head_type)
    check_params(head_type, params or {})
    return HeadSpec(
        head_type, tuple(features or kind.features), scaling or kind.scaling, random_state, dict(params or {})
    )


def head_kind(head_type: str) -> HeadType:
    """Return a kind of head by its name."""
    if head_type not in HEAD_TYPES:
        raise HeadstartError(f"There is no head {head_type!r}. Expected one of: {', '.join(HEAD_TYPES)}.")
    return HEAD_TYPES[head_type]


def check_params(head_type: str, params: Mapping[str, Any]) -> None:
    """Raise HeadstartError where a head takes no such parameter."""
    known = head_kind(head_type).params
    unknown = sorted(set(params) - set(known))
    if unknown:
        raise HeadstartError(f"A {head_type} head takes no {', '.join(unknown)}. It takes: {', '.join(known)}.")


def make_head(spec: HeadSpec) -> Any:
    """Return an unfitted scikit-learn ``Pipeline`` of scaling and classifier.

    Raises
    ------
    HeadstartError
        If the spec names something that does not exist.
    """
    check_params(spec.type, spec.params)
    from sklearn.pipeline import Pipeline

    from headstart.heads.transforms import make_scaler

    params = {**head_kind(spec.type).params, **spec.params, "random_state": spec.random_state}
    return Pipeline([("scale", make_scaler(spec.scaling)), ("classifier", make_classifier(spec.type, params))])


def make_classifier(head_type: str, params: Mapping[str, Any]) -> Any:
    """Return an unfitted classifier; only what it needs is imported."""
    if head_type == "dense":
        from headstart.heads.dense import DenseHead

        return DenseHead(**{**params, "hidden": tuple(params["hidden"])})
    if head_type == "logistic":
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(**params)
    from headstart.heads.svm import LinearSVMHead, RBFSVMHead

    return {"linear-svm": LinearSVMHead, "rbf-svm": RBFSVMHead}[head_type](**params)
