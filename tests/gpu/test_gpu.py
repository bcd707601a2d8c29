"""What a GPU alone can show. Skipped where TensorFlow sees none: it was written on a machine without one."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.backbones.convnet import Weights
from headstart.backbones.precision import MIN_COSINE, count_gpus, gpu, row_cosines
from headstart.backbones.tensorflow import FrozenBackbone
from headstart.cache.reader import open_cache
from headstart.extract.network import first_images
from headstart.extract.options import ExtractOptions
from headstart.extract.pipeline import Pipeline
from headstart.extract.run import extract_features
from headstart.extract.shard_jobs import SHARD_IMAGES, Shard, ShardJob
from headstart.images import load as loading
from headstart.images.discovery.scan import ImageSet, discover
from headstart.images.load import LoadedImage, load_image
from headstart.runtime import import_keras, import_tensorflow

pytestmark = [pytest.mark.gpu, pytest.mark.weights]

#: Share of the time in which the device has to be at work.
TARGET_BUSY = 0.95


@pytest.fixture(scope="module")
def n_gpus() -> int:
    found = count_gpus()
    if not found:
        pytest.skip("needs a GPU that TensorFlow sees")
    return found


@pytest.fixture(scope="module")
def photographs(shared: Path) -> ImageSet:
    return discover(shared / "data" / "hymenoptera")


@pytest.fixture(scope="module")
def pixels(n_gpus: int, photographs: ImageSet, imagenet: Weights) -> np.ndarray:
    job = ShardJob(photographs.root, photographs.class_names)
    recipe = FrozenBackbone(imagenet, device="cpu", batch_size=1).recipe
    return first_images(photographs.refs, recipe, job, 96)


def test_float16_gives_the_features_of_float32(pixels: np.ndarray, imagenet: Weights) -> None:
    assert import_keras().config.image_data_format() == "channels_last"  # NHWC, which float16 units want
    half, exact = (FrozenBackbone(imagenet, precision=p, device="gpu:0") for p in ("float16", "float32"))
    a, b = half.forward(pixels), exact.forward(pixels)
    assert a.features.shape == (len(pixels), 7, 7, 512)
    assert row_cosines(a.features, b.features).min() >= MIN_COSINE
    assert row_cosines(a.pooled, b.pooled).min() >= MIN_COSINE


def test_float32_is_that_of_the_cpu(pixels: np.ndarray, imagenet: Weights) -> None:
    there, here = (FrozenBackbone(imagenet, device=device) for device in ("gpu:0", "cpu"))
    a, b = there.forward(pixels[:32]), here.forward(pixels[:32])
    np.testing.assert_allclose(a.features, b.features, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(a.pooled, b.pooled, rtol=1e-3, atol=1e-2)


def test_memory_grows_with_what_is_needed(n_gpus: int, imagenet: Weights) -> None:
    tf = import_tensorflow()
    FrozenBackbone(imagenet, precision="float16", device="gpu:0")
    assert all(tf.config.experimental.get_memory_growth(found) for found in tf.config.list_physical_devices("GPU"))


def test_a_batch_that_does_not_fit_is_halved_until_it_does(pixels: np.ndarray, imagenet: Weights) -> None:
    """8,192 images would need 105 GB for the first convolution alone, in float32."""
    large = FrozenBackbone(imagenet, device="gpu:0", batch_size=8192)
    fetch = large.start(pixels)
    again = large.start(pixels)
    expected = FrozenBackbone(imagenet, device="gpu:0").forward(pixels)
    for batch in (fetch(), again()):
        assert row_cosines(batch.features, expected.features).min() >= MIN_COSINE
    assert large.batch_size < 8192


def test_two_gpus_give_the_rows_of_one(n_gpus: int, shared: Path, tmp_path: Path) -> None:
    if n_gpus < 2:
        pytest.skip("needs two GPUs")
    found: list[tuple[list[str], Any]] = []
    for device in ("gpu:0", "gpu:0,gpu:1"):
        summary = extract_features(shared / "data" / "hymenoptera", tmp_path / f"{len(device)}.h5", device=device)
        assert summary.device == device
        with open_cache(summary.output) as cache:
            found.append((cache.paths, next(cache.batches(batch_rows=10_000)).features))
    assert found[0][0] == found[1][0]
    assert row_cosines(found[0][1], found[1][1]).min() >= MIN_COSINE


def test_the_device_is_kept_busy(
    pixels: np.ndarray, photographs: ImageSet, imagenet: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against passes over images that are on the device already; nothing is decoded, so that no processor bounds it."""
    tf = import_tensorflow()
    backbone = FrozenBackbone(imagenet, precision="float16", device="gpu:0")
    n_images = 32 * SHARD_IMAGES
    one = load_image(photographs.root, photographs.refs[0], size_px=224, resize_preset="keras-bilinear")
    monkeypatch.setattr(
        loading, "load_image", lambda _root, ref, **_: LoadedImage(one.pixels, replace(one.row, ref=ref))
    )
    refs = (list(photographs.refs) * (n_images // len(photographs.refs) + 1))[:n_images]
    options, job = ExtractOptions(), ShardJob(photographs.root, photographs.class_names)
    size = options.file_images
    shards = [Shard(tmp_path / f"{start}.h5", refs[start : start + size]) for start in range(0, len(refs), size)]
    backbone.forward(pixels[: backbone.batch_size])  # compiles

    with tf.device(gpu(0).tensorflow_name):
        resident = tf.constant(np.stack([one.pixels] * backbone.batch_size))
        start = time.perf_counter()
        for _ in range(n_images // backbone.batch_size):
            outputs = backbone._program._compiled(resident)
        outputs.numpy()
    device_seconds = time.perf_counter() - start
    with closing(Pipeline(job, backbone, max_unpublished=options.shard_images).run(shards)) as reports:
        start = time.perf_counter()
        assert sum(report.n_images for report in reports) == n_images
    assert device_seconds / (time.perf_counter() - start) >= TARGET_BUSY
