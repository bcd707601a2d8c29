"""Commands that fix the problems found in a cache."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping

from headstart.cache.checks.integrity import Finding
from headstart.cache.format import FEATURES, POOLED
from headstart.cache.shards import SHARD_NAME
from headstart.storage.address import Address, Location
from headstart.types import Recipe

#: ``Finding.place`` of an image file, and of the recipe as a whole.
IMAGE, RECIPE = "image", "recipe"

#: Prefix of ``Recipe.backbone`` for imported features.
FOREIGN = "foreign:"

#: Recipe field → option of ``extract-features`` and its default.
OPTIONS: Mapping[str, tuple[str, object]] = {
    "backbone": ("--backbone", "vgg16"),
    "layer": ("--layer", "block5_pool"),
    "input_size_px": ("--input-size", 224),
    "resize": ("--resize", "keras-bilinear"),
    "storage": ("--storage", "float16"),
    "views": ("--views", "single"),
    "page": ("--page", None),
    "intensity": ("--intensity", "type"),
}

#: ``Finding.what`` of an intact row that the network does not reproduce.
OTHER_VALUES = "the network gives other values for this image"


def is_damaged_shard(finding: Finding) -> bool:
    """Return whether a shard is missing or damaged."""
    return SHARD_NAME.fullmatch(finding.place) is not None


def is_damaged_row(finding: Finding) -> bool:
    """Return whether only a row of features or averages is damaged."""
    is_row = finding.row is not None and finding.place in (f"/{FEATURES}", f"/{POOLED}")
    return is_row and finding.what != OTHER_VALUES


def remedies(
    findings: Iterable[Finding], cache: Location, data: Location | None, recipe: Recipe | None, layout: str
) -> tuple[str, ...]:
    """Return the commands that fix a cache, in order; placeholders are in capitals.

    Rows with changed or missing images need an update, damaged rows a repair, and anything else a new cache. ``data``
    and ``recipe`` are None, and ``layout`` is empty, if unknown.
    """
    found = list(findings)
    if not found:
        return ()
    folder, name = shlex.quote(str(data)) if data else "FOLDER", shlex.quote(str(cache))
    if recipe is not None and recipe.backbone.startswith(FOREIGN):
        made_by = shlex.quote(recipe.backbone.removeprefix(FOREIGN))
        return (f"headstart import FEATURES -o {name} --name {made_by} --overwrite",)
    extract = " ".join(["extract-features", folder, "-o", name, *_options_of(recipe, layout)])
    images = [finding for finding in found if finding.place == IMAGE]
    damaged = [finding for finding in found if is_damaged_row(finding) or is_damaged_shard(finding)]
    if len(images) + len(damaged) < len(found) or (damaged and isinstance(cache, Address)):
        precision = f" --precision {recipe.precision}" if recipe else ""
        return (f"{extract}{precision} --overwrite",)
    update, repair = [f"{extract} --check-bytes"] * bool(images), [f"headstart repair {name} {folder}"] * bool(damaged)
    return (*update, *repair)


def _options_of(recipe: Recipe | None, layout: str) -> Iterator[str]:
    if layout == "manifest":
        yield "--manifest CSV"
    if recipe is None:
        return
    if recipe.weights == "custom":
        yield "--weights FILE --custom-weights"
    for field, (option, default) in OPTIONS.items():
        value = getattr(recipe, field)
        if value not in (None, default):
            yield f"{option} {':'.join(map(str, value)) if isinstance(value, tuple) else shlex.quote(str(value))}"
