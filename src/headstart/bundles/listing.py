"""What saved heads there are: read from their JSON alone, so that nothing heavy is imported and nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.bundles.metadata import FACTS, METRICS, Facts, read_facts
from headstart.errors import BundleError
from headstart.heads.parameters import is_count, is_number
from headstart.safe_zip import check_regular, read_json
from headstart.texts import reason_of
from headstart.types import Recipe


@dataclass(frozen=True, slots=True)
class SavedHead:
    """A saved head, as far as it can be known without loading it.

    Attributes
    ----------
    path : Path
        Its folder; its name is the head's.
    size_bytes : int
        Of all its files.
    problem : str
        Why it cannot be used; empty where nothing is wrong that can be seen from here. Digests are not compared.
    facts : Facts or None
        Type, features, scaling, recipe and the rest; None where they cannot be read.
    accuracy : float or None
        On the images that were held out when it was fitted.
    interval : tuple of float, or None
        Its 95 % interval.
    n_scored : int or None
        How many images those were.
    split : str
        Which they were, in words.
    cache : str
        The cache that it was fitted on; empty where it was not written down.
    """

    path: Path
    size_bytes: int
    problem: str
    facts: Facts | None = None
    accuracy: float | None = None
    interval: tuple[float, float] | None = None
    n_scored: int | None = None
    split: str = ""
    cache: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        values: dict[str, Any] = {
            "name": self.path.name,
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "problem": self.problem or None,
        }
        if self.facts is None:
            return values
        spec, recipe = self.facts.spec, self.facts.recipe
        return values | {
            "type": spec.type,
            "features": list(spec.features),
            "scaling": spec.scaling,
            "params": dict(spec.params),
            "random_state": spec.random_state,
            "n_classes": len(self.facts.class_names),
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.interval) if self.interval else None,
            "n_scored": self.n_scored,
            "split": self.split or None,
            "cache": self.cache or None,
            "recipe": ", ".join(recipe_in_short(recipe)),
            "recipe_fingerprint": recipe.fingerprint,
            "created": self.facts.created,
            "versions": dict(self.facts.versions),
        }


def list_heads(folder: str | Path = "heads") -> list[SavedHead]:
    """Return the saved heads in a folder, by name; broken ones too, each with its problem.

    Folders without a ``bundle.json`` are none; where ``folder`` itself is a saved head, it is the only one.

    Raises
    ------
    BundleError
        If there is no such folder.

    Examples
    --------
    >>> [(head.path.name, head.accuracy) for head in list_heads("heads")]     # doctest: +SKIP
    """
    folder = Path(folder)
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        found = [path for path in (folder, *inside) if (path / FACTS).is_symlink() or (path / FACTS).exists()]
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
        facts = read_facts(path)
    except BundleError as error:
        return SavedHead(path, size, str(error))
    try:
        for name in facts.files:
            check_regular(path / name)
        metrics = read_json(path / METRICS)
    except BundleError as error:
        return SavedHead(path, size, str(error), facts)
    return scored(path, size, facts, metrics if isinstance(metrics, Mapping) else {})


def scored(path: Path, size_bytes: int, facts: Facts, metrics: Mapping[str, Any]) -> SavedHead:
    """Return a saved head with what its metrics say; what is not of the right kind counts as not said."""
    accuracy, interval = metrics.get("accuracy"), metrics.get("accuracy_interval")
    has_interval = isinstance(interval, list) and len(interval) == 2 and all(is_number(end) for end in interval)
    return SavedHead(
        path=path,
        size_bytes=size_bytes,
        problem="",
        facts=facts,
        accuracy=accuracy if is_number(accuracy) else None,
        interval=(interval[0], interval[1]) if interval and has_interval else None,
        n_scored=metrics["n_samples"] if is_count(metrics.get("n_samples")) else None,
        split=word(metrics, "split"),
        cache=word(metrics, "cache"),
    )


def word(values: Mapping[str, Any], name: str) -> str:
    """Return a value that is a string, or an empty one."""
    value = values.get(name)
    return value if isinstance(value, str) else ""


def recipe_in_short(recipe: Recipe) -> tuple[str, str]:
    """Return a recipe in a few words: backbone and layer; input size and the start of its fingerprint."""
    return f"{recipe.backbone} {recipe.layer}", f"{recipe.input_size_px} px, {recipe.fingerprint[:8]}"
