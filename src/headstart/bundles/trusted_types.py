"""The scikit-learn parts of a saved head, loaded with nothing in them run."""

from __future__ import annotations

import inspect
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from headstart.bundles.metadata import HEAD, NETWORK, BundleMetadata
from headstart.errors import BundleError
from headstart.heads.catalogue import ENSEMBLE_TYPE, HEAD_TYPES, head_kind, make_head
from headstart.heads.head_specs import is_path, is_scikit_learn
from headstart.types import HeadSpec

#: Types of scikit-learn that calibration and some classifiers need and skops does not trust by itself: plain Python, whose
#: attributes are set and nothing else. Trees and k-d trees are not among them: compiled code reads their memory unchecked.
SCIKIT_LEARN_TYPES = (
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels.ConstantKernel",
    "sklearn.gaussian_process.kernels.Product",
    "sklearn.gaussian_process.kernels.RBF",
    "sklearn.model_selection._split.StratifiedKFold",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
)

#: Rows, features and classes of the trial that shows what types a fitted head holds.
TRIAL = (60, 20, 3)


def trusted_types() -> set[str]:
    """Return the types that a head may hold beside those of scikit-learn and NumPy that skops trusts."""
    own = [path for kind in (*HEAD_TYPES.values(), ENSEMBLE_TYPE) for path in (kind.estimator, *kind.saved_types)]
    scalers = ("headstart.heads.transforms.SqrtL2Scaler", "headstart.heads.transforms.BlockScaler")
    return {*scalers, *own, *SCIKIT_LEARN_TYPES}


def unknown_types(data: bytes | None = None, file: Path | None = None) -> list[str]:
    """Return the types in a skops archive that are not loaded, sorted; nothing of it is built."""
    import skops.io

    return sorted(set(skops.io.get_untrusted_types(data=data, file=file)) - trusted_types())


def check_savable(spec: HeadSpec) -> None:
    """Raise BundleError where a head of this spec could not be loaded again; a trial fit on a few rows tells.

    Heads of the catalogue always can. Where the trial itself fails, the real rows will say why.
    """
    if not is_path(spec.type):
        return
    if not is_scikit_learn(spec.type):
        raise not_savable(spec.type, "only scikit-learn's own classifiers are loaded from a file.")
    import skops.io

    n_samples, n_features, n_classes = TRIAL
    X = np.random.default_rng(0).random((n_samples, n_features), dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            head = make_head(spec).fit(X, np.arange(n_samples) % n_classes)
        except ValueError:
            return
    unknown = unknown_types(data=skops.io.dumps(head))
    if unknown:
        raise not_savable(spec.type, f"it holds types that are not loaded from a file: {', '.join(unknown)}.")


def not_savable(head_type: str, reason: str) -> BundleError:
    """Return the error that says what to do with a head that cannot be saved."""
    return BundleError(
        f"A head of {head_type} cannot be saved: {reason} Choose another head, or fit this one without saving it, from "
        "Python: headstart.fit_head(cache, spec, output=None)."
    )


def load_skops(path: Path) -> Any:
    """Return the scikit-learn parts of a head; raise BundleError where they hold a type that is not known."""
    import skops.io
    from sklearn.exceptions import InconsistentVersionWarning

    try:
        check_members(path)
        unknown = unknown_types(file=path)
        if unknown:
            raise BundleError(f"{path} holds types that no head needs, and is not loaded: {', '.join(unknown)}.")
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", InconsistentVersionWarning
            )  # bundles/bundle.py says it once, and for all parts
            head = skops.io.load(path, trusted=sorted(trusted_types()))
    except BundleError:
        raise
    except Exception as error:  # zip, JSON and skops' own errors: all mean that the file is not what it should be
        raise BundleError(f"{path} cannot be loaded: {error}") from error
    for own in (head, *members_of(head)):
        for _, step in getattr(own, "steps", ()):
            complete(step)
    return head


def members_of(head: Any) -> list[Any]:
    """Return the heads of an ensemble, fitted or not; none of another head."""
    classifier: Any = head.steps[-1][1] if hasattr(head, "steps") else None
    if hasattr(classifier, "members_"):
        return list(classifier.members_)
    return list(classifier.make_members()) if hasattr(classifier, "make_members") else []


def check_members(path: Path) -> None:
    """Raise BundleError if an archive could unpack to more than its own size, or outside its folder.

    skops and Keras write uncompressed archives, so the size of each member is known.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # zipfile raises many kinds for a damaged archive
        raise BundleError(f"{path} cannot be loaded: {error}") from error
    for member in members:
        if member.filename.startswith(("/", "..")) or "/.." in member.filename or "\\" in member.orig_filename:
            raise BundleError(f"{path} contains an unexpected member: {member.orig_filename!r}.")
        if member.compress_type != zipfile.ZIP_STORED:
            raise BundleError(f"{path} contains a compressed member, which saved heads never do: {member.filename!r}.")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise BundleError(f"{path} declares members larger than the file itself.")


def complete(estimator: Any) -> None:
    """Give an estimator that an older version has saved the defaults of the parameters that have come since."""
    if not hasattr(estimator, "_get_param_names"):
        return
    parameters = inspect.signature(type(estimator).__init__).parameters
    for name in estimator._get_param_names():
        if name not in vars(estimator) and parameters[name].default is not inspect.Parameter.empty:
            setattr(estimator, name, parameters[name].default)


def check_form(folder: Path, head: Any, metadata: BundleMetadata) -> None:
    """Raise BundleError where what was loaded is not the kind of head that ``bundle.json`` speaks of."""
    try:
        expected, received = form(make_head(metadata.spec)), form(head)
        labels = fitted_labels(head, metadata) if received == expected else None
    except (AttributeError, TypeError, ValueError) as error:
        raise BundleError(f"{folder / HEAD} holds no head of this kind: {error}") from error
    if labels is None:
        raise BundleError(
            f"{folder / HEAD} holds no head of this kind ({metadata.spec.type}, {metadata.spec.scaling})."
        )
    if labels.dtype.kind not in "iu" or not np.isin(labels, np.arange(len(metadata.class_names))).all():
        raise BundleError(f"{folder / HEAD} has labels that are none of the {len(metadata.class_names)} classes.")
    if (NETWORK in metadata.files) != head_kind(metadata.spec.type).keras:
        raise BundleError(f"{folder}: a dense head has a {NETWORK}, and no other head has one.")


def fitted_labels(head: Any, metadata: BundleMetadata) -> Any:
    """Return the labels of a head, indices into its class names; of a head for numbers the only one, if it is sound."""
    if head_kind(metadata.spec.type).task != "regression":
        return np.asarray(head.classes_)
    head.steps[-1][1].check_loaded()
    return np.arange(1)


def form(head: Any) -> tuple[list[type], Any, list[Any]]:
    """Return the types of a head's steps, and of the classifier in a calibrated one; the blocks of columns of its scaler.

    And the same of the members of an ensemble.
    """
    steps = [step for _, step in head.steps]
    kinds = [type(step) for step in (*steps, getattr(steps[-1], "estimator", None))]
    return kinds, getattr(steps[0], "widths", None), [form(member) for member in members_of(head)]
