"""Networks of keras.applications with their published weights, which Keras downloads: ``pytest -m download``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.backbones.convnet import Weights
from headstart.backbones.keras_applications import APPLICATIONS, Application
from headstart.backbones.precision import row_cosines
from headstart.backbones.registry import build_backbone
from headstart.errors import WeightsError

pytestmark = [pytest.mark.weights, pytest.mark.download]

#: Domestic cats among the classes of ImageNet: tabby to Egyptian cat.
CATS = range(281, 286)


@pytest.fixture(scope="module", params=APPLICATIONS)
def application(request: pytest.FixtureRequest) -> Application:
    return APPLICATIONS[request.param]


@pytest.fixture(scope="module")
def weights(application: Application) -> Weights:
    try:
        return application.load()
    except WeightsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def cat(application: Application, shared: Path) -> np.ndarray:
    """The reference photograph, uint8 of shape (1, size, size, 3)."""
    size = application.input_size_px
    with Image.open(shared / "reference/vgg16/persian_cat_224_exact.png") as image:
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))[None]


def preprocessed(application: Application, images: np.ndarray) -> Any:
    return application.module.preprocess_input(images.astype(np.float32))


def test_features_are_those_of_keras(application: Application, weights: Weights, cat: np.ndarray) -> None:
    spec = application.spec()
    recipe = spec.recipe(weights=weights.name, weights_sha256=weights.sha256)
    found = build_backbone(recipe, weights, batch_size=1, device="cpu").forward(cat).features
    model = application.model(application.input_size_px, "imagenet")
    expected = np.asarray(model(preprocessed(application, cat), training=False))
    assert np.isfinite(found).all()
    assert found.std() > 0
    assert row_cosines(found, expected).min() >= 0.99999
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_the_classifier_sees_a_cat(application: Application, weights: Weights, cat: np.ndarray) -> None:
    """The whole network of Keras, with the classifier that the backbone leaves out, behind the same preprocessing."""
    try:
        classifier = application.constructor(weights="imagenet")
    except Exception as error:
        pytest.skip(f"the weights of {application.name} with its classifier cannot be downloaded: {error}")
    scores = np.asarray(classifier(preprocessed(application, cat), training=False))
    assert int(scores.argmax()) in CATS
