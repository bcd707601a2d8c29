"""A head as layers gives the head's own probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bundles import networks_are_slow
from headstart.errors import HeadstartError
from headstart.exchange.keras_file import HeadLayers, as_layers
from headstart.heads.catalogue import HEAD_TYPES, default_spec, heads_with, make_head


def fitted(head_type: str, n_classes: int, params: dict[str, Any] | None = None) -> tuple[Any, np.ndarray]:
    """Return a fitted classifier and rows that it was not fitted on."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % n_classes * 2  # every other class has no image
    X = np.abs(rng.normal(size=(60, 8)) + y[:, None] * np.eye(8)[y % 8]).astype(np.float32)
    spec = default_spec(head_type, features=["avg"], scaling="none", params=params)
    classifier = make_head(spec).steps[-1][1].fit(X, y)
    return classifier, np.abs(rng.normal(size=(20, 8))).astype(np.float32)


def apply(form: HeadLayers, X: np.ndarray) -> np.ndarray:
    """Return what the layers compute."""
    functions = {
        "relu": lambda v: np.maximum(v, 0),
        "tanh": np.tanh,
        "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
        "softmax": lambda v: np.exp(v) / np.exp(v).sum(axis=1, keepdims=True),
    }
    n_rows = len(X)
    X = X.reshape(n_rows * form.views, -1)
    for layer in form.layers:
        X = functions[layer.activation](X @ layer.kernel + layer.bias)
    X = X.reshape(n_rows, form.views, -1).mean(axis=1)
    return X / X.sum(axis=1, keepdims=True) if form.layers[-1].normalised else X


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("head_type", networks_are_slow(heads_with("to_layers")))
def test_layers_give_the_probabilities_of_the_head(head_type: str, n_classes: int) -> None:
    params = {"epochs": 3, "hidden": (5, 4), "activation": "tanh"} if head_type == "dense" else None
    classifier, X = fitted(head_type, n_classes, params)
    form = as_layers(classifier)
    np.testing.assert_allclose(apply(form, X), classifier.predict_proba(X), atol=2e-6)
    placement = form.placement(2 * n_classes)
    assert placement is not None
    placed = apply(form, X) @ placement
    np.testing.assert_array_equal(placed[:, ::2], apply(form, X))
    assert not placed[:, 1::2].any()


@pytest.mark.slow  # a network needs TensorFlow
def test_layers_give_the_mean_over_the_views_of_a_row() -> None:
    classifier, X = fitted("dense", 3, {"epochs": 20, "hidden": (5,), "views": 4})
    form = as_layers(classifier)
    assert (form.views, form.layers[0].kernel.shape) == (4, (2, 5))
    np.testing.assert_allclose(apply(form, X), classifier.predict_proba(X), atol=2e-6)


def test_columns_that_are_in_place_need_no_matrix() -> None:
    form = HeadLayers((), np.arange(3))
    assert form.placement(3) is None
    assert form.placement(4) is not None


@pytest.mark.parametrize("head_type", sorted(set(HEAD_TYPES) - set(heads_with("to_layers"))))
def test_other_heads_are_refused_and_told_which_can(head_type: str) -> None:
    classifier, _ = fitted(head_type, 2, {"positions": 4} if head_type == "anomaly-patches" else None)
    with pytest.raises(HeadstartError, match=r"cannot be expressed exactly.*dense, logistic, linear-svm"):
        as_layers(classifier)
