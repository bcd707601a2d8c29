"""The scikit-learn parts of a saved head, loaded with nothing in them run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from headstart.errors import BundleError
from headstart.heads.archive import check_members
from headstart.heads.catalogue import make_head
from headstart.heads.facts import HEAD, NETWORK, Facts

#: Types of our own that a head may hold. skops knows those of scikit-learn and NumPy; everything else is refused.
OWN_TYPES = (
    "headstart.heads.class_mean.ClassMeanHead",
    "headstart.heads.dense.DenseHead",
    "headstart.heads.linear.LinearSVM",
    "headstart.heads.linear.LogisticHead",
    "headstart.heads.neighbours.NeighboursHead",
    "headstart.heads.ridge.RidgeHead",
    "headstart.heads.svm.LinearSVMHead",
    "headstart.heads.svm.RBFSVMHead",
    "headstart.heads.transforms.SqrtL2Scaler",
)

#: Of scikit-learn's, those that calibration needs and skops does not list.
OTHER_TYPES = (
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.model_selection._split.StratifiedKFold",
)


def load_skops(path: Path) -> Any:
    """Return the scikit-learn parts of a head; raise BundleError where they hold a type that is not known."""
    import skops.io

    allowed = {*OWN_TYPES, *OTHER_TYPES}
    try:
        check_members(path)
        untrusted = set(skops.io.get_untrusted_types(file=path)) - allowed
        if untrusted:
            raise BundleError(
                f"{path} holds types that no head needs, and is not loaded: {', '.join(sorted(untrusted))}."
            )
        return skops.io.load(path, trusted=sorted(allowed))
    except BundleError:
        raise
    except Exception as error:  # zip, JSON and skops' own errors: all mean that the file is not what it should be
        raise BundleError(f"{path} cannot be loaded: {error}") from error


def check_form(folder: Path, head: Any, facts: Facts) -> None:
    """Raise BundleError where what was loaded is not the kind of head that ``bundle.json`` speaks of."""
    try:
        expected = [type(step) for _, step in make_head(facts.spec).steps]
        received = [type(step) for _, step in head.steps]
        labels = np.asarray(head.classes_) if received == expected else None
    except (AttributeError, TypeError, ValueError) as error:
        raise BundleError(f"{folder / HEAD} holds no head of this kind: {error}") from error
    if labels is None:
        raise BundleError(f"{folder / HEAD} holds no head of this kind ({facts.spec.type}, {facts.spec.scaling}).")
    if labels.dtype.kind not in "iu" or not np.isin(labels, np.arange(len(facts.class_names))).all():
        raise BundleError(f"{folder / HEAD} has labels that are none of the {len(facts.class_names)} classes.")
    if (NETWORK in facts.files) != (facts.spec.type == "dense"):
        raise BundleError(f"{folder}: a dense head has a {NETWORK}, and no other head has one.")
