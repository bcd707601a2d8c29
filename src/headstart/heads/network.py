"""The Keras networks of dense heads: built, trained an epoch at a time, loaded with nothing in them run."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import BundleError
from headstart.heads.adam import Adam, Descent
from headstart.heads.archive import check_members
from headstart.runtime import import_keras, import_tensorflow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    EpochRunner = Callable[[NDArray[np.int32]], tuple[float, float]]

#: Keras classes that a dense head is made of.
KERAS_CLASSES = frozenset(
    {"Sequential", "InputLayer", "Dense", "Dropout", "DTypePolicy", "GlorotUniform", "Zeros", "L2"}
)


def build_network(
    n_features: int, units: Sequence[int], *, activation: str, dropout: float, l2: float, seed: int
) -> Any:
    """Return an untrained network: hidden layers with dropout, then softmax, of these units; Glorot's start, seeded."""
    keras = import_keras()
    penalty = keras.regularizers.L2(l2) if l2 else None
    layers = [keras.Input((n_features,))]
    for number, width in enumerate(units):
        last = number == len(units) - 1
        layers.append(
            keras.layers.Dense(
                width,
                dtype="float32",  # whatever policy is set for other networks
                activation="softmax" if last else activation,
                kernel_initializer=keras.initializers.GlorotUniform(seed + number),
                kernel_regularizer=penalty,
            )
        )
        if dropout and not last:
            layers.append(keras.layers.Dropout(dropout, seed=seed + 1000 + number, dtype="float32"))
    return keras.Sequential(layers)


def compile_epoch(network: Any, descent: Descent, data: Sequence[Any]) -> EpochRunner:
    """Return a function that trains ``network`` for one epoch, on rows in the order it is given.

    Features, codes and weights stay on the device; a step gathers its rows there, and all steps of an epoch but the last,
    whose batch may be smaller, are one call. The arithmetic is that of ``model.fit`` with
    ``sparse_categorical_crossentropy``. It answers with the sum of the losses and the number of rows that were right.
    """
    tf = import_tensorflow()
    adam, batch_size = Adam(network.trainable_variables, descent), descent.batch_size
    features, codes, weights = (tf.constant(part) for part in data)
    train = training_step(network, adam)

    # Without AutoGraph: nothing here needs it, and where it cannot read a function it prints the user's whole environment.
    @tf.function(reduce_retracing=True, autograph=False)  # type: ignore[untyped-decorator]
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
    """Return a function as that of :func:`compile_epoch`, with the same steps, for rows that do not fit in memory.

    ``take`` is asked for the features of a batch at a time; ``targets`` are codes and weights of all rows.
    """
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


def load_network(
    path: Path, n_features: int, units: Sequence[int], *, activation: str, dropout: float, l2: float
) -> Any:
    """Return the Keras network of a dense head: built by this module, with the weights of the file.

    The file is a whole Keras model that others may load; here its description is compared, and never built.

    Raises
    ------
    BundleError
        If it holds anything but plain layers of these units, or is damaged.
    """
    try:
        check_members(path)
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            weights_bytes = archive.getinfo("model.weights.h5").file_size
        check_config(path, config, units)
        n_weights = sum((before + 1) * after for before, after in pairwise((n_features, *units)))
        if 4 * n_weights > weights_bytes:
            raise BundleError(f"{path} holds {weights_bytes:,} bytes of weights, too few for {n_weights:,} of them.")
        network = build_network(n_features, units, activation=activation, dropout=dropout, l2=l2, seed=0)
        network.load_weights(path)
    except BundleError:
        raise
    except Exception as error:  # Keras raises many kinds for a damaged file
        raise BundleError(f"{path} cannot be loaded: {error}") from error
    return network


def check_config(path: Path, config: dict[str, Any], units: Sequence[int]) -> None:
    """Raise BundleError where the description of a network names other layers than a dense head of these units has."""
    unknown = {name for name in class_names_in(config) if name not in KERAS_CLASSES}
    if unknown:
        raise BundleError(
            f"{path} holds layers that no dense head has, and is not loaded: {', '.join(sorted(unknown))}."
        )
    layers = config["config"]["layers"]
    found = [layer["config"]["units"] for layer in layers if layer["class_name"] == "Dense"]
    if found != list(units):
        raise BundleError(f"{path} holds dense layers of {found} units. Expected: {list(units)}.")


def class_names_in(config: Any) -> set[str]:
    """Return every class that a Keras configuration names; one outside of ``keras`` is named with its module."""
    if isinstance(config, list):
        return set().union(*(class_names_in(item) for item in config))
    if not isinstance(config, dict):
        return set()
    found = set().union(*(class_names_in(item) for item in config.values()))
    if "class_name" in config:
        module = str(config.get("module") or "")
        plain = module.split(".", maxsplit=1)[0] == "keras" and not config.get("registered_name")
        found.add(str(config["class_name"]) if plain else f"{module}.{config['class_name']}")
    return found
