"""Save a fitted head with everything that is needed to predict, and load it without running any code from it.

A bundle is a folder: ``bundle.json`` (what it is), ``metrics.json`` (how good it is), ``head.skops`` (the scikit-learn
parts) and, for a dense head, ``network.keras`` (Keras v3).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import BundleError, RecipeMismatchError
from headstart.heads.archive import check_members
from headstart.heads.transforms import design_matrix
from headstart.schema import FeatureBatch, HeadSpec, Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "headstart-bundle"
FORMAT_VERSION = 1

#: Types of our own that a head may hold. skops knows those of scikit-learn and NumPy; everything else is refused.
OWN_TYPES = (
    "headstart.heads.dense.DenseHead",
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


@dataclass(frozen=True, slots=True)
class Bundle:
    """A fitted head and what it was fitted on.

    Attributes
    ----------
    head : Pipeline
        Scaling and classifier, fitted; its labels are indices into ``class_names``.
    spec : HeadSpec
        Type, features, scaling and parameters.
    recipe : Recipe
        What the features must be made by.
    class_names : tuple of str
        The classes of the cache, in the order of the probabilities.
    metrics : mapping
        What was measured when the head was fitted.
    versions : mapping
        Versions of what fitted it.
    created : str
        When (ISO 8601, UTC).
    """

    head: Any
    spec: HeadSpec
    recipe: Recipe
    class_names: tuple[str, ...]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""

    def predict_proba(self, batches: Iterable[FeatureBatch], recipe: Recipe) -> NDArray[np.float64]:
        """Return probabilities, shape (n_images, n_classes), float64, in the order of ``class_names``.

        A class without a training image has probability 0.

        Raises
        ------
        RecipeMismatchError
            If the features were made by another recipe; the message names the fields.
        """
        differences = self.recipe.differences(recipe)
        if differences:
            raise RecipeMismatchError(
                f"The head was fitted on features of another recipe (head ≠ these): {'; '.join(differences)}. "
                "Extract the features with the head's recipe, or fit a head on these."
            )
        X = design_matrix(batches, self.spec.features, pooled_layers=self.recipe.pooled_layers)
        probabilities = np.zeros((len(X), len(self.class_names)))
        probabilities[:, self.head.classes_] = self.head.predict_proba(X)
        return probabilities


def save_bundle(folder: Path, bundle: Bundle, *, metrics: Mapping[str, Any]) -> Path:
    """Write a bundle; it appears whole or not at all, and replaces nothing but another bundle.

    Raises
    ------
    BundleError
        If something else lies there, or it cannot be written.
    """
    if folder.exists() and not (folder / "bundle.json").is_file():
        raise BundleError(
            f"{folder} exists and is no saved head, so it is not replaced. Choose another folder with -o."
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            write_files(partial, bundle, metrics)
            put_in_place(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise BundleError(f"{folder} cannot be written: {error}") from error
    return folder


def put_in_place(partial: Path, folder: Path) -> None:
    """Move a finished folder to its name; an old bundle of that name is removed once it has made room."""
    partial.chmod(0o755)  # mkdtemp is stricter than a result should be
    old = partial.with_name(f"{partial.name}.old")
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def write_files(folder: Path, bundle: Bundle, metrics: Mapping[str, Any]) -> None:
    """Write the files of a bundle, their digests in ``bundle.json``, and have the system put them on the disk."""
    import skops.io

    head = bundle.head
    classifier = head.steps[-1][1]
    network = classifier.__dict__.pop("network_", None)  # skops must not see Keras' objects
    try:
        skops.io.dump(head, folder / "head.skops")
    finally:
        if network is not None:
            classifier.network_ = network
    if network is not None:
        network.save(folder / "network.keras")
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    facts = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "spec": asdict(bundle.spec),
        "recipe": json.loads(bundle.recipe.to_json()),
        "recipe_fingerprint": bundle.recipe.fingerprint,
        "class_names": list(bundle.class_names),
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": {path.name: digest(path) for path in sorted(folder.iterdir())},
    }
    (folder / "bundle.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def load_bundle(folder: Path) -> Bundle:
    """Return a saved head. Nothing that the files say is executed, and only known types are built.

    Raises
    ------
    BundleError
        If it is missing, damaged, of a newer version, or holds a type that a head does not need.
    """
    facts = read_facts(folder)
    for name, expected in facts["files"].items():
        path = folder / name
        if Path(name).name != name or not path.is_file() or digest(path) != expected:
            raise BundleError(
                f"{folder} is damaged: {name} is missing or not the file that was saved. Fit the head again."
            )
    if "head.skops" not in facts["files"]:
        raise BundleError(f"{folder} is damaged: it holds no head.skops. Fit the head again.")
    head = load_skops(folder / "head.skops")
    if "network.keras" in facts["files"]:
        from headstart.heads.network import load_network  # a head without a network needs no Keras

        head.steps[-1][1].network_ = load_network(folder / "network.keras")
    say_version_differences(folder, facts["versions"])
    spec = facts["spec"]
    return Bundle(
        head=head,
        spec=HeadSpec(spec["type"], tuple(spec["features"]), spec["scaling"], spec["random_state"], spec["params"]),
        recipe=Recipe.from_json(json.dumps(facts["recipe"])),
        class_names=tuple(facts["class_names"]),
        metrics=json.loads((folder / "metrics.json").read_text(encoding="utf-8")),
        versions=facts["versions"],
        created=facts["created"],
    )


def read_facts(folder: Path) -> dict[str, Any]:
    """Return ``bundle.json``, checked."""
    try:
        facts = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"There is no saved head in {folder}. Expected: a folder that fit-head wrote.") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder / 'bundle.json'} cannot be read: {error}") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise BundleError(f"{folder} is no saved head of headstart.")
    if facts.get("format_version", 0) > FORMAT_VERSION:
        raise BundleError(
            f"{folder} has format version {facts['format_version']}; this program reads up to {FORMAT_VERSION}. Update it."
        )
    missing = {"spec", "recipe", "class_names", "versions", "created", "files"} - set(facts)
    if missing:
        raise BundleError(f"{folder} is damaged: bundle.json lacks {', '.join(sorted(missing))}.")
    return facts


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


def say_version_differences(folder: Path, saved: Mapping[str, str]) -> None:
    """Warn where scikit-learn has changed since the head was saved."""
    now = versions()["scikit-learn"]
    then = str(saved.get("scikit-learn", now))
    if then.rpartition(".")[0] != now.rpartition(".")[0]:
        warnings.warn(
            f"{folder} was fitted with scikit-learn {then}, and is used with {now}. Score it again with "
            "`headstart evaluate`, or fit it again.",
            stacklevel=3,
        )


def versions() -> dict[str, str]:
    """Return the versions of what a head depends on."""
    found = {}
    for name in ("headstart", "scikit-learn", "skops", "numpy", "keras", "tensorflow"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
