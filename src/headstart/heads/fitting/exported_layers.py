"""Fitted heads as dense layers of a network, for export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Layer:
    """``activation(x @ kernel + bias)``.

    Attributes
    ----------
    kernel : ndarray of shape (n_inputs, n_outputs), float32
        Coefficients.
    bias : ndarray of shape (n_outputs,), float32
        Intercepts.
    activation : str
        ``softmax``, ``sigmoid``, ``linear``, or one of ``heads.parameters.ACTIVATIONS``; named as in Keras.
    normalised : bool
        Whether each row of the outputs is to be divided by its sum.
    """

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    activation: str
    normalised: bool = False


def softmax_layer(coefficients: Any, intercepts: Any) -> Layer:
    """Return linear coefficients, one row per class, as a layer; a single row stands for the second of two classes."""
    kernel, bias = np.asarray(coefficients, np.float64), np.asarray(intercepts, np.float64).ravel()
    if len(kernel) == 1:
        # softmax([0, z]) is [1 − sigmoid(z), sigmoid(z)], scikit-learn's two probabilities
        kernel, bias = np.vstack([np.zeros_like(kernel), kernel]), np.concatenate([[0.0], bias])
    return Layer(kernel.T.astype(np.float32), bias.astype(np.float32), "softmax")


def calibrated_layer(fitted: Any) -> Layer:
    """Return a linear SVM with Platt's sigmoid; of more than two classes, as heads had it once, a sigmoid for each."""
    a = np.array([sigmoid.a_ for sigmoid in fitted.calibrators])[:, None]
    b = np.array([sigmoid.b_ for sigmoid in fitted.calibrators])
    svm = fitted.estimator
    kernel, bias = -a * svm.coef_, -(a[:, 0] * svm.intercept_ + b)
    if len(kernel) == 1:
        kernel, bias = np.vstack([-kernel, kernel]), np.concatenate([-bias, bias])  # 1 − sigmoid(z) is sigmoid(−z)
    return Layer(kernel.T.astype(np.float32), bias.astype(np.float32), "sigmoid", normalised=len(kernel) > 2)
