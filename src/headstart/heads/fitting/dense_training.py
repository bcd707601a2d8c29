"""The Keras networks of dense heads: built, and trained with Adam and early stopping."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.heads.fitting.dense_layers import layers_of, probabilities
from headstart.heads.out_of_core import HeldOut
from headstart.runtime import import_keras, import_tensorflow

EpochRunner = Callable[[NDArray[np.int32]], tuple[float, float]]
Pair = tuple[NDArray[np.float32], NDArray[np.intp]]
Watched = HeldOut | list[Pair]
History = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Descent:
    """The steps of a training, as ``keras.optimizers.Adam`` takes them."""

    learning_rate: float
    batch_size: int
    n_steps: int = 0  # steps until a falling learning rate is 0
    schedule: str = "constant"  # one of ``heads.parameters.SCHEDULES``

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, the first being 0, as Keras' ``PolynomialDecay`` and ``CosineDecay``."""
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
        """Return a row for each of the next steps: learning rate, and the powers of both betas that take the bias away."""
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


def build_network(
    n_features: int,
    units: Sequence[int],
    *,
    activation: str,
    dropout: float,
    l2: float,
    seed: int,
    last: str = "softmax",
) -> Any:
    """Return an untrained network: hidden layers with dropout, then one with the activation ``last``, of these units.

    It starts as Glorot's, seeded.
    """
    keras = import_keras()
    penalty = keras.regularizers.L2(l2) if l2 else None
    layers = [keras.Input((n_features,))]
    for number, width in enumerate(units):
        is_last = number == len(units) - 1
        layers.append(
            keras.layers.Dense(
                width,
                dtype="float32",  # whatever policy is set for other networks
                activation=last if is_last else activation,
                kernel_initializer=keras.initializers.GlorotUniform(seed + number),
                kernel_regularizer=penalty,
            )
        )
        if dropout and not is_last:
            layers.append(keras.layers.Dropout(dropout, seed=seed + 1000 + number, dtype="float32"))
    return keras.Sequential(layers)


def compile_epoch(
    network: Any, descent: Descent, data: Sequence[Any], make_step: Callable[[Any, Adam], Any] | None = None
) -> EpochRunner:
    """Return a function that trains ``network`` for one epoch, on rows in the order it is given.

    Features, codes and weights stay on the device; a step gathers its rows there, and all steps of an epoch but the last,
    whose batch may be smaller, are one call. The arithmetic is that of ``model.fit`` with
    ``sparse_categorical_crossentropy``, or with the loss of another step that ``make_step`` returns. The function returns the
    sum of the losses and the number of rows that were right.
    """
    tf = import_tensorflow()
    adam, batch_size = Adam(network.trainable_variables, descent), descent.batch_size
    features, codes, weights = (tf.constant(part) for part in data)
    train = (make_step or training_step)(network, adam)

    # Compiled once, for whole batches and the smaller one. Without AutoGraph: nothing here needs it, and where it cannot
    # read a function it prints the user's whole environment.
    signature = [tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, 3], tf.float32)]

    @tf.function(input_signature=signature, autograph=False)  # type: ignore[untyped-decorator]
    def steps(batches: Any, paces: Any) -> tuple[Any, Any]:
        def step(number: Any, loss: Any, n_right: Any) -> tuple[Any, Any, Any]:
            rows = batches[number]
            found = train(tf.gather(features, rows), tf.gather(codes, rows), tf.gather(weights, rows), paces[number])
            of_batch, right = (tf.cast(value, tf.float64) for value in found)
            return number + 1, loss + of_batch, n_right + right

        zero = tf.constant(0.0, tf.float64)
        n_steps = tf.shape(batches)[0]
        _, loss, n_right = tf.while_loop(
            lambda number, *_: number < n_steps, step, (0, zero, zero), parallel_iterations=1
        )
        return loss, n_right

    def run_epoch(order: NDArray[np.int32]) -> tuple[float, float]:
        n_whole = len(order) // batch_size * batch_size
        whole, rest = order[:n_whole].reshape(-1, batch_size), order[n_whole:][None]
        results = [steps(part, adam.next_paces(len(part))) for part in (whole, rest) if part.size]
        return sum(float(loss) for loss, _ in results), sum(float(right) for _, right in results)

    return run_epoch


def compile_streamed_epoch(
    network: Any,
    descent: Descent,
    take: Callable[[NDArray[np.int32]], NDArray[np.float32]],
    targets: Sequence[NDArray[Any]],
) -> EpochRunner:
    """Return what :func:`compile_epoch` does, for rows that do not fit in memory: ``take`` reads a batch at a time."""
    tf = import_tensorflow()
    adam, batch_size = Adam(network.trainable_variables, descent), descent.batch_size
    step = tf.function(training_step(network, adam), reduce_retracing=True, autograph=False)
    codes, weights = targets

    def run_epoch(order: NDArray[np.int32]) -> tuple[float, float]:
        loss, n_right = 0.0, 0.0
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = (tf.constant(part) for part in (take(rows), codes[rows], weights[rows]))
            batch_loss, batch_right = step(*batch, adam.next_paces(1)[0])
            loss, n_right = loss + float(batch_loss), n_right + float(batch_right)
        return loss, n_right

    return run_epoch


def training_step(network: Any, adam: Adam) -> Callable[[Any, Any, Any, Any], tuple[Any, Any]]:
    """Return a function that trains ``network`` on one batch of features, codes and weights, to be compiled."""
    keras, tf = import_keras(), import_tensorflow()

    def train(x: Any, y: Any, w: Any, pace: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            probabilities = network(x, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(y, probabilities) * w
            loss = tf.reduce_mean(losses) + sum(network.losses)
        adam.apply(tape.gradient(loss, network.trainable_variables), pace)
        right = tf.equal(tf.argmax(probabilities, axis=1, output_type=tf.int32), y)
        return tf.reduce_sum(losses), tf.reduce_sum(tf.cast(right, tf.float32))

    return train


def squared_error_step(network: Any, adam: Adam) -> Callable[[Any, Any, Any, Any], tuple[Any, Any]]:
    """Return a function that trains ``network`` on one batch of features, numbers and weights by their squared error."""
    tf = import_tensorflow()

    def train(x: Any, y: Any, w: Any, pace: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            losses = tf.square(network(x, training=True)[:, 0] - y) * w
            loss = tf.reduce_mean(losses) + sum(network.losses)
        adam.apply(tape.gradient(loss, network.trainable_variables), pace)
        return tf.reduce_sum(losses), tf.zeros(())

    return train


def run_epochs(
    network: Any,
    run_epoch: EpochRunner,
    train: NDArray[np.intp],
    watched: Watched,
    *,
    epochs: int,
    patience: int | None,
    seed: int,
    views: int = 1,
) -> History:
    """Train for some epochs, the rows ``train`` in a new order in each; return loss and accuracy of each.

    Loss and accuracy of the ``watched`` rows, blocks of (X, codes), are kept too. With ``patience``, training stops when
    their loss has not fallen for so many epochs, and the weights of the best one are taken. Of rows with several views an
    epoch uses one, drawn at random, and ``run_epoch`` is given numbers of views; watched rows are predicted by all.
    """
    rng = np.random.default_rng(seed)
    history: History = {"loss": [], "accuracy": []}
    best, best_weights, waited = np.inf, None, 0
    for _ in range(epochs):
        order = rng.permutation(train)
        if views > 1:
            order = order * views + rng.integers(views, size=len(order))
        loss, n_right = run_epoch(order.astype(np.int32))
        history["loss"].append(loss / len(train))
        history["accuracy"].append(n_right / len(train))
        if not watched:
            continue
        watched_loss = watch(network, watched, history, views)
        if patience is None:
            continue
        if watched_loss < best:
            best, best_weights, waited = watched_loss, network.get_weights(), 0
        elif (waited := waited + 1) >= patience:
            break
    if best_weights is not None:
        network.set_weights(best_weights)
    return history


def watch(network: Any, watched: Watched, history: History, views: int) -> float:
    """Add loss and accuracy of the watched rows to the history; return the loss."""
    pairs = [(probabilities(layers_of(network), X, views), codes) for X, codes in watched]
    predicted = np.concatenate([block for block, _ in pairs])
    codes = np.concatenate([block for _, block in pairs])
    loss = float(-np.log(np.maximum(predicted[np.arange(len(codes)), codes], 1e-7)).mean())
    history.setdefault("val_loss", []).append(loss)
    history.setdefault("val_accuracy", []).append(float((predicted.argmax(axis=1) == codes).mean()))
    return loss
