"""VGG16 in an ONNX file, used as a network of one's own, is VGG16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from PIL import Image

from headstart import extract_features, open_cache
from headstart.backbones.convnet import Convolution, Weights
from headstart.backbones.own_networks.onnx_check import check_model, read_pixels
from headstart.backbones.precision import row_cosines
from headstart.backbones.registry import build_backbone
from headstart.backbones.vgg16 import NETWORK, VGG16
from onnx_models import model_bytes, write_model
from pictures import class_folders

pytestmark = pytest.mark.weights

SIZE = 64

DESCRIPTION = 'channels = "BGR"\nmean = [103.939, 116.779, 123.68]\n'


@pytest.fixture(scope="module")
def model(imagenet: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGG16 from preprocessed images to block5_pool, written without the exports of this package."""
    nodes, constants = [], []
    for layer in NETWORK.layers:
        (source,) = layer.sources
        if not isinstance(layer, Convolution):
            nodes.append(helper.make_node("MaxPool", [source], [layer.name], kernel_shape=[2, 2], strides=[2, 2]))
            continue
        kernel, bias = imagenet.tensors[layer.name]
        names = [f"{layer.name}/kernel", f"{layer.name}/bias"]
        constants += zip(names, (np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)), bias), strict=True)
        nodes.append(helper.make_node("Conv", [source, *names], [f"{layer.name}/sum"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"{layer.name}/sum"], [layer.name]))
    data = model_bytes(nodes, shape=["n", 3, "side", "side"], output="block5_pool", constants=constants)
    return write_model(tmp_path_factory.mktemp("vgg16"), data, f"size = {SIZE}\n{DESCRIPTION}")


def test_its_cache_is_that_of_vgg16(model: Path, tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", n_per_class=4)
    own, exact = tmp_path / "own.h5", tmp_path / "exact.h5"
    extract_features(data, own, backbone=str(model))
    extract_features(data, exact, precision="float32", input_size_px=SIZE)
    with open_cache(own) as a, open_cache(exact) as b:
        assert list(a.paths) == list(b.paths)
        features = [np.concatenate([batch.features for batch in cache.batches()]) for cache in (a, b)]
    assert row_cosines(*features).min() >= 0.99999


def test_a_wrong_mean_or_order_of_channels_is_found(model: Path, imagenet: Weights, tmp_path: Path) -> None:
    image, reference, other = tmp_path / "image.png", tmp_path / "reference.npy", tmp_path / "model.onnx"
    blocks = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(image)
    recipe = VGG16.recipe(weights=imagenet.name, weights_sha256=imagenet.sha256, input_size_px=SIZE)
    np.save(reference, build_backbone(recipe, imagenet).forward(read_pixels(image, SIZE)).features)
    other.symlink_to(model)
    right = model.with_suffix(".toml").read_text()
    other.with_suffix(".toml").write_text(right)
    assert check_model(other, image, reference, seconds=0).problems == ()
    for before, after, given in (("BGR", "RGB", None), ("BGR", "RGB", reference), ("103.939", "100", None)):
        other.with_suffix(".toml").write_text(right.replace(before, after))
        assert len(check_model(other, image, given, seconds=0).problems) == 1, (before, given)
