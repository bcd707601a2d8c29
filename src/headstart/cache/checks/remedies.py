"""What helps against what is wrong with a cache: the commands, as they can be typed."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from headstart.cache.format import FEATURES, POOLED
from headstart.cache.sharded.shard_folder import SHARD_NAME
from headstart.storage.address import Address

if TYPE_CHECKING:
    from headstart.cache.checks.integrity import Finding
    from headstart.storage.address import Location
    from headstart.types import Recipe

#: Places of findings that concern an image file, or the recipe as a whole.
IMAGE, RECIPE = "image", "recipe"

#: What the backbone of features begins with that other software made.
FOREIGN = "foreign:"

#: Fields of a recipe, the options of ``extract-features`` that set them, and the defaults of these.
OPTIONS: Mapping[str, tuple[str, object]] = {
    "layer": ("--layer", "block5_pool"),
    "input_size_px": ("--input-size", 224),
    "resize": ("--resize", "keras-bilinear"),
    "storage": ("--storage", "float16"),
    "views": ("--views", "single"),
    "page": ("--page", None),
    "intensity": ("--intensity", "type"),
}

#: What is wrong with a row that is whole, and that the network computes otherwise.
OTHER_VALUES = "the network gives other values for this image"


def is_damaged_shard(finding: Finding) -> bool:
    """Return whether a file in a folder of shards is missing or damaged."""
    return SHARD_NAME.fullmatch(finding.place) is not None


def is_damaged_row(finding: Finding) -> bool:
    """Return whether a row of features or averages is damaged, and nothing else."""
    is_row = finding.row is not None and finding.place in (f"/{FEATURES}", f"/{POOLED}")
    return is_row and finding.what != OTHER_VALUES


def remedies(
    findings: Iterable[Finding], cache: Location, data: Location | None, recipe: Recipe | None, layout: str
) -> tuple[str, ...]:
    """Return the commands after which a cache is as it should be, in their order; none where nothing is wrong.

    Images that are other ones, or gone, are brought up to date; damaged rows are computed again; anything else needs the
    whole cache anew. What only the user knows is in capital letters.

    Parameters
    ----------
    findings : iterable of Finding
        What is wrong.
    cache : Path or Address
        The cache.
    data : Path or Address or None
        Its folder of images, where it is known.
    recipe : Recipe or None
        How its features were made, where that can be read.
    layout : str
        Of the folder of images; empty where it is not known.
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
    """Yield the options by which ``extract-features`` makes features of a recipe, but for those that are the default."""
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
