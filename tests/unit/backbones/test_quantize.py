"""What of the quantisation needs no network."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.backbones.convnet import Weights
from headstart.backbones.openvino import import_openvino
from headstart.backbones.precision import (
    CONVOLUTIONS,
    check_int8_cpu,
    images_to_pay,
    network_sha256,
    oihw,
    quantize_layers,
    sample_sha256,
)
from headstart.backbones.registry import build_backbone
from headstart.backbones.vgg16 import VGG16
from headstart.errors import HeadstartError
from headstart.types import Quantization, Recipe

QUANTIZATION = Quantization("openvino", (1.5, 832.9128), 64, 0, "a" * 64, "b" * 64)
RECIPE = VGG16.recipe(weights_sha256="0" * 64, precision="int8", quantization=QUANTIZATION)


@pytest.fixture(scope="module")
def weights() -> Weights:
    rng = np.random.default_rng(0)
    tensors = {
        name: (rng.normal(size=(3, 3, 3, 4)).astype("f4"), rng.normal(size=4).astype("f4")) for name in CONVOLUTIONS
    }
    tensors["block2_conv1"][0][..., 2] = 0
    return Weights("custom", tensors, "0" * 64, "test")


def test_integers_times_their_scale_are_the_weights(weights: Weights) -> None:
    for name, layer in quantize_layers(weights).items():
        kernel, bias = oihw(weights, name, turned=name == CONVOLUTIONS[0])
        assert layer.kernel.dtype == np.int8
        assert np.abs(layer.kernel * layer.scale - kernel).max() <= layer.scale.max() / 2 * 1.001
        assert np.abs(layer.kernel.astype(int)).max() == 127
        np.testing.assert_array_equal(layer.bias, bias)


def test_the_first_layer_takes_rgb(weights: Weights) -> None:
    kernel = weights.tensors["block1_conv1"][0]
    np.testing.assert_array_equal(
        oihw(weights, "block1_conv1", turned=True)[0][:, 0], kernel[:, :, 2].transpose(2, 0, 1)
    )
    np.testing.assert_array_equal(
        oihw(weights, "block1_conv2", turned=False)[0][:, 0],
        weights.tensors["block1_conv2"][0][:, :, 0].transpose(2, 0, 1),
    )


def test_the_digest_tells_of_every_part(weights: Weights) -> None:
    layers = quantize_layers(weights)
    digests = {network_sha256(layers, [1.0, 2.0]), network_sha256(layers, [1.0, 2.5])}
    for part in ("kernel", "scale", "bias"):
        changed = getattr(layers["block3_conv2"], part).copy()
        changed.flat[0] += 1
        digests.add(
            network_sha256({**layers, "block3_conv2": replace(layers["block3_conv2"], **{part: changed})}, [1.0, 2.0])
        )
    assert len(digests) == 5


def test_the_order_of_the_sample_does_not_matter() -> None:
    assert sample_sha256(["a", "b"]) == sample_sha256(["b", "a"]) != sample_sha256(["a", "c"])


def test_int8_pays_where_both_runs_take_the_same_time() -> None:
    n_images = images_to_pay(3.0, 50.0, 150.0)
    assert n_images / 50 == pytest.approx(3 + n_images / 150)
    assert images_to_pay(3.0, 50.0, 50.0) == float("inf")
    assert images_to_pay(-1.0, 50.0, 150.0) == 0


def test_a_processor_that_clips_sums_is_refused() -> None:
    with pytest.raises(HeadstartError, match="avx512_vnni"):
        check_int8_cpu(frozenset({"avx2", "avx512f"}))
    check_int8_cpu(frozenset({"avx2", "avx_vnni"}))
    check_int8_cpu(frozenset())


def test_without_the_extra_nothing_else_takes_its_place(monkeypatch: pytest.MonkeyPatch, weights: Weights) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "openvino.opset13", None)
    with pytest.raises(HeadstartError, match=r"pip install 'headstart\[openvino\]'"):
        import_openvino()
    recipe = replace(
        RECIPE,
        weights="custom",
        quantization=replace(
            QUANTIZATION, ranges=(1.0,) * 12, network_sha256=network_sha256(quantize_layers(weights), (1.0,) * 12)
        ),
    )
    monkeypatch.setattr("headstart.backbones.openvino.check_int8_cpu", lambda: None)
    with pytest.raises(HeadstartError, match=r"pip install 'headstart\[openvino\]'"):
        build_backbone(recipe, weights)


@given(
    st.lists(st.floats(2**-10, 2**20, width=32), min_size=1, max_size=12), st.integers(1, 1000), st.integers(0, 2**31)
)
def test_a_recipe_with_it_is_read_as_it_was_written(ranges: list[float], n_images: int, seed: int) -> None:
    recipe = replace(RECIPE, quantization=Quantization("openvino", tuple(ranges), n_images, seed, "c" * 64, "d" * 64))
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.fingerprint != RECIPE.fingerprint


def test_a_recipe_without_it_is_written_as_before() -> None:
    plain = VGG16.recipe(weights_sha256="0" * 64)
    assert "quantization" not in plain.to_json()
    (difference,) = replace(plain, precision="int8").differences(RECIPE)
    assert difference == "quantization: None ≠ openvino network bbbbbbbbbbbb… of 64 images"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"seed": 0', '"seed": "0"'),
        (', "seed": 0', ""),
        ("[1.5, 832.9128]", "[1.5, -1.0]"),
        ("[1.5, 832.9128]", '"1.5"'),
        ('"n_images": 64', '"n_images": true'),
    ],
)
def test_a_quantization_that_is_damaged_is_refused(before: str, after: str) -> None:
    text = RECIPE.to_json()
    assert before in text
    with pytest.raises(ValueError, match="quantization"):
        Recipe.from_json(text.replace(before, after))
