"""OpenVINO's network against TensorFlow's, with real weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.backbones import registry
from headstart.backbones.convnet import Weights
from headstart.backbones.openvino import Graph, OpenVinoBackbone, averaged_block, compile_model
from headstart.backbones.precision import CONVOLUTIONS, Device, cpu_flags, has_bfloat16, row_cosines
from headstart.backbones.registry import build_backbone
from headstart.backbones.tensorflow import FrozenBackbone
from headstart.backbones.vgg16 import NETWORK
from headstart.errors import HeadstartError, RecipeMismatchError

pytest.importorskip("openvino")
pytestmark = pytest.mark.weights


def some_images(n: int, size: int = 224) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), np.uint8)


def test_the_reference_image_has_the_published_features(shared: Path, imagenet: Weights) -> None:
    folder = shared / "reference/vgg16"
    image = np.asarray(Image.open(folder / "persian_cat_224_exact.png").convert("RGB"))
    expected = np.load(folder / "persian_cat_block5_pool_7x7x512_f64.npy")
    features = OpenVinoBackbone(imagenet, batch_size=1).forward(image[None]).features
    assert np.abs(features[0] - expected).max() < 1e-3


@pytest.mark.parametrize(
    ("layer", "size_px"), [("block5_pool", 64), ("block5_pool", 75), ("block3_pool", 64), ("block5_conv1", 64)]
)
def test_float32_gives_the_features_of_tensorflow(imagenet: Weights, layer: str, size_px: int) -> None:
    options = {"layer": layer, "input_size_px": size_px, "batch_size": 2}
    images = some_images(3, size_px)
    expected = FrozenBackbone(imagenet, **options).forward(images)
    received = OpenVinoBackbone(imagenet, **options).forward(images)
    for ours, theirs in (received.features, expected.features), (received.pooled, expected.pooled):
        assert np.abs(ours - theirs).max() < 5e-6 * theirs.max()


def test_a_row_depends_on_its_image_alone_and_keeps_its_values(imagenet: Weights) -> None:
    backbone = OpenVinoBackbone(imagenet, input_size_px=64, batch_size=2)
    images = some_images(5, 64)
    together = backbone.forward(images)
    before = together.features.copy()
    alone = backbone.forward(images[4:])
    np.testing.assert_array_equal(together.features, before)
    np.testing.assert_array_equal(together.features[4:], alone.features)
    np.testing.assert_array_equal(together.pooled[4:], alone.pooled)


def test_batches_may_follow_each_other_before_they_are_fetched(imagenet: Weights) -> None:
    backbone = OpenVinoBackbone(imagenet, input_size_px=64, batch_size=2)
    images = some_images(6, 64)
    expected = backbone.forward(images)
    fetches = [backbone.start(images[start : start + 3]) for start in (0, 3)]
    last, first = fetches[1](), fetches[0]()
    np.testing.assert_array_equal(np.concatenate([first.features, last.features]), expected.features)
    np.testing.assert_array_equal(np.concatenate([first.pooled, last.pooled]), expected.pooled)


def test_images_may_lie_anyhow_in_the_memory_and_be_let_go(imagenet: Weights) -> None:
    backbone = OpenVinoBackbone(imagenet, input_size_px=64, batch_size=2)
    images = some_images(6, 64)
    expected = backbone.forward(np.ascontiguousarray(images[:, :, ::-1]))
    fetch = backbone.start(images[:, :, ::-1])
    del images
    np.testing.assert_array_equal(fetch().features, expected.features)


@pytest.mark.skipif(not has_bfloat16(cpu_flags()), reason="this processor has no bfloat16")
def test_maps_stay_in_bfloat16_whatever_is_averaged(imagenet: Weights) -> None:
    recipe = OpenVinoBackbone(imagenet, input_size_px=64, precision="bfloat16").recipe
    compiled = compile_model(Graph(NETWORK, 64, 1, imagenet).features(recipe), "bfloat16")
    layers = [op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops()]
    written = [info["outputPrecisions"] for info in layers if info["layerType"] == "Convolution"]
    assert written.count("bf16") >= len(CONVOLUTIONS)


def test_bfloat16_agrees_with_float32(imagenet: Weights) -> None:
    images = some_images(2, 64)
    exact, reduced = (
        OpenVinoBackbone(imagenet, input_size_px=64, batch_size=2, precision=precision).forward(images)
        for precision in ("float32", "bfloat16")
    )
    assert row_cosines(exact.features, reduced.features).min() > 0.999
    assert row_cosines(exact.pooled, reduced.pooled).min() > 0.999


def test_the_recipe_chooses_the_engine(imagenet: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = OpenVinoBackbone(imagenet, input_size_px=32, batch_size=1).recipe
    reduced = replace(plain, precision="bfloat16")
    monkeypatch.setattr(registry, "pick_device", lambda _name: Device("cpu", "/CPU:0", 32, "bfloat16"))
    monkeypatch.setattr(registry, "is_installed", lambda engine: engine == "openvino")
    assert isinstance(build_backbone(reduced, imagenet, device="cpu"), OpenVinoBackbone)
    assert isinstance(build_backbone(plain, imagenet, device="cpu"), OpenVinoBackbone)
    monkeypatch.setattr(registry, "is_installed", lambda _engine: False)
    assert isinstance(build_backbone(reduced, imagenet, device="cpu"), FrozenBackbone)


@pytest.mark.parametrize(("size_px", "block"), [(224, 16), (112, 16), (56, 14), (28, 14), (14, 14), (75, 15), (37, 1)])
def test_averages_are_taken_over_the_largest_blocks_that_fit(size_px: int, block: int) -> None:
    assert averaged_block(size_px) == block


def test_other_arrays_and_other_recipes_are_refused(imagenet: Weights) -> None:
    backbone = OpenVinoBackbone(imagenet, input_size_px=32, batch_size=1)
    with pytest.raises(HeadstartError, match="Received: float32"):
        backbone.forward(np.zeros((1, 32, 32, 3), np.float32))
    with pytest.raises(RecipeMismatchError, match="weights_sha256"):
        OpenVinoBackbone.from_recipe(replace(backbone.recipe, weights_sha256="f" * 64), imagenet)
    with pytest.raises(HeadstartError, match="float16"):
        OpenVinoBackbone(imagenet, precision="float16")
