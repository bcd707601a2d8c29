"""Hardware and software of this machine, and how fast it decodes, computes and writes."""

from __future__ import annotations

import importlib
import io
import math
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from headstart.backbones.convnet import Weights
from headstart.backbones.precision import BFLOAT16_FLAGS, CALIBRATION_IMAGES, Device, count_gpus, cpu, cpu_flags, gpu
from headstart.backbones.registry import build_backbone, installed_engines
from headstart.backbones.vgg16 import VGG16
from headstart.errors import HeadstartError
from headstart.images.load import decode_resized
from headstart.runtime import free_bytes, installed_versions, per_second, usable_cores
from headstart.types import Backbone, FeatureBatch, ImageRef, ImageRow, Recipe

#: Packages whose versions affect results or speed.
PACKAGES = (
    "headstart", "tensorflow", "keras", "numpy", "pillow", "h5py", "hdf5plugin", "scikit-learn", "skops", "onnx", "openvino",
    "ncnn",
)  # fmt: skip

#: CPU flags that affect the speed of matrix products.
SPEED_FLAGS = (*BFLOAT16_FLAGS, "avx512_vnni", "amx_int8", "avx_vnni", "avx512f", "avx2")

#: Modules that an extraction needs, and their purpose.
NEEDED = {
    "headstart.images.load": "images are decoded by Pillow",
    "headstart.cache.reader": "caches are read and written by h5py and hdf5plugin",
    "tensorflow": "the network runs on TensorFlow",
}

#: Scales of the noise, pixels, and opacity of each layer: patches, texture, grain. The result has about 0.28 bytes per pixel
#: as a JPEG of quality 90, like photographs (flowers17: median 0.28, nine of ten between 0.17 and 0.46).
GRAINS = ((64, 1.0), (8, 0.3), (2, 0.12))

#: JPEG quality, typical of cameras and image editors.
QUALITY = 90

#: Sizes of the decoded JPEGs, millions of pixels: a web image, a small and a usual photograph.
MEGAPIXELS = (0.1, 1.0, 12.0)

#: Those that are also decoded by the preset ``jpeg-draft``.
LARGE_MEGAPIXELS = (12.0,)

#: Duration of each measurement, seconds, of at least one step.
SECONDS = 1.5

#: Default height and width of the network's input, pixels.
INPUT_SIZE_PX = 224

#: Rows of one written file, and the fraction of zeros in block5_pool.
WRITTEN_ROWS, ZEROS = 256, 0.9


@dataclass(frozen=True, slots=True)
class Machine:
    """Hardware and software of a machine."""

    processor: str
    system: str
    flags: tuple[str, ...]  # the processor's flags among :data:`SPEED_FLAGS`
    cores: int  # usable by this process
    free_memory_bytes: int  # available to this process
    free_disk_bytes: int  # in ``folder``
    folder: Path  # the default folder of features, or the folder above it
    devices: tuple[Device, ...]  # the CPU, then every GPU that TensorFlow sees; empty if TensorFlow cannot be imported
    engines: tuple[str, ...]  # installed engines, by module (backbones/registry.py)
    hidden_gpu: bool  # whether the system has an Nvidia GPU and TensorFlow sees none
    versions: dict[str, str]  # versions of Python and the installed :data:`PACKAGES`
    broken: tuple[str, ...]  # what cannot be imported, its purpose, and what to do; empty in a working installation

    @property
    def device(self) -> Device:
        """The device of a run: the first GPU, or the CPU."""
        return self.devices[min(1, len(self.devices) - 1)]

    @property
    def precisions(self) -> dict[str, tuple[str, ...]]:
        """Device → its types; the reduced one only if it is native."""
        return {d.name: tuple(filter(None, ("float32", d.reduced_precision))) for d in self.devices}


def look_at_machine(folder: Path = Path("features")) -> Machine:
    """Return the machine's hardware and software. May import TensorFlow, which takes seconds."""
    broken = tuple(filter(None, (_broken_import(name, purpose) for name, purpose in NEEDED.items())))
    n_gpus = 0 if broken else count_gpus()
    existing = folder if folder.is_dir() else Path()
    flags = cpu_flags()
    return Machine(
        processor=processor(),
        system=platform.platform(),
        flags=tuple(flag for flag in SPEED_FLAGS if flag in flags),
        cores=usable_cores(),
        free_memory_bytes=free_bytes(),
        free_disk_bytes=shutil.disk_usage(existing).free,
        folder=existing.resolve(),
        devices=() if broken else (cpu(), *map(gpu, range(n_gpus))),
        engines=installed_engines(),
        hidden_gpu=not n_gpus and Path("/proc/driver/nvidia/gpus").is_dir(),
        versions={"python": platform.python_version(), **installed_versions(PACKAGES)},
        broken=broken,
    )


def _broken_import(name: str, purpose: str) -> str:
    """Return a message if a module cannot be imported; else nothing."""
    try:
        if name == "tensorflow":
            from headstart.runtime import import_tensorflow

            import_tensorflow()
        else:
            importlib.import_module(name)
    except HeadstartError as error:  # the message has advice
        return str(error)
    except Exception as error:  # a broken wheel may raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return f"{purpose}, which cannot be imported ({reason}). Reinstall: pip install --force-reinstall headstart"
    return ""


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of the processor."""
    try:
        found = re.search(r"^model name\s*:\s*(.*)$", cpuinfo.read_text(), flags=re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def photograph(megapixels: float) -> bytes:
    """Return a synthetic JPEG of about that many million pixels, 4:3, of smooth noise; equal for equal sizes."""
    width = round(math.sqrt(megapixels * 1e6 * 4 / 3))
    size = (width, round(width * 3 / 4))
    rng = np.random.default_rng(0)
    picture = Image.new("RGB", size)
    for grain, opacity in GRAINS:
        shape = (max(2, size[1] // grain), max(2, size[0] // grain), 3)
        noise = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        picture = Image.blend(picture, noise.resize(size, Image.Resampling.BICUBIC), opacity)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


@dataclass(frozen=True, slots=True)
class Rates:
    """The measured rates."""

    #: Megapixels of a JPEG → images/s of one thread's processor time, from bytes to the network's input.
    decode: dict[float, float]
    draft: dict[float, float]  # the same with the preset ``jpeg-draft``, for large images
    forward: dict[str, float]  # precision → images/s of the whole device, full batches, after compilation
    write: float  # rows/s of ``block5_pool``, float16, with the default compression, on the disk of the features
    #: Additional start-up time of a run in ``int8``, if ``forward`` has it: a sample goes through the network first.
    int8_seconds: float = 0.0


def _per_second(step: Callable[[], object], n_images: int = 1, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return images per second of a step that handles ``n_images``, after one warm-up step."""
    step()
    return per_second(step, n_images, SECONDS, clock)


def decode_rates(megapixels: tuple[float, ...] = MEGAPIXELS, *, preset: str = "keras-bilinear") -> dict[float, float]:
    """Return images/s of one thread by size, from the bytes of a synthetic JPEG to the network's input."""
    steps = {size: partial(decode_resized, photograph(size), "", INPUT_SIZE_PX, preset) for size in megapixels}
    return {size: _per_second(step, clock=time.thread_time) for size, step in steps.items()}


def forward_rates(weights: Weights, device: Device) -> tuple[dict[str, float], Recipe]:
    """Return images/s in float32 and in the device's reduced type, and the float32 recipe."""
    recipe = VGG16.recipe(weights=weights.name, weights_sha256=weights.sha256, input_size_px=INPUT_SIZE_PX)
    types = filter(None, ("float32", device.reduced_precision))
    backbones = (build_backbone(replace(recipe, precision=name), weights, device=device.name) for name in types)
    return {backbone.recipe.precision: forward_rate(backbone) for backbone in backbones}, recipe


def int8_rate(weights: Weights, recipe: Recipe) -> tuple[float, float]:
    """Return images/s in int8, and the seconds for quantizing with noise; raise HeadstartError if that is impossible."""
    from headstart.backbones.openvino import OpenVinoBackbone, calibrate

    shape = (CALIBRATION_IMAGES, INPUT_SIZE_PX, INPUT_SIZE_PX, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    started = time.perf_counter()
    quantization = calibrate(weights, noise, ())
    cost = time.perf_counter() - started
    quantized = replace(recipe, precision="int8", quantization=quantization)
    return forward_rate(OpenVinoBackbone.from_recipe(quantized, weights)), cost


def forward_rate(backbone: Backbone) -> float:
    """Return images/s of full batches."""
    size = backbone.recipe.input_size_px
    images = np.random.default_rng(0).integers(0, 256, (backbone.batch_size, size, size, 3), dtype=np.uint8)
    return _per_second(lambda: backbone.forward(images), len(images))


def write_rate(recipe: Recipe, folder: Path) -> float:
    """Return rows/s of synthetic features, written to temporary files in a folder."""
    from headstart.cache.writer import ShardWriter

    rng = np.random.default_rng(0)
    values = rng.gamma(1.0, 10.0, (WRITTEN_ROWS, 7, 7, 512)).astype(np.float32)
    values[rng.random(values.shape) < ZEROS] = 0
    averages = rng.random((WRITTEN_ROWS, len(VGG16.column_layers)), np.float32)
    batch = FeatureBatch(values, averages, VGG16.column_layers)
    rows = [ImageRow(ImageRef(f"{i}.jpg", None, None, None, 1, 1), f"{i:064x}", 1, 1) for i in range(WRITTEN_ROWS)]
    recipe = replace(recipe, storage="float16")
    with tempfile.TemporaryDirectory(prefix=".headstart-doctor-", dir=folder) as name:

        def write() -> None:
            with ShardWriter(Path(name) / "rows.h5", recipe=recipe, class_names=()) as writer:
                writer.append(batch, rows)

        return _per_second(write, WRITTEN_ROWS)
