"""The network in 8-bit integers: how it is made, what its features are, and that no other takes its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.backbones.convnet import Weights
from headstart.backbones.openvino import BATCH_SIZE, OpenVinoBackbone, calibrate
from headstart.backbones.precision import (
    CALIBRATION_IMAGES,
    INPUT_RANGE,
    INT8_FLAGS,
    adds_up_int8,
    cpu_flags,
    row_cosines,
)
from headstart.backbones.registry import build_backbone
from headstart.backbones.tensorflow import FrozenBackbone
from headstart.cache.reader import open_cache
from headstart.errors import HeadstartError, RecipeMismatchError
from headstart.extract.run import extract_features
from headstart.images.discovery.scan import discover
from headstart.images.load import load_image
from headstart.types import Quantization
from headstart.verify import verify_cache

pytest.importorskip("openvino")
pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif(
        not adds_up_int8(cpu_flags()),
        reason=f"this processor has none of {', '.join(INT8_FLAGS)}, and int8 is refused on it",
    ),
]
SIZE = 64


@pytest.fixture(scope="module")
def images(shared: Path) -> np.ndarray:
    found = discover(shared / "data/hymenoptera")
    return np.stack(
        [load_image(found.root, r, size_px=SIZE, resize_preset="keras-bilinear").pixels for r in found.refs[::10]]
    )


@pytest.fixture(scope="module")
def quantization(imagenet: Weights, images: np.ndarray) -> Quantization:
    return calibrate(imagenet, images, [f"{number:064x}" for number in range(len(images))])


def backbone(imagenet: Weights, quantization: Quantization, **options: object) -> OpenVinoBackbone:
    return OpenVinoBackbone(imagenet, input_size_px=SIZE, precision="int8", quantization=quantization, **options)


def test_features_come_near_those_of_float32(imagenet: Weights, images: np.ndarray, quantization: Quantization) -> None:
    exact = OpenVinoBackbone(imagenet, input_size_px=SIZE).forward(images)
    rounded = backbone(imagenet, quantization).forward(images)
    cosines = row_cosines(exact.features, rounded.features)
    assert cosines.mean() > 0.99
    assert cosines.min() > 0.97
    assert row_cosines(exact.pooled, rounded.pooled).min() > 0.998
    assert not np.array_equal(exact.features, rounded.features)


def test_a_row_depends_on_its_image_alone(imagenet: Weights, images: np.ndarray, quantization: Quantization) -> None:
    together = backbone(imagenet, quantization).forward(images)
    alone = backbone(imagenet, quantization, batch_size=3).forward(images[5:9])
    np.testing.assert_allclose(together.features[5:9], alone.features, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(together.pooled[5:9], alone.pooled, rtol=1e-5, atol=1e-3)


def test_the_ranges_are_those_of_nncf(imagenet: Weights, images: np.ndarray) -> None:
    nncf = pytest.importorskip("nncf")
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    from headstart.backbones.openvino import Graph
    from headstart.backbones.precision import CONVOLUTIONS
    from headstart.backbones.vgg16 import NETWORK

    sample = images[:8]
    found = nncf.quantize(
        Graph(NETWORK, SIZE, 1, imagenet).maxima(),
        nncf.Dataset([image[None] for image in sample]),
        subset_size=len(sample),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX, disable_bias_correction=True
        ),
    )
    limits = {}
    for node in found.get_ops():
        if node.get_type_name() == "FakeQuantize":
            low, high = (float(node.input(i).get_source_output().get_node().get_data().item()) for i in (1, 2))
            limits[node.input(0).get_source_output().get_node().get_friendly_name()] = (low, high)
    ours = calibrate(imagenet, sample, ["0" * 64]).ranges
    np.testing.assert_allclose(
        ours, [limits[name][1] for name in CONVOLUTIONS[:-1]], rtol=0.02
    )  # bfloat16 on some CPUs
    (preprocessed,) = (pair for name, pair in limits.items() if name not in CONVOLUTIONS)
    assert INPUT_RANGE[1] >= preprocessed[1] - 1e-3
    assert INPUT_RANGE[0] / INPUT_RANGE[1] == pytest.approx(preprocessed[0] / preprocessed[1])


def test_the_same_network_is_made_again_or_refused(
    imagenet: Weights, images: np.ndarray, quantization: Quantization
) -> None:
    recipe = backbone(imagenet, quantization).recipe
    again = build_backbone(type(recipe).from_json(recipe.to_json()), imagenet)
    expected = backbone(imagenet, quantization).forward(images[:BATCH_SIZE])
    np.testing.assert_array_equal(again.forward(images[:BATCH_SIZE]).features, expected.features)
    other = replace(quantization, ranges=(quantization.ranges[0] * 2, *quantization.ranges[1:]))
    with pytest.raises(RecipeMismatchError, match="cannot be made again"):
        build_backbone(replace(recipe, quantization=other), imagenet)
    with pytest.raises(HeadstartError, match="Leave out `device`"):
        build_backbone(recipe, imagenet, device="gpu:0")
    with pytest.raises(HeadstartError, match="Received: int8"):
        FrozenBackbone(imagenet, precision="int8")
    with pytest.raises(HeadstartError, match="needs a quantization"):
        OpenVinoBackbone(imagenet, precision="int8")


def test_a_cache_keeps_its_network(shared: Path, tmp_path: Path, imagenet: Weights) -> None:
    data, cache = tmp_path / "data", tmp_path / "x.h5"
    for number, source in enumerate(sorted((shared / "data/hymenoptera").rglob("*.jpg"))[::40]):
        target = data / "ab"[number % 2] / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    late = sorted(data.rglob("*.jpg"))[0]
    moved = late.rename(tmp_path / late.name)
    options = {"precision": "int8", "input_size_px": SIZE, "batch_size": 4}
    first = extract_features(data, cache, **options)
    assert first.recipe.quantization.n_images == first.n_images < CALIBRATION_IMAGES
    assert "int8: as asked for; quantised on" in first.precision_reason
    assert "mean 0.99" in first.precision_reason
    moved.rename(late)
    second = extract_features(data, cache, **options)
    assert (second.n_computed, second.recipe) == (1, first.recipe)
    assert extract_features(data, cache, **{**options, "precision": "auto"}).n_computed == 0
    with pytest.raises(RecipeMismatchError, match="precision: int8 ≠ float32"):
        extract_features(data, cache, **{**options, "precision": "float32"})
    found = verify_cache(cache, data)
    assert (found.findings, found.n_recomputed) == ((), second.n_images)
    anew = extract_features(data, cache, **options, overwrite=True)
    assert anew.recipe.quantization.sample_sha256 != first.recipe.quantization.sample_sha256
    with open_cache(cache) as opened:
        assert opened.recipe == anew.recipe
