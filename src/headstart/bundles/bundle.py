"""Save a fitted head with everything that is needed to predict, and load it without running any code from it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.bundles.familiarity_file import familiarity_bytes, read_familiarity
from headstart.bundles.metadata import (
    FAMILIARITY,
    HEAD,
    METADATA,
    METRICS,
    NETWORK,
    PREDICTIONS,
    TRAINING,
    BundleMetadata,
    check_files,
    digest,
    read_json,
    read_metadata,
)
from headstart.bundles.package_versions import check_works, version_difference, versions
from headstart.bundles.trusted_types import check_form, check_members, load_skops, not_savable, unknown_types
from headstart.decisions.familiarity import Familiarity
from headstart.decisions.rule import DecisionRule
from headstart.errors import BundleError, RecipeMismatchError
from headstart.heads.base import outputs_of
from headstart.heads.catalogue import head_kind
from headstart.heads.transforms import design_matrix
from headstart.storage.publishing import replacing, restore
from headstart.texts import counted, reason_of
from headstart.types import SINGLE_LABEL, FeatureBatch, HeadSpec, Recipe

#: Hexadecimal digits of eight bytes.
SHORT = 16

#: Size limit of the digests: 134 million images.
MAX_BYTES = 2**30


def short_digests(sha256: Iterable[str]) -> NDArray[np.uint64]:
    """Return the first eight bytes of each digest as a number, in their order."""
    return np.fromiter((int(digest[:SHORT], 16) for digest in sha256), np.uint64)


def read_digests(path: Path) -> NDArray[np.uint64]:
    """Return the digests of the training images, ascending; raise BundleError if the file is none of sorted digests."""
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b"too long"
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {reason_of(error)}") from error
    digests = np.frombuffer(data[: len(data) // 8 * 8], "<u8").astype(np.uint64)
    if len(data) % 8 or not len(data) or (digests[1:] <= digests[:-1]).any():
        raise BundleError(f"{path} is damaged: it does not hold sorted digests of eight bytes. Fit the head again.")
    return digests


#: Files that desktops write into the folders they show.
LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True)
class Bundle:
    """A fitted head and what it was fitted on.

    Attributes
    ----------
    head : Any
        Scaling and classifier, fitted; its labels are indices into ``class_names``.
    spec : HeadSpec
    recipe : Recipe
        Of the features; of several joined caches, that of the first.
    class_names : tuple[str, ...]
        The classes, in the order of the probabilities; ``target`` alone for a number.
    training_digests : NDArray[np.uint64] | None
        Digests of the images it was fitted on, ascending; None if unknown, e.g. in a head that an older version saved;
        shape (n_images,).
    metrics : Mapping[str, Any]
    versions : Mapping[str, str]
        Versions of what fitted it.
    created : str
        When (ISO 8601, UTC).
    folder : Path | None
        Folder it was loaded from.
    target : str
        Name of what it predicts (evaluate/targets.py).
    joined_recipes : tuple[Recipe, ...]
        Those of the further caches, where it was fitted on the features of several side by side.
    familiarity : Familiarity | None
        What it keeps of the training images, to tell unfamiliar ones; None in a head that an older version saved.
    decision : DecisionRule | None
        How it decides; None if the most probable class is the decision.
    """

    head: Any
    spec: HeadSpec
    recipe: Recipe
    class_names: tuple[str, ...]
    training_digests: NDArray[np.uint64] | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    folder: Path | None = None
    target: str = SINGLE_LABEL
    joined_recipes: tuple[Recipe, ...] = ()
    familiarity: Familiarity | None = None
    decision: DecisionRule | None = None

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """All recipes, in the order of the features."""
        return self.recipe, *self.joined_recipes

    @property
    def task(self) -> str:
        """Task of the head, e.g. ``classification``."""
        return head_kind(self.spec.type).task

    def predict_proba(self, batches: Iterable[FeatureBatch], recipe: Recipe | Sequence[Recipe]) -> NDArray[np.float64]:
        """Return probabilities, as :meth:`outputs` does; raise BundleError if the head predicts something else."""
        if self.task == "regression":
            raise BundleError(
                f"A head for the target {self.target} has no probabilities. Take what `Bundle.outputs` returns."
            )
        return self.outputs(batches, recipe)

    def outputs(self, batches: Iterable[FeatureBatch], recipe: Recipe | Sequence[Recipe]) -> NDArray[np.float64]:
        """Return what the head predicts, shape (n_images, n_outputs), float64, in the order of ``class_names``.

        Of a classifier probabilities, 0 of a class without a training image; of a regressor numbers. Raises
        RecipeMismatchError, which names the fields, if the features were made by another recipe; by several, for a head on
        joined features, in the order of ``recipes``.
        """
        given = (recipe,) if isinstance(recipe, Recipe) else tuple(recipe)
        if len(given) != len(self.recipes):
            raise RecipeMismatchError(
                f"The head was fitted on the features of {counted(len(self.recipes), 'recipe')} side by side. Received: "
                f"features of {counted(len(given), 'recipe')}."
            )
        pairs = zip(self.recipes, given, strict=True)
        differences = [difference for mine, theirs in pairs for difference in mine.differences(theirs)]
        if differences:
            raise RecipeMismatchError(
                f"The head was fitted on features of another recipe (head ≠ these): {'; '.join(differences)}. "
                "Extract the features with the head's recipe, or fit a head on these."
            )
        return np.concatenate([self._of_batch(batch) for batch in batches] or [np.empty((0, len(self.class_names)))])

    def _of_batch(self, batch: FeatureBatch) -> NDArray[np.float64]:
        return outputs_of(self.head, design_matrix([batch], self.spec.features), len(self.class_names))


def save_bundle(
    folder: Path, bundle: Bundle, *, metrics: Mapping[str, Any], predictions: bytes = b"", overwrite: bool = False
) -> Path:
    """Write a bundle; it appears whole or not at all.

    Parameters
    ----------
    metrics : mapping
        Metrics of the fit; JSON types only.
    predictions : bytes
        A CSV table of the images that it was scored on; empty for none.
    overwrite : bool
        Replace a saved head that is there already. Nothing else is ever replaced.

    Raises
    ------
    BundleError
        If something lies there that is not to be replaced, or it cannot be written.
    """
    check_target(folder, overwrite=overwrite)
    try:
        with replacing(folder.resolve()) as partial:  # a link to a bundle stays a link
            write_files(partial, bundle, metrics, predictions)
    except OSError as error:
        raise BundleError(f"{folder} cannot be written: {reason_of(error)}.") from error
    return folder


def check_target(folder: Path, *, overwrite: bool = False) -> None:
    """Raise BundleError where a bundle may not be written: over anything but a bundle or an empty folder.

    A bundle is replaced with ``overwrite`` only.
    """
    restore(folder.resolve())
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    files = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    try:
        others = files - set(read_metadata(folder).files) - {METADATA, PREDICTIONS} - LITTER
    except BundleError as error:
        raise BundleError(
            f"{folder} exists and is no saved head, so it is not replaced.", hint="Choose another folder (`output`)."
        ) from error
    if others:
        raise BundleError(
            f"{folder} is a saved head, but holds other files too, so it is not replaced: {', '.join(sorted(others))}.",
            hint="Move them, or choose another folder (`output`).",
        )
    if not overwrite:
        raise BundleError(
            f"{folder} is a saved head already.",
            hint="Replace it with `overwrite=True`, or choose another folder (`output`).",
        )


def write_files(folder: Path, bundle: Bundle, metrics: Mapping[str, Any], predictions: bytes = b"") -> None:
    """Write the files of a bundle, their digests in ``bundle.json``."""
    import skops.io

    head = bundle.head
    skops.io.dump(head, folder / HEAD)  # of a network its weights
    unknown = unknown_types(file=folder / HEAD)
    if unknown:  # the trial before the fit did not show it
        raise not_savable(bundle.spec.type, f"it holds types that are not loaded from a file: {', '.join(unknown)}.")
    if head_kind(bundle.spec.type).keras:
        head.steps[-1][1].network_.save(folder / NETWORK)
    if bundle.training_digests is not None:
        (folder / TRAINING).write_bytes(np.unique(bundle.training_digests).astype("<u8").tobytes())
    if bundle.familiarity is not None:
        (folder / FAMILIARITY).write_bytes(familiarity_bytes(bundle.familiarity))
    (folder / METRICS).write_text(json.dumps(metrics, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    metadata = BundleMetadata(
        spec=bundle.spec,
        recipe=bundle.recipe,
        joined_recipes=bundle.joined_recipes,
        class_names=bundle.class_names,
        n_features=int(head.n_features_in_) if hasattr(head, "n_features_in_") else None,
        versions=versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        files={path.name: digest(path) for path in sorted(folder.iterdir())},
        target=bundle.target,
        decision=bundle.decision,
    )
    (folder / METADATA).write_text(metadata.to_json(), encoding="utf-8")
    if predictions:  # for people, who may sort it and save it again: no part of the head, so without a digest
        (folder / PREDICTIONS).write_bytes(predictions)


def load_bundle(folder: Path) -> Bundle:
    """Return a saved head. Nothing that the files say is executed, and only known types are built.

    Heads of older versions are loaded, with a warning where scikit-learn has changed since. Raises BundleError if it is
    missing, damaged, of a newer version, holds a type that a head does not need, or does not work with this scikit-learn.
    """
    restore(folder.resolve())
    while True:
        before = identity(folder)
        try:
            bundle = read_bundle(folder)
        except (BundleError, OSError):
            if identity(folder) == before:
                raise
        else:
            if identity(folder) == before:  # else it was replaced meanwhile, and its files may be of two heads
                return bundle


def identity(folder: Path) -> tuple[int, int]:
    """Return what differs between a folder and the one that took its place; zeros where there is none."""
    try:
        found = folder.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def read_bundle(folder: Path) -> Bundle:
    """Return what lies in a folder; raise as :func:`load_bundle` does."""
    metadata = read_metadata(folder)
    check_files(folder, metadata.files)
    difference = version_difference(metadata.versions)
    try:
        head = load_skops(folder / HEAD)
        check_form(folder, head, metadata)
        if NETWORK in metadata.files:
            check_members(folder / NETWORK)
            head.steps[-1][1].load_network(folder / NETWORK)
        if difference:
            check_works(folder / HEAD, head, metadata.n_features)
    except BundleError as error:
        raise BundleError(f"{error}{difference and f' It {difference}.'}") from error
    if difference:
        warnings.warn(
            f"{folder} {difference}. Score it again with `headstart evaluate`, or fit it again.", stacklevel=3
        )
    return Bundle(
        head=head,
        spec=metadata.spec,
        recipe=metadata.recipe,
        joined_recipes=metadata.joined_recipes,
        class_names=metadata.class_names,
        training_digests=read_digests(folder / TRAINING) if TRAINING in metadata.files else None,
        metrics=read_json(folder / METRICS),
        versions=metadata.versions,
        created=metadata.created,
        folder=folder.resolve(),
        target=metadata.target,
        familiarity=read_familiarity(folder / FAMILIARITY, metadata.recipe) if FAMILIARITY in metadata.files else None,
        decision=metadata.decision,
    )
