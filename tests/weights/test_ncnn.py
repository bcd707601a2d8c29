"""ncnn's network against the published features and TensorFlow's, with real weights."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.backbones.convnet import Weights
from headstart.backbones.ncnn import NcnnBackbone, import_ncnn
from headstart.backbones.tensorflow import FrozenBackbone
from headstart.backbones.vgg16 import VGG16
from headstart.errors import HeadstartError, RecipeMismatchError
from headstart.types import Recipe

pytest.importorskip("ncnn")
pytestmark = pytest.mark.weights


def recipe_of(weights: Weights, layer: str = "block5_pool", size_px: int = 64) -> Recipe:
    return VGG16.recipe(weights_sha256=weights.sha256, layer=layer, input_size_px=size_px)


def some_images(n: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), np.uint8)


def test_the_reference_image_has_the_published_features(shared: Path, imagenet: Weights) -> None:
    folder = shared / "reference/vgg16"
    image = np.asarray(Image.open(folder / "persian_cat_224_exact.png").convert("RGB"))
    expected = np.load(folder / "persian_cat_block5_pool_7x7x512_f64.npy")
    features = NcnnBackbone.from_recipe(recipe_of(imagenet, size_px=224), imagenet).forward(image[None]).features
    assert np.abs(features[0] - expected).max() < 1e-3


@pytest.mark.parametrize(
    ("layer", "size_px"),
    [("block5_pool", 64), ("block5_pool", 75), ("block3_pool", 64), ("block5_conv1", 75), ("block5_conv3", 33)],
)
def test_it_gives_the_features_of_tensorflow(imagenet: Weights, layer: str, size_px: int) -> None:
    images = some_images(3, size_px)
    expected = FrozenBackbone(imagenet, layer=layer, input_size_px=size_px, batch_size=3).forward(images)
    received = NcnnBackbone.from_recipe(recipe_of(imagenet, layer, size_px), imagenet).forward(images)
    assert received.features.dtype == received.pooled.dtype == np.float32
    for ours, theirs in (received.features, expected.features), (received.pooled, expected.pooled):
        # Winograd's rounding differs from processor to processor: 5.2e-6 at most was seen, with AVX-512.
        assert np.abs(ours - theirs).max() < 1e-5 * theirs.max()


def test_a_row_depends_on_its_image_alone(imagenet: Weights) -> None:
    backbone = NcnnBackbone.from_recipe(recipe_of(imagenet), imagenet)
    images = some_images(5)
    first, second = backbone.start(images), backbone.start(images[::-1])  # on their way at the same time
    together, backwards = first(), second()
    alone = backbone.forward(images[4:])
    np.testing.assert_array_equal(together.features[4:], alone.features)
    np.testing.assert_array_equal(together.pooled[4:], alone.pooled)
    np.testing.assert_array_equal(together.features, backwards.features[::-1])
    strided = np.zeros((5, 64, 128, 3), np.uint8)
    strided[:, :, ::2] = images
    np.testing.assert_array_equal(backbone.forward(strided[:, :, ::2]).features, together.features)


def test_what_is_not_its_work_is_refused(imagenet: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(imagenet, size_px=32)
    with pytest.raises(HeadstartError, match="Received: float32"):
        NcnnBackbone.from_recipe(recipe, imagenet).forward(np.zeros((1, 32, 32, 3), np.float32))
    with pytest.raises(RecipeMismatchError, match="weights_sha256"):
        NcnnBackbone.from_recipe(replace(recipe, weights_sha256="f" * 64), imagenet)
    with pytest.raises(HeadstartError, match="Received: bfloat16"):
        NcnnBackbone.from_recipe(replace(recipe, precision="bfloat16"), imagenet)
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(HeadstartError, match=r"pip install 'headstart\[ncnn\]'"):
        import_ncnn()


#: Features of an image in the parent, then in two processes that are forked from it.
FORKED = """
import multiprocessing, sys
import numpy as np
from headstart.backbones.vgg16 import VGG16
from headstart.backbones.vgg16 import load_weights
from headstart.bundles.bundle import Bundle
from headstart.predict import Predictor

weights = load_weights()
recipe = VGG16.recipe(weights=weights.name, weights_sha256=weights.sha256, input_size_px=64)
predictor = Predictor(Bundle(head=None, spec=None, recipe=recipe, class_names=("a",)))
image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)

def work(_):
    return predictor.backbone.forward(image).pooled

expected = work(0)
with multiprocessing.get_context("fork").Pool(2) as pool:
    sys.exit(not all((found == expected).all() for found in pool.map(work, range(2))))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_a_predictor_that_was_used_works_in_forked_processes(imagenet: Weights) -> None:
    assert subprocess.run([sys.executable, "-c", FORKED], timeout=120, check=False).returncode == 0
