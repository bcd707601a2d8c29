"""Verify a cache against its images: file digests, and features recomputed for a sample of rows.

A file can be intact and still be wrong, e.g. computed with another preprocessing or other weights; only recomputing
rows shows it. What is found comes with the commands that fix it.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.precision import MIN_COSINE, row_cosines
from headstart.backbones.registry import BACKBONES, build_backbone
from headstart.cache.format import FEATURES, POOLED
from headstart.cache.integrity import Finding, verify_file
from headstart.cache.reader import FeatureCache, on_this_machine, open_cache
from headstart.cache.shards import SHARD_NAME
from headstart.errors import CacheError, DataError, ImageError, ParameterError, RecipeMismatchError
from headstart.evaluate.random_crops import images_of
from headstart.images.discovery.refs import state_of
from headstart.images.load import LoadedImage, ReadOptions, batches, in_order, read_image_bytes
from headstart.runtime import usable_cores
from headstart.storage import bucket
from headstart.storage.bucket import Address, Location, location
from headstart.types import Backbone, ImageRef, Progress, Recipe, Silence

#: Largest accepted difference relative to the row's largest value; the cosine is blind to scale and to single values. float16
#: storage costs 2⁻¹¹ = 5e-4, summation order in float32 or a GPU's TF32 less than 1e-2. bfloat16 has 7 bits and rounding
#: differs between machines: 0.026 was measured against float32. int8 sums are exact, but values near a rounding limit move by
#: one of 256 levels. Swapped channels give 0.9, division by 255 gives 1.
MAX_ERROR = {"float32": 0.01, "bfloat16": 0.1, "float16": 0.1, "int8": 0.1}


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a verification.

    Attributes
    ----------
    findings : tuple[Finding, ...]
    n_images : int
        Rows whose image file was read; 0 without a folder of images.
    n_recomputed : int
        Rows that were recomputed.
    lowest_cosine : float
        Worst agreement among recomputed rows; the error is relative to the row's largest value.
    largest_error : float
    not_compared : str
        Why images or features were not compared; empty if they were, or if that was not requested.
    remedies : tuple[str, ...]
        Commands that fix the problems, in order (verify.py).
    """

    findings: tuple[Finding, ...]
    n_images: int = 0
    n_recomputed: int = 0
    lowest_cosine: float = 1.0
    largest_error: float = 0.0
    not_compared: str = ""
    remedies: tuple[str, ...] = ()


def verify_cache(
    path: str | Location,
    data: str | Location | None = None,
    *,
    n_sample: int = 16,
    seed: int = 0,
    weights: str | Path | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    backbone: Backbone | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Return all problems of a cache; given its images, compare digests and recompute some rows too.

    Parameters
    ----------
    path, data : str, Path or Address
        The cache, which is not changed; and the folder of images, optional. Every image is read and its digest compared; a
        sample of rows is recomputed with the cache's recipe.
    n_sample, seed : int
        Rows to recompute, drawn at random from those with an unchanged image; 0 for none.
    weights : str or Path, optional
        ``imagenet`` (the default), or the file with the custom weights of the features.
    batch_size, device
        Images per forward pass; ``auto``, ``cpu`` or ``gpu:N``.
    backbone, progress : optional
        An existing backbone, and progress callbacks.

    Raises
    ------
    CacheError, DataError
        If there is no cache at ``path``, it has another format version, or ``data`` is not a folder.
    RecipeMismatchError, WeightsError
        If the weights are not those of the recipe; checked before anything is read.
    """
    progress = progress or Silence()
    if n_sample < 0:
        raise ParameterError(f"The number of rows to compute again is 0 or more. Received: {n_sample}.")
    root = None if data is None else location(data)
    if isinstance(root, Path) and not root.is_dir():
        raise DataError(f"{data} is not a folder. Expected: the folder of images that {path} was made from.")
    why_not = ""
    file = on_this_machine(location(path))
    if root is not None and n_sample and backbone is None:
        backbone, why_not = _recipe_backbone(file, weights, batch_size, device)
    findings = list(verify_file(file, start=progress.start, advance=progress.advance))
    found, recipe, layout = Verification(tuple(findings)), None, ""
    try:
        if findings or root is not None:
            with open_cache(file) as cache:
                recipe, layout = cache.recipe, cache.layout
                if root is not None:
                    found = Comparison(cache, root, findings, progress).run(backbone, n_sample, seed, why_not)
    except CacheError as error:
        if not findings:
            raise
        found = replace(found, not_compared=f"The images were not compared: {error}" if root is not None else "")
    return replace(found, remedies=remedies(found.findings, location(path), root, recipe, layout))


def _recipe_backbone(
    path: Path, weights: str | Path | None, batch_size: int | None, device: str
) -> tuple[Backbone | None, str]:
    """Return the backbone of a cache's recipe; or None and the reason, for imported features and damaged files."""
    try:
        with open_cache(path) as cache:
            recipe = cache.recipe
    except CacheError as error:
        return None, str(error)
    if recipe.backbone.startswith(FOREIGN):
        return None, (
            f"No row was computed again: the features were made by {recipe.backbone!r}, which headstart cannot run."
        )
    return build_backbone(recipe, weights, batch_size=batch_size, device=device), ""


class Comparison:
    """Compares an open cache with its folder of images; problems are appended to ``findings``."""

    def __init__(self, cache: FeatureCache, root: Location, findings: list[Finding], progress: Progress) -> None:
        self.cache, self.root, self.findings, self.progress = cache, root, findings, progress
        self.lowest_cosine, self.largest_error = 1.0, 0.0

    def run(self, backbone: Backbone | None, n_sample: int, seed: int, why_not: str) -> Verification:
        """Compare the images, then a sample of features."""
        damaged = {finding.row for finding in self.findings if finding.row is not None}
        whole = np.array([row for row in self.unchanged() if row not in damaged], np.int64)
        n_recomputed = 0
        if backbone is not None and len(whole):
            differences = self.cache.recipe.differences(backbone.recipe)
            if differences:
                raise RecipeMismatchError(f"The backbone makes other features: {'; '.join(differences)}.")
            rng = np.random.default_rng(seed)
            chosen = np.sort(rng.choice(whole, min(n_sample, len(whole)), replace=False))
            n_recomputed = self.recompute(chosen, backbone)
        return Verification(
            tuple(self.findings), self.cache.n_images, n_recomputed, self.lowest_cosine, self.largest_error, why_not
        )

    def unchanged(self) -> Iterator[int]:
        """Yield the rows whose image file has the stored digest."""
        self.progress.start(self.cache.n_images)
        paths, digests = self.cache.rows.path, self.cache.rows.sha256
        for row, received in enumerate(in_order(self.digest, paths, usable_cores())):
            expected = digests[row]
            if isinstance(received, ImageError):
                self.findings.append(Finding(IMAGE, f"it cannot be read: {received}", row, paths[row]))
            elif received != expected:
                what = "its bytes are not those that the features were made from (SHA-256)"
                self.findings.append(Finding(IMAGE, what, row, paths[row], expected, received))
            else:
                yield row
            self.progress.advance(1)

    def digest(self, path: str) -> str | ImageError:
        """Return the digest of an image file, or the error if it cannot be read."""
        try:
            return hashlib.sha256(read_image_bytes(self.root, _ref_now(self.root, path))).hexdigest()
        except ImageError as error:
            return error

    def recompute(self, rows: NDArray[np.int64], backbone: Backbone) -> int:
        """Recompute rows and return how many were computed."""
        refs = [_ref_now(self.root, self.cache.rows.path[row]) for row in rows.tolist()]
        job = ReadOptions(self.root)
        n_computed = n_different = 0
        for images, failures in batches(refs, self.cache.recipe, job, lambda: backbone.batch_size):
            for index, failure in failures.items():
                what = f"it cannot be decoded: {failure.reason}"
                self.findings.append(Finding(IMAGE, what, int(rows[index]), failure.ref.path))
            if images:
                n_computed += len(images)
                n_different += self.compare(list(images.values()), rows[list(images)].tolist(), backbone)
        if n_different and n_different == n_computed:
            self.findings.append(Finding(RECIPE, _all_different(n_computed, self.cache.recipe)))
        return n_computed

    def compare(self, images: Sequence[LoadedImage], rows: Sequence[int], backbone: Backbone) -> int:
        """Return how many rows have other features than the stored ones."""
        computed = backbone.forward(np.stack([image.pixels for image in images]))
        stored = {name: self.cache.read_rows(name, np.asarray(rows)) for name in ("features", "pooled")}
        different = set()
        limit = MAX_ERROR[self.cache.recipe.precision]
        for name in ("features", "pooled"):
            cosines, errors = _differences(stored[name], getattr(computed, name))
            self.lowest_cosine = min(self.lowest_cosine, float(cosines.min()))
            self.largest_error = max(self.largest_error, float(errors.max()))
            for row, cosine, error in zip(rows, cosines, errors, strict=True):
                if cosine >= MIN_COSINE and error <= limit:
                    continue
                different.add(row)
                expected = f"cosine at least {MIN_COSINE}, error at most {limit:g} of the largest value"
                received = f"cosine {cosine:.5f}, error {error:.3g}"
                self.findings.append(
                    Finding(f"/{name}", OTHER_VALUES, row, self.cache.rows.path[row], expected, received)
                )
        return len(different)


def _differences(
    stored: NDArray[np.floating], computed: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return per row the cosine, and the largest difference relative to the row's largest value, float64."""
    if not stored[0].size:
        return np.ones(len(stored)), np.zeros(len(stored))
    x, y = (np.reshape(values, (len(values), -1)).astype(np.float64) for values in (stored, computed))
    scale = np.maximum(np.abs(x).max(axis=1), np.abs(y).max(axis=1))
    errors = np.abs(x - y).max(axis=1) / np.where(scale > 0, scale, 1)
    return row_cosines(x, y), errors


def _all_different(n_rows: int, recipe: Recipe) -> str:
    return (
        f"none of the {n_rows} rows computed again agrees with the stored features, although the images are unchanged: they "
        f"were made with another preprocessing (channel order, scale, resize, views) or other weights than the recipe says "
        f"({recipe.backbone}, {recipe.weights}, {recipe.layer}, {recipe.input_size_px} pixels, {recipe.resize}, "
        f"{recipe.views} views)"
    )


def _ref_now(root: Location, path: str) -> ImageRef:
    """Return an image with its current size and time; 0 if it does not exist, so that reading it gives the error."""
    if isinstance(root, Address):
        entry = bucket.stat(root / path)
        return ImageRef(path, None, None, None, entry.size_bytes if entry else 0, entry.changed_ns if entry else 0)
    try:
        return ImageRef(path, None, None, None, *state_of((root / path).stat()))
    except (OSError, ValueError):
        return ImageRef(path, None, None, None, 0, 0)


#: ``Finding.place`` of an image file, and of the recipe as a whole.
IMAGE, RECIPE = "image", "recipe"

#: Prefix of ``Recipe.backbone`` for imported features.
FOREIGN = "foreign:"

#: Recipe field → option of ``extract-features`` and its default; those of the backbone are in its description.
OPTIONS: Mapping[str, tuple[str, object]] = {
    "backbone": ("--backbone", "vgg16"),
    "layer": ("--layer", None),
    "input_size_px": ("--input-size", None),
    "resize": ("--resize", "keras-bilinear"),
    "storage": ("--storage", "float16"),
    "views": ("--views", "single"),
    "page": ("--page", None),
    "intensity": ("--intensity", "type"),
    "random_crop": ("--augment", 0),
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
    output = shlex.quote(images_of(cache)) if recipe is not None and recipe.random_crop else name
    extract = " ".join(["extract-features", folder, "-o", output, *_options_of(recipe, layout)])
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
    own: dict[str, str | int] = {}
    if recipe.own_network:
        yield "--backbone MODEL.onnx"
        own = {"backbone": recipe.backbone, "layer": recipe.layer, "input_size_px": recipe.input_size_px}
    elif recipe.weights == "custom":
        yield "--weights FILE --custom-weights"
    if spec := BACKBONES.get(recipe.backbone):
        own = {"layer": spec.default_layer, "input_size_px": spec.default_input_size_px}
    for field, (option, default) in OPTIONS.items():
        value = getattr(recipe, field)
        if value not in (None, default, own.get(field)):
            yield f"{option} {':'.join(map(str, value)) if isinstance(value, tuple) else shlex.quote(str(value))}"
