"""Decoding: images per second of one thread, by size of the photograph and resize preset.

python benchmarks/decode.py

JPEGs of smooth noise with texture and grain, quality 90, with as many bytes per pixel as photographs have
(headstart/doctor/machine.py), from their bytes in memory to the network's input of 224 × 224. The presets take turns. The
baseline, ``pillow``, is ``Image.open(…).convert("RGB")`` alone: the decoder that all presets stand on, with no resize.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from functools import partial

from PIL import Image

from headstart.doctor.machine import QUALITY, photograph
from headstart.images.load import decode_resized
from headstart.images.resize import RESIZE_PRESETS
from machine import median, write_result

MEGAPIXELS = (0.1, 1.0, 12.0, 50.0)
SIZE_PX = 224
ROUNDS = 3

#: A rate is measured for so long, seconds, and at least over so many images.
SECONDS, MIN_IMAGES = 1.0, 2


def plain(data: bytes) -> Image.Image:
    """Decode as Pillow does, and no more."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def rate(step: Callable[[], object]) -> float:
    """Return steps per second of the processor's time of this thread, so that what else runs does not count."""
    n_images, started, clock = 0, time.perf_counter(), time.thread_time()
    while n_images < MIN_IMAGES or time.perf_counter() - started < SECONDS:
        step()
        n_images += 1
    return n_images / (time.thread_time() - clock)


def main() -> None:
    """Measure and write ``results/decode.json``."""
    rows = []
    for megapixels in MEGAPIXELS:
        data = photograph(megapixels)
        ways: dict[str, Callable[[], object]] = {"pillow": partial(plain, data)}
        ways |= {preset: partial(decode_resized, data, "photo.jpg", SIZE_PX, preset) for preset in RESIZE_PRESETS}
        for way in ways.values():
            way()
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                found[name].append(rate(way))
        row = {"megapixels": megapixels, "file_bytes": len(data)}
        rows.append(row | {name: round(median(rates), 2) for name, rates in found.items()})
    write_result(
        "decode",
        {
            "unit": "images per second of one thread's processor time",
            "input_size_px": SIZE_PX,
            "quality": QUALITY,
            "rounds": ROUNDS,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
