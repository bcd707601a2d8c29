"""Save a fitted head with everything that is needed to predict, and load it without running any code from it.

A bundle is a folder: ``bundle.json`` (what it is), ``metrics.json`` (how good it is), ``head.skops`` (the scikit-learn
parts) and, for a dense head, ``network.keras`` (Keras v3).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import BundleError, RecipeMismatchError
from headstart.heads.archive import digest, read_json
from headstart.heads.facts import FACTS, HEAD, METRICS, NETWORK, Facts, check_files, read_facts
from headstart.heads.scikit import check_form, load_skops, not_savable, unknown_types
from headstart.heads.transforms import design_matrix
from headstart.schema import FeatureBatch, HeadSpec, Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: What desktops leave in every folder that they show.
LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})

#: A row of them is 64 MiB; whatever a damaged file says, no more is allocated to see whether a head works.
MAX_TRIAL_FEATURES = 2**24


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
        return np.concatenate([self._of_batch(batch) for batch in batches] or [np.empty((0, len(self.class_names)))])

    def _of_batch(self, batch: FeatureBatch) -> NDArray[np.float64]:
        X = design_matrix([batch], self.spec.features, pooled_layers=self.recipe.pooled_layers)
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
    check_target(folder)
    target = folder.resolve()  # a link to a bundle stays a link
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            write_files(partial, bundle, metrics)
            put_in_place(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise BundleError(f"{folder} cannot be written: {error}") from error
    return folder


def check_target(folder: Path) -> None:
    """Raise BundleError where a bundle may not be written: over anything but a bundle or an empty folder."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    files = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    try:
        others = files - set(read_facts(folder).files) - {FACTS} - LITTER
    except BundleError as error:
        raise BundleError(
            f"{folder} exists and is no saved head, so it is not replaced. Choose another folder with -o."
        ) from error
    if others:
        raise BundleError(
            f"{folder} is a saved head, but holds other files too, so it is not replaced: {', '.join(sorted(others))}. "
            "Move them, or choose another folder with -o."
        )


def put_in_place(partial: Path, folder: Path) -> None:
    """Move a finished folder to its name; an old bundle of that name is removed once the new one stands."""
    partial.chmod(0o755)  # mkdtemp is stricter than a result should be
    old = partial.with_name(f"{partial.name}.old")
    had_one = folder.exists()
    if had_one:
        folder.rename(old)
    try:
        partial.rename(folder)
    except OSError:
        if had_one:
            old.rename(folder)
        raise
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def write_files(folder: Path, bundle: Bundle, metrics: Mapping[str, Any]) -> None:
    """Write the files of a bundle, their digests in ``bundle.json``, and have the system put them on the disk."""
    import skops.io

    head = bundle.head
    classifier = head.steps[-1][1]
    network = classifier.__dict__.pop("network_", None)  # skops must not see Keras' objects
    try:
        skops.io.dump(head, folder / HEAD)
    finally:
        if network is not None:
            classifier.network_ = network
    unknown = unknown_types(file=folder / HEAD)
    if unknown:  # the trial before the fit did not show it
        raise not_savable(bundle.spec.type, f"it holds types that are not loaded from a file: {', '.join(unknown)}.")
    if network is not None:
        network.save(folder / NETWORK)
    (folder / METRICS).write_text(json.dumps(metrics, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    facts = Facts(
        spec=bundle.spec,
        recipe=bundle.recipe,
        class_names=bundle.class_names,
        n_features=int(head.n_features_in_) if hasattr(head, "n_features_in_") else None,
        versions=versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        files={path.name: digest(path) for path in sorted(folder.iterdir())},
    )
    (folder / FACTS).write_text(facts.to_json(), encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        sync(path)


def sync(path: Path) -> None:
    """Have the system put a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_bundle(folder: Path) -> Bundle:
    """Return a saved head. Nothing that the files say is executed, and only known types are built.

    Heads of older versions are loaded, with a warning where scikit-learn has changed since.

    Raises
    ------
    BundleError
        If it is missing, damaged, of a newer version, holds a type that a head does not need, or does not work with this
        scikit-learn.
    """
    facts = read_facts(folder)
    check_files(folder, facts.files)
    difference = version_difference(facts.versions)
    try:
        head = load_skops(folder / HEAD)
        check_form(folder, head, facts)
        if NETWORK in facts.files:
            head.steps[-1][1].load_network(folder / NETWORK)
        if difference:
            check_works(folder, head, facts.n_features)
    except BundleError as error:
        raise BundleError(f"{error}{difference and f' It {difference}.'}") from error
    if difference:
        warnings.warn(
            f"{folder} {difference}. Score it again with `headstart evaluate`, or fit it again.", stacklevel=2
        )
    return Bundle(
        head=head,
        spec=facts.spec,
        recipe=facts.recipe,
        class_names=facts.class_names,
        metrics=read_json(folder / METRICS),
        versions=facts.versions,
        created=facts.created,
    )


def version_difference(saved: Mapping[str, str]) -> str:
    """Return in words that scikit-learn has changed since a head was saved, beyond corrections; empty where it has not."""
    now = versions()["scikit-learn"]
    then = str(saved.get("scikit-learn", now))
    same = then.rpartition(".")[0] == now.rpartition(".")[0]
    return "" if same else f"was fitted with scikit-learn {then}, and is used with {now}"


def check_works(folder: Path, head: Any, n_features: int | None) -> None:
    """Raise BundleError where a head of another scikit-learn cannot predict a row: what it needs is called otherwise now."""
    if n_features is None or n_features > MAX_TRIAL_FEATURES:
        return
    try:
        head.predict_proba(np.zeros((1, n_features), np.float32))
    except Exception as error:  # another version's attributes: anything may be missing
        raise BundleError(f"{folder / HEAD} does not work here ({error}). Fit the head again.") from error


def versions() -> dict[str, str]:
    """Return the versions of what a head depends on."""
    found = {}
    for name in ("headstart", "scikit-learn", "skops", "numpy", "keras", "tensorflow"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
