"""What is settled before the first shard: the network, its recipe and precision, and the intensities of the data set.

A precision is tried, and a network quantised, on images of the user. Intensities are the sample values that become black and
white in all images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import registry
from headstart.backbones.convnet import Weights
from headstart.backbones.precision import (
    CALIBRATION_IMAGES,
    CALIBRATION_SEED,
    choose_precision,
    pick_device,
    row_cosines,
)
from headstart.backbones.spec import BackboneSpec
from headstart.errors import HeadstartError, ImageError
from headstart.extract.options import ExtractOptions
from headstart.extract.shard_jobs import ShardJob
from headstart.images.decode import LARGE_PIXELS, MAX_PIXELS, one_large_image, open_file, readable_errors
from headstart.images.discovery.scan import ImageSet
from headstart.images.load import LoadedImage, decoded, in_order, read_image_bytes, threads_of
from headstart.images.samples import DecodeRules, Samples, check_finite, check_kind, chosen_picture
from headstart.types import Backbone, ImageRef, Progress, Quantization, Recipe

#: Images on which a reduced precision is proven.
PROOF_IMAGES = 32


@dataclass(frozen=True, slots=True)
class Sample:
    """Some decoded images."""

    pixels: NDArray[np.uint8]  # RGB, shape (n_images, size, size, 3)
    sha256: tuple[str, ...]  # digests of their files


def draw_sample(refs: Sequence[ImageRef], recipe: Recipe, job: ShardJob) -> Sample:
    """Return up to :data:`CALIBRATION_IMAGES` images, drawn with :data:`CALIBRATION_SEED`, without unreadable ones."""
    rng = np.random.default_rng(CALIBRATION_SEED)
    order = rng.permutation(len(refs)).tolist()
    images = _readable((refs[number] for number in order), recipe, job, CALIBRATION_IMAGES)
    return Sample(np.stack([image.pixels for image in images]), tuple(image.row.sha256 for image in images))


def first_images(refs: Sequence[ImageRef], recipe: Recipe, job: ShardJob, n_images: int) -> NDArray[np.uint8]:
    """Return the first decodable images, shape (n_images, size, size, 3); fewer, or none, if not so many can be decoded."""
    images = _readable(refs, recipe, job, n_images)
    return np.stack([image.pixels for image in images]) if images else np.empty(0, np.uint8)


def _readable(refs: Iterable[ImageRef], recipe: Recipe, job: ShardJob, n_images: int) -> list[LoadedImage]:
    with closing(decoded(refs, recipe, job, ahead=n_images)) as results:
        return list(islice((result for result in results if isinstance(result, LoadedImage)), n_images))


class Network:
    """The network of a run: its recipe at once, its backbone when it is needed."""

    def __init__(self, options: ExtractOptions) -> None:
        self.options = options

    @cached_property
    def spec(self) -> BackboneSpec:
        """Description of the backbone."""
        return registry.backbone_spec(self.options.backbone)

    @property
    def weights_name(self) -> str | Path:
        """Name of published weights, or a file."""
        return self.options.weights or next(iter(self.spec.weights))

    @cached_property
    def weights(self) -> Weights:
        """The weights, read and checked once."""
        return self.spec.load_weights(self.weights_name, custom=self.options.custom_weights)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle for other processes, with the weights; each process sees only its own one of several devices.

        With the description of an own network too, whose file other machines need not have.
        """
        options = self.options
        several = options.device != options.first_device
        own = {"spec": self.spec} if self.spec.own_network else {}
        return {"options": replace(options, device="auto") if several else options, "weights": self.weights, **own}

    def is_at_hand(self) -> bool:
        """Return whether the weights need no download."""
        return str(self.weights_name) not in self.spec.weights or self.spec.has_local_weights()

    def wanted(self, existing: Recipe | None) -> Recipe:
        """Return the recipe of the options; ``auto`` becomes the precision of the existing features.

        Only the user's own weights are read for it: the digests of published ones are known.
        """
        options, spec = self.options, self.spec
        published = None if options.custom_weights else spec.weights.get(str(self.weights_name))
        auto = existing.precision if existing is not None else "float32"
        precision = auto if options.precision == "auto" else options.precision
        return spec.recipe(
            weights=str(self.weights_name) if published else self.weights.name,
            weights_sha256=published or self.weights.sha256,
            layer=options.layer,
            input_size_px=options.input_size_px,
            resize=options.resize,
            precision=precision,
            storage=options.storage,
            quantization=existing.quantization if existing is not None and precision == "int8" else None,
            views=options.views,
            page=options.page,
            intensity=None if isinstance(options.intensity, str) else options.intensity,
            random_crop=options.random_crop,
        )

    def backbone(
        self, existing: Recipe | None, images: NDArray[np.uint8], sample: Callable[[], Sample]
    ) -> tuple[Backbone, str]:
        """Return the backbone and a sentence on its precision, which is that of the ``existing`` features, if there are any.

        ``images`` are the first of the user's images, uint8 of shape (n_images, size, size, 3), for the proof of a
        reduced precision; ``sample`` draws the images on which an int8 network is quantised.
        """
        if existing is not None:
            backbone = self.build(existing.precision, existing.quantization)
            return backbone, f"{existing.precision}: as the rows that exist"
        if self.options.precision == "int8":
            return self.quantized(images, sample)
        if self.options.precision != "auto":
            return self.build(self.options.precision), f"{self.options.precision}: as asked for"
        device = pick_device(self.options.first_device)
        reduced = registry.type_to_prove(device, registry.installed_engines(), self.spec)
        backbone, reason = choose_precision(self.build, reduced, device.name, images)
        engine = registry.pick_engine(backbone.recipe.precision, device.name, self.spec)
        return backbone, f"{reason}; on {registry.engine_label(engine)}"

    def quantized(self, images: NDArray[np.uint8], sample: Callable[[], Sample]) -> tuple[Backbone, str]:
        """Return the network in 8-bit integers; the sentence compares its features with those of float32 on these images."""
        registry.check_cpu(self.options.first_device)
        from headstart.backbones.openvino import OpenVinoBackbone, calibrate

        plain = replace(registry.network_recipe(self.wanted(None)), precision="float32")
        exact = registry.in_views(OpenVinoBackbone.from_recipe(plain, self.weights), self.options.views)
        drawn = sample()
        quantization = calibrate(self.weights, drawn.pixels, drawn.sha256)
        backbone = self.build("int8", quantization)
        cosines = row_cosines(exact.forward(images).features, backbone.forward(images).features)
        return backbone, (
            f"int8: as asked for; quantised on {quantization.n_images} of your images; cosine to float32 on your first "
            f"{len(images)} images: mean {cosines.mean():.5f}, lowest {cosines.min():.5f}"
        )

    def build(self, precision: str, quantization: Quantization | None = None) -> Backbone:
        """Return the backbone in one precision."""
        recipe = replace(self.wanted(None), precision=precision, quantization=quantization)
        return registry.build_backbone(
            recipe, self.weights, batch_size=self.options.batch_size, device=self.options.first_device
        )


#: Percentiles of each image that are its limits; ``percentiles`` excludes a few hot or dead pixels, and at most half a
#: percent of any image at either end.
PERCENTILES = {"range": (0.0, 100.0), "percentiles": (0.5, 99.5)}


def find_intensity(
    images: ImageSet, job: ShardJob, how: str, page: int | str | None, progress: Progress
) -> tuple[float, float] | None:
    """Return the sample values that become 0 and 255 in all images; None if no image has more than 8 bits.

    These are the lowest and the highest of the limits of all images, each of which is read, without unreadable ones;
    ``how`` is a key of :data:`PERCENTILES`. Raises HeadstartError if it is unknown.
    """
    if how not in PERCENTILES:
        raise HeadstartError(f"Unknown intensity {how!r}. Expected type, {', '.join(PERCENTILES)} or two numbers.")
    progress.message(f"Looking for the {how} of the intensities of {len(images.refs):,} images")

    def look(ref: ImageRef) -> tuple[float, float] | None:
        try:
            data = read_image_bytes(images.root, ref)
            return _sample_limits(data, ref.path, DecodeRules(page), PERCENTILES[how])
        except ImageError:
            return None

    low, high = math.inf, -math.inf
    for limits in in_order(look, images.refs, threads_of(images.root, job.decode_threads)):
        if limits is not None:
            low, high = min(low, limits[0]), max(high, limits[1])
    if low > high:
        progress.message("No image has more than 8 bits: intensities stay as they are")
        return None
    high = high if high > low else low + 1
    progress.message(f"Intensities {low:g} to {high:g} become black to white")
    return low, high


def _sample_limits(
    data: bytes, name: str, rules: DecodeRules, percentiles: tuple[float, float]
) -> tuple[float, float] | None:
    """Return two percentiles (0–100) of an image's samples; None for an 8-bit image, which is not decoded."""
    with readable_errors():
        file = open_file(data, name, MAX_PIXELS)
        if not file.is_deep():
            return None
        with one_large_image() if math.prod(file.size) >= LARGE_PIXELS else nullcontext():
            return _limits_of(chosen_picture(file, rules, MAX_PIXELS, []), percentiles)


def _limits_of(samples: Samples, percentiles: tuple[float, float]) -> tuple[float, float] | None:
    check_kind(samples.values)
    values = samples.colours
    if values.dtype == np.uint8:
        return None
    check_finite(values)
    if percentiles == (0, 100):
        return float(values.min()), float(values.max())
    low, high = np.percentile(values.astype(np.float64), percentiles)
    return float(low), float(high)
