"""How fast images would be computed: the network tried on the first of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headstart.extract.devices.names import devices_of
from headstart.extract.engine import PROOF_IMAGES, first_images
from headstart.extract.sample import draw_sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.extract.plan import Plan
    from headstart.extract.run import Run
    from headstart.schema import Backbone, Recipe

#: The rate of the network is measured for so long, seconds, once it is compiled: some batches on a CPU.
MEASURED_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast images would be computed.

    Attributes
    ----------
    start_seconds : float
        Weights read, network built, compiled and, where that is asked for, its precision proven.
    images_per_second : float
        Afterwards.
    reason : str
        Where the figures come from.
    """

    start_seconds: float
    images_per_second: float
    reason: str


def measured_rate(run: Run, plan: Plan, recipe: Recipe | None) -> tuple[Rate | None, str]:
    """Return the rate of the first images that would be computed; or None, and why it is not known."""
    if not plan.compute:
        return None, "no image would go through the network"
    if not run.network.is_at_hand():
        return (
            None,
            "the ImageNet weights are not on this machine: the run would download them first (headstart weights)",
        )
    started = time.perf_counter()
    images = first_images(
        plan.compute, run.network.wanted(None), run.job, run.options.batch_size or PROOF_IMAGES
    )  # fmt: skip
    decode_seconds = time.perf_counter() - started
    if not len(images):
        return None, "none of the images that would be computed can be read"
    backbone, precision_reason = run.network.backbone(
        recipe, images, lambda: draw_sample(plan.compute, run.network.wanted(None), run.job)
    )
    batch = images[: backbone.batch_size]
    backbone.forward(batch)  # compiles
    start_seconds = time.perf_counter() - started
    forward, decode = seconds_per_image(backbone, batch), decode_seconds / len(images)
    # On a CPU the network and the decoder share the cores; a GPU computes while the CPU decodes.
    on_cpu = getattr(backbone, "device", "cpu") == "cpu"
    n_gpus = max(1, sum(name.startswith("gpu") for name in devices_of(run.options, recipe)))
    per_image = forward + decode if on_cpu else max(forward / n_gpus, decode)
    of_several = f", on one of {n_gpus} GPUs" if n_gpus > 1 else ""
    reason = f"measured now, on the first {len(images)} of these images{of_several}; precision {precision_reason}"
    return Rate(start_seconds, 1 / per_image, reason), ""


def seconds_per_image(backbone: Backbone, images: NDArray[np.uint8]) -> float:
    """Return what the compiled network takes for an image of a full batch."""
    full = (
        images if len(images) == backbone.batch_size else images.repeat(backbone.batch_size, 0)[: backbone.batch_size]
    )
    n_passes, started = 0, time.perf_counter()
    while n_passes == 0 or time.perf_counter() - started < MEASURED_SECONDS:
        backbone.forward(full)
        n_passes += 1
    return (time.perf_counter() - started) / (n_passes * len(full))
