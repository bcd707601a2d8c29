"""How fast this machine decodes, computes and writes: each step of a run on its own."""

from __future__ import annotations

import io
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from headstart.backbones.quantize import CALIBRATION_IMAGES
from headstart.backbones.registry import build_backbone
from headstart.backbones.vgg16 import make_recipe
from headstart.images.load import decode_resized
from headstart.types import FeatureBatch, ImageRef, ImageRow

if TYPE_CHECKING:
    from headstart.backbones.device import Device
    from headstart.backbones.weights import Weights
    from headstart.types import Backbone, Recipe

#: Grains of the noise, pixels, and how much each of them covers of what lies below: patches, texture, grain. Chosen so that a
#: picture has about 0.28 bytes per pixel as a JPEG of quality 90, as photographs have (flowers17: median 0.28, nine of ten
#: between 0.17 and 0.46).
GRAINS = ((64, 1.0), (8, 0.3), (2, 0.12))

#: Quality of the JPEG, as cameras and image editors write it.
QUALITY = 90


def photograph(megapixels: float, *, seed: int = 0) -> bytes:
    """Return a JPEG of about that many million pixels, 4:3, quality 90, of smooth noise; equal for equal arguments."""
    width = round(math.sqrt(megapixels * 1e6 * 4 / 3))
    size = (width, round(width * 3 / 4))
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", size)
    for grain, share in GRAINS:
        shape = (max(2, size[1] // grain), max(2, size[0] // grain), 3)
        noise = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        picture = Image.blend(picture, noise.resize(size, Image.Resampling.BICUBIC), share)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


#: Sizes of the JPEGs that are decoded, millions of pixels: a picture of the web, a small and a usual photograph.
MEGAPIXELS = (0.1, 1.0, 12.0)

#: Those that are decoded by the preset ``jpeg-draft`` too.
LARGE_MEGAPIXELS = (12.0,)

#: Each rate is measured for so long, seconds, and at least once.
SECONDS = 1.5

#: Height and width of the network's input, pixels, as extract-features has it by default.
INPUT_SIZE_PX = 224

#: Rows of one written file, and the share of zeros in block5_pool.
WRITTEN_ROWS, ZEROS = 256, 0.9


@dataclass(frozen=True, slots=True)
class Rates:
    """What was measured.

    Attributes
    ----------
    decode : dict of float to float
        Megapixels of a JPEG → images/s of one thread's processor time, from bytes to the network's input.
    draft : dict of float to float
        The same with the preset ``jpeg-draft``, of large ones.
    forward : dict of str to float
        Precision → images/s of the whole device, full batches, compiled and warm.
    write : float
        Rows/s of ``block5_pool``, float16, by the default compression, on the disk where features go.
    int8_seconds : float
        That a run in ``int8`` begins later for, where ``forward`` has that: its sample goes through the network first.
    """

    decode: dict[float, float]
    draft: dict[float, float]
    forward: dict[str, float]
    write: float
    int8_seconds: float = 0.0


def per_second(
    step: Callable[[], object],
    n_images: int = 1,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return images per second, by a clock, of a step that handles ``n_images``; it is done once before, to warm up."""
    step()
    n_steps, started = 0, clock()
    while n_steps == 0 or clock() - started < seconds:
        step()
        n_steps += 1
    return n_steps * n_images / (clock() - started)


def decode_rates(
    megapixels: tuple[float, ...] = MEGAPIXELS, *, preset: str = "keras-bilinear", seconds: float = SECONDS
) -> dict[float, float]:
    """Return images/s of one thread per size, from the bytes of a synthetic JPEG to the network's input."""
    steps = {size: partial(decode_resized, photograph(size), "", INPUT_SIZE_PX, preset) for size in megapixels}
    return {size: per_second(step, seconds=seconds, clock=time.thread_time) for size, step in steps.items()}


def forward_rates(weights: Weights, device: Device, *, seconds: float = SECONDS) -> tuple[dict[str, float], Recipe]:
    """Return images/s in float32 and in the device's reduced type, and the recipe of the former."""
    recipe = make_recipe(weights=weights.name, weights_sha256=weights.sha256, input_size_px=INPUT_SIZE_PX)
    types = filter(None, ("float32", device.reduced_precision))
    backbones = (build_backbone(replace(recipe, precision=name), weights, device=device.name) for name in types)
    return {backbone.recipe.precision: forward_rate(backbone, seconds=seconds) for backbone in backbones}, recipe


def int8_rate(weights: Weights, recipe: Recipe, *, seconds: float = SECONDS) -> tuple[float, float]:
    """Return images/s in int8, and the seconds in which noise of a sample's size goes through the network for it.

    Raises
    ------
    HeadstartError
        If OpenVINO is not installed, or this processor cannot compute in int8.
    """
    from headstart.backbones.openvino import OpenVinoBackbone, calibrate

    shape = (CALIBRATION_IMAGES, INPUT_SIZE_PX, INPUT_SIZE_PX, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    started = time.perf_counter()
    quantization = calibrate(weights, noise, ())
    cost = time.perf_counter() - started
    quantized = replace(recipe, precision="int8", quantization=quantization)
    return forward_rate(OpenVinoBackbone.from_recipe(quantized, weights), seconds=seconds), cost


def forward_rate(backbone: Backbone, *, seconds: float = SECONDS) -> float:
    """Return images/s of full batches."""
    size = backbone.recipe.input_size_px
    images = np.random.default_rng(0).integers(0, 256, (backbone.batch_size, size, size, 3), dtype=np.uint8)
    return per_second(lambda: backbone.forward(images), len(images), seconds)


def write_rate(recipe: Recipe, folder: Path, *, seconds: float = SECONDS) -> float:
    """Return rows/s of features like those of photographs, written to temporary files in a folder, which are deleted."""
    from headstart.cache.writer import ShardWriter

    rng = np.random.default_rng(0)
    values = rng.gamma(1.0, 10.0, (WRITTEN_ROWS, 7, 7, 512)).astype(np.float32)
    values[rng.random(values.shape) < ZEROS] = 0
    batch = FeatureBatch(values, rng.random((WRITTEN_ROWS, 1472), np.float32))
    rows = [ImageRow(ImageRef(f"{i}.jpg", None, None, None, 1, 1), f"{i:064x}", 1, 1) for i in range(WRITTEN_ROWS)]
    recipe = replace(recipe, storage="float16")
    with tempfile.TemporaryDirectory(prefix=".headstart-doctor-", dir=folder) as name:

        def write() -> None:
            with ShardWriter(Path(name) / "rows.h5", recipe=recipe, class_names=()) as writer:
                writer.append(batch, rows)

        return per_second(write, WRITTEN_ROWS, seconds)
