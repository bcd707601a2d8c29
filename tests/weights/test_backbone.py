"""The real network with the real weights."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.backbones.convnet import Weights
from headstart.backbones.precision import Device
from headstart.backbones.tensorflow import FrozenBackbone, Program
from headstart.backbones.vgg16 import VGG16, download, load_weights, read_keras_file
from headstart.errors import HeadstartError, RecipeMismatchError, WeightsError
from headstart.runtime import import_keras, import_tensorflow
from headstart.types import FeatureBatch

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def backbone(imagenet: Weights) -> FrozenBackbone:
    return FrozenBackbone(imagenet, batch_size=4)


def some_images(n_images: int, size: int = 224) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n_images, size, size, 3), dtype=np.uint8)


def test_the_reference_image_has_the_published_features(shared: Path, backbone: FrozenBackbone) -> None:
    image = np.asarray(Image.open(shared / "reference/vgg16/persian_cat_224_exact.png").convert("RGB"))
    expected = np.load(shared / "reference/vgg16/persian_cat_block5_pool_7x7x512_f64.npy")
    assert np.abs(backbone.forward(image[None]).features[0] - expected).max() < 1e-3


def test_features_are_those_of_keras_applications(imagenet: Weights, backbone: FrozenBackbone) -> None:
    keras = import_keras()
    images = some_images(2)
    model = keras.applications.VGG16(weights=None, include_top=False, input_shape=(224, 224, 3))
    for layer, tensors in imagenet.tensors.items():
        model.get_layer(layer).set_weights(tensors)
    inputs = keras.applications.vgg16.preprocess_input(images.astype(np.float32).copy())
    outputs = keras.Model(model.input, [model.output, model.get_layer("block4_conv3").output]).predict(
        inputs, verbose=0
    )
    batch = backbone.forward(images)
    np.testing.assert_allclose(batch.features, outputs[0], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(batch.pooled[:, 448:960], outputs[1].mean(axis=(1, 2)), rtol=1e-4, atol=1e-3)


def test_a_row_depends_on_its_image_alone(imagenet: Weights, backbone: FrozenBackbone) -> None:
    images = some_images(6)
    together = backbone.forward(images)
    alone = backbone.forward(images[5:])
    other_size = FrozenBackbone(imagenet, batch_size=3).forward(images)
    np.testing.assert_array_equal(together.features[5:], alone.features)
    np.testing.assert_array_equal(together.pooled[5:], alone.pooled)
    np.testing.assert_array_equal(together.features, other_size.features)


def assert_same_rows(received: FeatureBatch, expected: FeatureBatch) -> None:
    """Compare rows of batches of different size, which some processors add up in another order."""
    for ours, theirs in (received.features, expected.features), (received.pooled, expected.pooled):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=5e-6 * theirs.max())


def test_out_of_memory_halves_the_batch_and_goes_on(imagenet: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    tf = import_tensorflow()
    backbone = FrozenBackbone(imagenet, input_size_px=32, batch_size=4)
    images = some_images(5, 32)
    expected = backbone.forward(images)
    run = Program.run

    def with_room_for(most: int) -> object:
        def limited(self: Program, chunk: np.ndarray) -> object:
            if self.batch_size > most:
                raise tf.errors.ResourceExhaustedError(None, None, "no memory")
            return run(self, chunk)

        return limited

    monkeypatch.setattr(Program, "run", with_room_for(2))
    batch = backbone.forward(images)
    assert backbone.batch_size == 2
    assert_same_rows(batch, expected)
    monkeypatch.setattr(Program, "run", with_room_for(0))
    with pytest.raises(HeadstartError, match="smaller `input_size_px`"):
        backbone.forward(images)


@pytest.mark.parametrize("when", ["started", "copied back"])
def test_out_of_memory_with_two_batches_in_flight_costs_neither(
    imagenet: Weights, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    tf = import_tensorflow()
    backbone = FrozenBackbone(imagenet, input_size_px=32, batch_size=4)
    first, second = some_images(8, 32)[:4], some_images(8, 32)[4:]
    expected = [backbone.forward(first), backbone.forward(second)]
    run = Program.run

    def limited(self: Program, chunk: np.ndarray) -> object:
        def fail() -> FeatureBatch:
            raise tf.errors.ResourceExhaustedError(None, None, "no memory")

        if self.batch_size <= 2:
            return run(self, chunk)
        return fail() if when == "started" else fail

    monkeypatch.setattr(Program, "run", limited)
    in_flight = [backbone.start(first), backbone.start(second)]
    for fetch, wanted in zip(in_flight, expected, strict=True):
        batch = fetch()
        assert_same_rows(batch, wanted)
    assert backbone.batch_size == 2  # halved once, though it failed twice


def test_what_a_gpu_copies_back_in_one_piece_is_the_same(imagenet: Weights) -> None:
    backbone = FrozenBackbone(imagenet, layer="block4_pool", input_size_px=64, batch_size=2)
    like_a_gpu = Program(
        backbone._model, backbone.preprocessed, VGG16.column_layers, 64, 2, Device("gpu:0", "/CPU:0", 2, None)
    )
    images = some_images(1, 64)
    expected, batch = backbone.forward(images), like_a_gpu.run(images)()
    np.testing.assert_array_equal(batch.features, expected.features)
    np.testing.assert_array_equal(batch.pooled, expected.pooled)


def test_any_layer_can_be_stored(imagenet: Weights) -> None:
    for layer, channels in (("block3_pool", 256), ("block5_conv1", 512)):
        assert layer in VGG16.layers
        batch = FrozenBackbone(imagenet, layer=layer, input_size_px=64, batch_size=2).forward(some_images(1, 64))
        assert batch.features.shape[-1] == channels
        assert batch.pooled.shape == (1, 1472)


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 224, 224, 3), np.float32), np.zeros((1, 32, 32, 3), np.uint8), np.zeros((0, 224, 224, 3), np.uint8)],
)
def test_other_arrays_are_refused(backbone: FrozenBackbone, images: np.ndarray) -> None:
    with pytest.raises(HeadstartError, match="Received"):
        backbone.forward(images)


def test_another_recipe_is_refused_with_its_field(imagenet: Weights, backbone: FrozenBackbone) -> None:
    from dataclasses import replace

    foreign = replace(backbone.recipe, weights_sha256="f" * 64)
    with pytest.raises(RecipeMismatchError, match="weights_sha256"):
        FrozenBackbone.from_recipe(foreign, imagenet, batch_size=1)


@pytest.mark.parametrize("name", ["vgg16.h5", "vgg16.weights.h5"])
def test_weights_of_a_keras_file(imagenet: Weights, tmp_path: Path, name: str) -> None:
    keras = import_keras()
    model = keras.applications.VGG16(weights=None, include_top=False, input_shape=(64, 64, 3))
    for layer, tensors in imagenet.tensors.items():
        model.get_layer(layer).set_weights(tensors)
    model.save_weights(tmp_path / name) if name.endswith(".weights.h5") else model.save(tmp_path / name)
    assert load_weights(tmp_path / name).name == "imagenet"

    kernel, bias = imagenet.tensors["block3_conv2"]
    model.get_layer("block3_conv2").set_weights([kernel, bias + 1e-6])
    model.save_weights(tmp_path / name) if name.endswith(".weights.h5") else model.save(tmp_path / name)
    with pytest.raises(WeightsError, match=r"block3_conv2 \(bias\)"):
        load_weights(tmp_path / name)
    assert load_weights(tmp_path / name, custom=True).name == "custom"


def test_a_file_that_fills_only_some_layers_is_refused(tmp_path: Path) -> None:
    keras = import_keras()
    small = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(64, 3, padding="same", name="block1_conv1")])
    small.save(tmp_path / "part.h5")
    with pytest.raises(WeightsError, match="block1_conv2"):
        read_keras_file(tmp_path / "part.h5")


def test_no_source_at_all_names_three_remedies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path), raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"(?s)1\. pip install.*2\. put.*3\. `weights=PATH`"):
        download()
