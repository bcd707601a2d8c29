"""``bundle.json``, the metadata of a saved head; comparing versions; and listing saved heads."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.decisions.rule import DecisionRule, rule_from
from headstart.errors import BundleError, HeadstartError
from headstart.heads.catalogue import check_spec, head_kind
from headstart.heads.head_specs import by_cache, is_count, is_number, is_path, is_scikit_learn
from headstart.texts import reason_of
from headstart.types import ENSEMBLE, SINGLE_LABEL, HeadSpec, Recipe

#: The metrics of a thousand classes, with their confusion matrix, take some megabytes.
MAX_JSON_BYTES = 64 * 1024**2


FORMAT = "headstart-bundle"
#: Raised by one when a program that knows the version before could not read what is written now; all older ones are read.
#: 2: ``training.digests``. 3, only where there are some: ``joined_recipes`` and ``widths`` of the spec; or an ensemble.
#: 4, only for those: heads that predict something else than classes. 5, where they are there: ``familiarity.bin``, a
#: ``decision``.
FORMAT_VERSION = 5

METADATA, METRICS, HEAD, NETWORK, TRAINING, FAMILIARITY, PREDICTIONS = (
    "bundle.json",
    "metrics.json",
    "head.skops",
    "network.keras",
    "training.digests",
    "familiarity.bin",
    "predictions.csv",
)

#: Files that every saved head has beside ``bundle.json``, and those that only some have.
REQUIRED, OPTIONAL = frozenset({METRICS, HEAD}), frozenset({NETWORK, TRAINING, FAMILIARITY})


@dataclass(frozen=True, slots=True)
class BundleMetadata:
    """Metadata of a saved head, read before the head is loaded."""

    spec: HeadSpec
    recipe: Recipe
    class_names: tuple[str, ...]  # the classes of the cache it was fitted on
    n_features: int | None  # columns of its input; None where it was not written down
    versions: Mapping[str, str]  # versions of the packages that fitted it
    created: str  # time of saving (ISO 8601, UTC)
    files: Mapping[str, str]  # SHA-256 of each file beside ``bundle.json``
    target: str = SINGLE_LABEL  # name of what it predicts (evaluate/targets.py)
    joined_recipes: tuple[Recipe, ...] = ()  # of further caches, whose features lie beside those of ``recipe``
    decision: DecisionRule | None = None  # None: the most probable class

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """All recipes, in the order of the features."""
        return self.recipe, *self.joined_recipes

    @property
    def format_version(self) -> int:
        """The version of the format in which this head is saved."""
        if FAMILIARITY in self.files or self.decision:
            return 5
        if head_kind(self.spec.type).task != "classification":
            return 4
        return 3 if self.joined_recipes or self.spec.type == ENSEMBLE else 2

    def to_json(self) -> str:
        """Return the text of ``bundle.json``."""
        values = {
            "format": FORMAT,
            "format_version": self.format_version,
            "spec": self.spec.to_dict(),
            **recipe_to_dict(self.recipe),
            "target": self.target,
            "class_names": list(self.class_names),
            "n_features": self.n_features,
            "versions": dict(self.versions),
            "created": self.created,
            "files": dict(self.files),
        }
        if self.joined_recipes:
            values["joined_recipes"] = [recipe_to_dict(recipe) for recipe in self.joined_recipes]
        if self.decision:
            values["decision"] = self.decision.to_dict()
        return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe with its fingerprint, JSON types."""
    return {"recipe": json.loads(recipe.to_json()), "recipe_fingerprint": recipe.fingerprint}


def recipe_from(values: Mapping[str, Any]) -> Recipe:
    """Return the inverse of :func:`recipe_to_dict`; raise as :func:`metadata_from` does."""
    recipe = Recipe.from_json(json.dumps(values["recipe"]))
    if values["recipe_fingerprint"] != recipe.fingerprint:
        raise ValueError("the fingerprint is not that of the recipe.")
    return recipe


def read_metadata(folder: Path) -> BundleMetadata:
    """Return the metadata in ``bundle.json``, every value checked.

    Raises BundleError if it is missing, damaged, of a newer version, or written by another program.
    """
    if not (folder / METADATA).is_symlink() and not (folder / METADATA).exists():
        raise BundleError(f"There is no saved head in {folder}. Expected: a folder that fit-head wrote.")
    values = read_json(folder / METADATA)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise BundleError(f"{folder} is no saved head of headstart.")
    version = values.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise BundleError(
            f"{folder} has format version {version}; this program reads up to {FORMAT_VERSION}. Update it."
        )
    try:
        if version not in range(1, FORMAT_VERSION + 1) or isinstance(version, bool):
            raise ValueError(f"there is no format version {version!r}")
        return metadata_from(values)
    except KeyError as error:
        raise BundleError(f"{folder} is damaged: bundle.json lacks {error}.") from error
    except (HeadstartError, TypeError, ValueError) as error:
        raise BundleError(f"{folder} is damaged: in bundle.json, {error}") from error


def metadata_from(values: Mapping[str, Any]) -> BundleMetadata:
    """Return the metadata with these JSON values.

    Raises KeyError, TypeError, ValueError or HeadstartError if one is missing, or is not what it should be.
    """
    spec, n_features = spec_from(typed(values, "spec", Mapping)), values.get("n_features")
    joined = tuple(map(recipe_from, typed({"joined_recipes": [], **values}, "joined_recipes", list)))
    check_widths(spec, 1 + len(joined), n_features)
    class_names = words(values, "class_names")
    if len(set(class_names)) != len(class_names):
        raise ValueError(f"class_names holds a name twice: {', '.join(class_names)}.")
    if "decision" in values and head_kind(spec.type).task in ("regression", "anomaly"):
        raise ValueError(f"a {spec.type} head has no decision.")
    files = mapping_of_words(values, "files")
    if not set(files) >= REQUIRED or set(files) - REQUIRED - OPTIONAL:
        raise ValueError(
            f"files are {', '.join(sorted(REQUIRED))} and perhaps {', '.join(sorted(OPTIONAL))}. "
            f"Received: {', '.join(sorted(files))}."
        )
    return BundleMetadata(
        spec=spec,
        recipe=recipe_from(values),
        class_names=class_names,
        n_features=typed(values, "n_features", int) if n_features is not None else None,
        versions=mapping_of_words(values, "versions"),
        created=typed(values, "created", str),
        files=files,
        target=typed({"target": SINGLE_LABEL, **values}, "target", str),
        joined_recipes=joined,
        decision=rule_from(values["decision"], class_names) if "decision" in values else None,
    )


def check_widths(spec: HeadSpec, n_recipes: int, n_features: Any) -> None:
    """Raise ValueError unless a spec has the widths of as many caches as there are recipes; none of a single one."""
    if len(spec.widths) != (n_recipes if n_recipes > 1 else 0) or (spec.widths and sum(spec.widths) != n_features):
        raise ValueError(
            f"the widths {list(spec.widths)} are not those of {n_recipes} recipes with {n_features} columns in all."
        )
    if spec.widths:
        by_cache(spec.features, n_recipes)


def spec_from(values: Mapping[str, Any]) -> HeadSpec:
    """Return the spec of these values; raise as :func:`metadata_from` does."""
    spec = HeadSpec(
        type=typed(values, "type", str),
        features=words(values, "features"),
        scaling=typed(values, "scaling", str),
        random_state=typed(values, "random_state", int),
        params=dict(typed(values, "params", Mapping)),
        widths=tuple(typed({"widths": [], **values}, "widths", list)),
    )
    if is_path(spec.type) and not is_scikit_learn(spec.type):
        raise ValueError(f"a head of type {spec.type} is none of scikit-learn's, and no other is loaded.")
    check_spec(spec)
    return spec


def typed(values: Mapping[str, Any], name: str, kind: type) -> Any:
    """Return a value that is of this type; raise ValueError where it is of another."""
    value = values[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{name} is of the wrong type. Received: {value!r}.")
    return value


def words(values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return a list of one or more strings as a tuple; raise ValueError where it is none."""
    found = typed(values, name, list)
    if not found or not all(isinstance(word, str) for word in found):
        raise ValueError(f"{name} is a list of words. Received: {found!r}.")
    return tuple(found)


def mapping_of_words(values: Mapping[str, Any], name: str) -> dict[str, str]:
    """Return a mapping of strings to strings; raise ValueError where it is none."""
    found = dict(typed(values, name, Mapping))
    if not all(isinstance(word, str) for word in found.values()):
        raise ValueError(f"{name} maps words to words. Received: {found!r}.")
    return found


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Raise BundleError where a file is missing, is a link, or is not the one that was saved."""
    for name, expected in files.items():
        path = folder / name
        found = path.is_symlink() or path.exists()
        if found:
            check_regular(path)
        if not found or digest(path) != expected:
            raise BundleError(
                f"{folder} is damaged: {name} is missing or not the file that was saved. Fit the head again."
            )


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raise BundleError if it is invalid, too large, or not a regular file."""
    check_regular(path)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise BundleError(f"{path} is larger than the {MAX_JSON_BYTES:,} bytes allowed in a saved head.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read: {reason_of(error)}") from error


def check_regular(path: Path) -> None:
    """Raise BundleError if a file is missing, or is a link, a pipe or a device."""
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {reason_of(error)}") from error
    if not stat.S_ISREG(mode):
        raise BundleError(f"{path} is not a regular file. Copy the saved head with its links resolved.")


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class SavedHead:
    """A saved head, described without loading it."""

    path: Path
    size_bytes: int
    problem: str  # why it cannot be used; empty where nothing is wrong. Digests are not compared.
    #: Type, features, scaling, recipe and the rest; None where they cannot be read
    metadata: BundleMetadata | None = None
    accuracy: float | None = None  # on the images that were held out when it was fitted
    interval: tuple[float, float] | None = None  # its 95 % interval
    rmse: float | None = None  # root mean squared error on these images, of a head for numbers
    n_scored: int | None = None
    split: str = ""
    cache: str = ""  # the cache that it was fitted on, or several with + between; empty where it was not written down

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        values: dict[str, Any] = {
            "name": self.path.name,
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "problem": self.problem or None,
        }
        if self.metadata is None:
            return values
        spec, recipes = self.metadata.spec, self.metadata.recipes
        joined = {"joined_fingerprints": [recipe.fingerprint for recipe in recipes[1:]]} if recipes[1:] else {}
        return (
            values
            | joined
            | {
                "type": spec.type,
                "features": list(spec.features),
                "scaling": spec.scaling,
                "params": dict(spec.params),
                "random_state": spec.random_state,
                "n_classes": len(self.metadata.class_names),
                "target": self.metadata.target,
                "accuracy": self.accuracy,
                "rmse": self.rmse,
                "accuracy_interval": list(self.interval) if self.interval else None,
                "n_scored": self.n_scored,
                "split": self.split or None,
                "cache": self.cache or None,
                "recipe": " + ".join(", ".join(recipe_in_short(recipe)) for recipe in recipes),
                "recipe_fingerprint": recipes[0].fingerprint,
                "created": self.metadata.created,
                "versions": dict(self.metadata.versions),
            }
        )


def list_heads(folder: str | Path = "heads") -> list[SavedHead]:
    """Return the saved heads in a folder, by name; broken ones too, each with its problem.

    Folders without a ``bundle.json`` are none; where ``folder`` itself is a saved head, it is the only one. Raises
    BundleError if there is no such folder.

    Examples
    --------
    >>> [(head.path.name, head.accuracy) for head in list_heads("heads")]     # doctest: +SKIP
    """
    folder = Path(folder)
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        found = [path for path in (folder, *inside) if (path / METADATA).is_symlink() or (path / METADATA).exists()]
    except OSError as error:
        raise BundleError(f"{folder} cannot be listed: {reason_of(error)}. fit-head saves heads in heads/.") from error
    return [look_at(path) for path in (found[:1] if folder in found else found)]


def look_at(path: Path) -> SavedHead:
    """Return what can be seen of one saved head."""
    try:
        size = sum(file.lstat().st_size for file in path.iterdir())
    except OSError as error:
        return SavedHead(path, 0, f"{path} cannot be read: {reason_of(error)}")
    try:
        metadata = read_metadata(path)
    except BundleError as error:
        return SavedHead(path, size, str(error))
    try:
        for name in metadata.files:
            check_regular(path / name)
        metrics = read_json(path / METRICS)
    except BundleError as error:
        return SavedHead(path, size, str(error), metadata)
    return scored(path, size, metadata, metrics if isinstance(metrics, Mapping) else {})


def scored(path: Path, size_bytes: int, metadata: BundleMetadata, metrics: Mapping[str, Any]) -> SavedHead:
    """Return a saved head with what its metrics say; what is not of the right kind counts as not said."""
    accuracy, interval = metrics.get("accuracy"), metrics.get("accuracy_interval")
    has_interval = isinstance(interval, list) and len(interval) == 2 and all(is_number(end) for end in interval)
    return SavedHead(
        path=path,
        size_bytes=size_bytes,
        problem="",
        metadata=metadata,
        accuracy=accuracy if is_number(accuracy) else None,
        interval=(interval[0], interval[1]) if interval and has_interval else None,
        rmse=metrics["rmse"] if is_number(metrics.get("rmse")) else None,
        n_scored=metrics["n_samples"] if is_count(metrics.get("n_samples")) else None,
        split=word(metrics, "split"),
        cache=" + ".join([word(metrics, "cache"), *strings(metrics, "joined_caches")]),
    )


def word(values: Mapping[str, Any], name: str) -> str:
    """Return a value that is a string, or an empty one."""
    value = values.get(name)
    return value if isinstance(value, str) else ""


def strings(values: Mapping[str, Any], name: str) -> list[str]:
    """Return a value that is a list of strings, or an empty one."""
    value = values.get(name)
    return value if isinstance(value, list) and all(isinstance(one, str) for one in value) else []


def recipe_in_short(recipe: Recipe) -> tuple[str, str]:
    """Return a recipe in a few words: backbone and layer; input size and the start of its fingerprint."""
    return f"{recipe.backbone} {recipe.layer}", f"{recipe.input_size_px} px, {recipe.fingerprint[:8]}"
