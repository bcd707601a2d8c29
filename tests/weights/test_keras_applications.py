"""Networks of keras.applications: the program's features are those of Keras' own model and preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.backbones.keras_applications import APPLICATIONS, Application
from headstart.backbones.precision import row_cosines
from headstart.backbones.registry import build_backbone
from headstart.errors import HeadstartError, WeightsError
from headstart.runtime import import_keras
from networks import as_onnx, random_images, random_model, scaled

pytestmark = pytest.mark.weights

#: Pixels of a side, odd, so that sides are rounded.
SIZE = 101


@pytest.fixture(scope="module", params=APPLICATIONS)
def application(request: pytest.FixtureRequest) -> Application:
    return APPLICATIONS[request.param]


@pytest.fixture(scope="module")
def model(application: Application) -> Any:
    """Keras' own model with weights drawn at random."""
    return random_model(application, SIZE)


@pytest.fixture(scope="module")
def file(application: Application, model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp(application.name) / f"{application.name}.weights.h5"
    model.save_weights(path)
    return path


def outputs_of(model: Any, names: Sequence[str]) -> Any:
    """Return the model with the outputs of inner layers after its own."""
    return import_keras().Model(model.input, [model.output, *(model.get_layer(name).output for name in names)])


def test_as_onnx_the_maps_are_those_of_keras(application: Application, model: Any) -> None:
    pytest.importorskip("onnxruntime")
    whole = outputs_of(model, application.spec().pooled_layers)
    images = random_images(2, SIZE)
    for found, output in zip(as_onnx(whole, images), whole(scaled(images), training=False), strict=True):
        expected = np.asarray(output)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_features_are_those_of_keras(application: Application, model: Any, file: Path) -> None:
    spec = application.spec()
    weights = spec.loaded(file)
    recipe = spec.recipe(weights=weights.name, weights_sha256=weights.sha256, input_size_px=SIZE)
    images = random_images(3, SIZE)  # of noise, random networks make values of 80,000, in which rounding is amplified
    found = build_backbone(recipe, weights, batch_size=2, device="cpu").forward(images)
    whole = outputs_of(model, recipe.pooled_layers)
    pixels = application.module.preprocess_input(images.astype(np.float32))
    expected, *maps = (np.asarray(output) for output in whole(pixels, training=False))
    assert expected.std() > 0
    assert model.count_params() == application.n_parameters
    assert [output.shape[1:] for output in maps] == [
        (layer.side(SIZE), layer.side(SIZE), layer.channels)
        for layer in (spec.layers[name] for name in spec.pooled_layers)
    ]
    assert found.features.shape[1:] == expected.shape[1:] == spec.map_shape(recipe)
    assert row_cosines(found.features, expected).min() >= 0.99999
    np.testing.assert_allclose(found.features, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    averages = np.concatenate([output.mean(axis=(1, 2)) for output in maps], axis=1)
    np.testing.assert_allclose(found.pooled, averages, rtol=1e-3, atol=1e-4 * np.abs(averages).max())


def test_weights_must_fit_and_be_whole(tmp_path: Path) -> None:
    application = APPLICATIONS["mobilenetv2"]
    keras = import_keras()
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(WeightsError, match="cannot be read as weights of mobilenetv2"):
        application.load(tmp_path / "other.weights.h5", custom=True)
    with pytest.raises(HeadstartError, match="No digest of weights in files is known"):
        application.load(tmp_path / "other.weights.h5")
    with pytest.raises(WeightsError, match="Expected: a Keras"):
        application.load(tmp_path / "none.weights.h5", custom=True)
    model = application.model(SIZE)
    broken = [array.copy() for array in model.get_weights()]
    broken[3][:] = np.nan
    model.set_weights(broken)
    model.save_weights(tmp_path / "broken.weights.h5")
    with pytest.raises(WeightsError, match="some are missing or not finite"):
        application.load(tmp_path / "broken.weights.h5", custom=True)
