"""How a dense head's weights move: Adam, and its learning rate over the steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headstart.runtime import import_tensorflow


@dataclass(frozen=True, slots=True)
class Descent:
    """The steps of a training, as ``keras.optimizers.Adam`` takes them.

    Attributes
    ----------
    learning_rate : float
        Of the first step.
    batch_size : int
        Rows per step.
    n_steps : int
        Steps until a falling learning rate is 0.
    schedule : str
        One of ``heads.parameters.SCHEDULES``.
    """

    learning_rate: float
    batch_size: int
    n_steps: int = 0
    schedule: str = "constant"

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, the first being 0.

        That of ``keras.optimizers.schedules.PolynomialDecay`` with power 1 and end 0, or of ``CosineDecay``.
        """
        if self.schedule == "constant":
            return self.learning_rate
        done = min(step / self.n_steps, 1.0)
        left = 1.0 - done if self.schedule == "linear" else (1.0 + math.cos(math.pi * done)) / 2.0
        return self.learning_rate * left


class Adam:
    """Adam as ``keras.optimizers.Adam`` computes it, each variable updated in one pass over its memory.

    Kingma & Ba, "Adam: a method for stochastic optimization", 2015, with Keras' defaults. Keras runs a dozen operations over
    each variable and its moments; for the millions of weights behind a flattened map that is most of the time of a step.
    TensorFlow's ResourceApplyAdam is the same arithmetic in one.
    """

    BETAS = (0.9, 0.999)
    EPSILON = 1e-7

    def __init__(self, variables: Sequence[Any], descent: Descent) -> None:
        tf = import_tensorflow()
        self._variables = [variable.value for variable in variables]
        self._moments = [(tf.Variable(tf.zeros_like(v)), tf.Variable(tf.zeros_like(v))) for v in self._variables]
        self._descent = descent
        self._n_steps = 0

    def next_paces(self, n_steps: int) -> Any:
        """Return what the next steps go by, a row each: learning rate, and both betas to its power, which take the bias away.

        A tensor of shape (n_steps, 3), float32.
        """
        first = self._n_steps
        self._n_steps += n_steps
        paces = [
            [self._descent.rate(step), *(beta ** (step + 1) for beta in self.BETAS)]
            for step in range(first, self._n_steps)
        ]
        return import_tensorflow().constant(paces)

    def apply(self, gradients: Sequence[Any], pace: Any) -> None:
        """Update every variable by its gradient."""
        tf = import_tensorflow()
        for variable, (first, second), gradient in zip(self._variables, self._moments, gradients, strict=True):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=first.handle,
                v=second.handle,
                beta1_power=pace[1],
                beta2_power=pace[2],
                lr=pace[0],
                beta1=self.BETAS[0],
                beta2=self.BETAS[1],
                epsilon=self.EPSILON,
                grad=gradient,
            )
