"""Networks of keras.applications: the program's features are those of Keras' own model and preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.backbones.keras_applications import APPLICATIONS, Application
from headstart.backbones.precision import row_cosines
from headstart.backbones.registry import build_backbone
from headstart.errors import HeadstartError, WeightsError
from headstart.exchange.keras_file import export_keras
from headstart.exchange.onnx_file import export_onnx
from headstart.extract.options import ExtractOptions
from headstart.extract.run import extract_features
from headstart.fit import fit_head
from headstart.heads.catalogue import default_spec
from headstart.predict import Predictor
from headstart.runtime import import_keras
from pictures import class_folders

pytestmark = pytest.mark.weights

#: Pixels of a side, odd, so that sides are rounded.
SIZE = 101


@pytest.fixture(scope="module", params=APPLICATIONS)
def application(request: pytest.FixtureRequest) -> Application:
    return APPLICATIONS[request.param]


@pytest.fixture(scope="module")
def model(application: Application) -> Any:
    """Keras' own model with weights drawn at random; variances stay positive."""
    import_keras().utils.set_random_seed(0)
    made, rng = application.model(SIZE), np.random.default_rng(0)
    for variable in made.variables:
        if "variance" in variable.path:
            variable.assign(rng.uniform(0.5, 2, variable.shape))
        elif any(name in variable.path for name in ("mean", "beta", "bias", "gamma")):
            variable.assign(variable.numpy() + rng.normal(0, 0.1, variable.shape))
    return made


@pytest.fixture(scope="module")
def file(application: Application, model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp(application.name) / f"{application.name}.weights.h5"
    model.save_weights(path)
    return path


def test_features_are_those_of_keras(application: Application, model: Any, file: Path) -> None:
    spec = application.spec()
    weights = spec.loaded(file)
    recipe = spec.recipe(weights=weights.name, weights_sha256=weights.sha256, input_size_px=SIZE)
    images = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3)).astype(np.uint8)
    found = build_backbone(recipe, weights, batch_size=2, device="cpu").forward(images)
    inner = [model.get_layer(name).output for name in recipe.pooled_layers]
    whole = import_keras().Model(model.input, [model.output, *inner])
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


def test_a_head_on_negative_features_predicts_and_is_exported(tmp_path: Path) -> None:
    name = "efficientnetv2b0"
    application = APPLICATIONS[name]
    import_keras().utils.set_random_seed(0)
    weights = tmp_path / "own.weights.h5"
    application.model(SIZE).save_weights(weights)
    data, cache = class_folders(tmp_path / "data", n_per_class=5), tmp_path / "data.h5"
    own = {"weights": str(weights), "custom_weights": True}
    options = ExtractOptions(backbone=name, input_size_px=SIZE, precision="float32", **own)
    extract_features(data, cache, options=options)
    head = fit_head(cache, default_spec("logistic"), output=tmp_path / "head").folder
    paths = sorted(data.rglob("*.png"))
    predicted = np.stack([found.probabilities for found in Predictor(head, weights=str(weights)).predict(paths)])
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB"), np.float32) for path in paths])
    export_keras(head, tmp_path / "model.keras", weights=weights)
    model = import_keras().models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(model.predict(pixels, verbose=0), predicted, atol=1e-4)
    with pytest.raises(HeadstartError, match="cannot be written to ONNX"):
        export_onnx(head, tmp_path / "model.onnx", weights=weights)
    with pytest.raises(HeadstartError, match="without negative values"):
        fit_head(cache, default_spec("logistic", features=("gem",)))


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
