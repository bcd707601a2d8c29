"""What a fitted dense network predicts, computed without Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr, softmax

#: Rows that are predicted at a time.
ROWS_AT_ONCE = 1024


#: Klambauer et al., "Self-normalizing neural networks", NIPS 2017.
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


#: Activations as Keras computes them, without it.
ACTIVATION_FUNCTIONS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * ndtr(x),
    "silu": lambda x: x * expit(x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "selu": lambda x: SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0))),
    "tanh": np.tanh,
    "softmax": lambda x: softmax(x, axis=-1),
    "sigmoid": expit,
    "linear": lambda x: x,
}


def layers_of(network: Any) -> list[tuple[str, NDArray[np.float32], NDArray[np.float32]]]:
    """Return activation, kernel and bias of each layer of a Keras network that has weights."""
    return [(layer.activation.__name__, *layer.get_weights()) for layer in network.layers if layer.get_weights()]


def probabilities(
    layers: Sequence[tuple[str, NDArray[np.float32], NDArray[np.float32]]], X: NDArray[np.float32], views: int = 1
) -> NDArray[np.float32]:
    """Return what a network predicts, shape (n_samples, n_classes), float32: the mean over the views of each row.

    Computed in float64: on some processors the last digit of a float32 product depends on a row's place among the others.
    """
    doubles = [(ACTIVATION_FUNCTIONS[name], kernel.astype(np.float64), bias) for name, kernel, bias in layers]
    chunks = []
    for start in range(0, len(X), ROWS_AT_ONCE):
        rows = X[start : start + ROWS_AT_ONCE].astype(np.float64)
        values = as_views(rows, views)
        for activation, kernel, bias in doubles:
            values = activation(values @ kernel + bias)
        chunks.append(values.reshape(len(rows), views, -1).mean(axis=1).astype(np.float32))
    return np.concatenate(chunks)


def as_views(X: NDArray[Any], views: int) -> NDArray[Any]:
    """Return the views of each row one below the other, shape (n_samples * views, n_features / views)."""
    return X.reshape(-1, X.shape[1] // views)
