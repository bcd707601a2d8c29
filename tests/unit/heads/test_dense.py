from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss

from headstart.errors import DataError, ParameterError
from headstart.heads.dense import DenseHead
from headstart.heads.fitting import saved_network
from headstart.heads.fitting.dense_layers import ACTIVATION_FUNCTIONS
from headstart.heads.fitting.dense_training import Descent, build_network, compile_epoch
from headstart.heads.head_specs import ACTIVATIONS
from headstart.runtime import import_keras

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 70)
    return (rng.normal(size=(70, 12)) + y[:, None]).astype(np.float32), y


def test_an_epoch_is_what_model_fit_computes(data: tuple[np.ndarray, np.ndarray]) -> None:
    keras = import_keras()
    X, y = data
    ours = build_network(12, (6, 3), activation="relu", dropout=0.0, l2=0.0, seed=5)
    theirs = build_network(12, (6, 3), activation="relu", dropout=0.0, l2=0.0, seed=5)
    order = np.random.default_rng(1).permutation(len(X)).astype(np.int32)
    run_epoch = compile_epoch(ours, Descent(0.01, 32), (X, y.astype(np.int32), np.ones(len(X), np.float32)))
    theirs.compile(keras.optimizers.Adam(0.01), "categorical_crossentropy", metrics=["accuracy"])
    one_hot = np.eye(3, dtype=np.float32)[y]
    for _ in range(3):
        loss, n_right = run_epoch(order)
        history = theirs.fit(X[order], one_hot[order], batch_size=32, shuffle=False, verbose=0).history
        assert loss / len(X) == pytest.approx(history["loss"][0], rel=1e-4)
        assert n_right / len(X) == pytest.approx(history["accuracy"][0], abs=1e-6)
    for mine, keras_own in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, keras_own, atol=1e-5)


def test_a_fit_is_the_tutorials_from_the_same_start_in_the_same_orders(data: tuple[np.ndarray, np.ndarray]) -> None:
    """All ten epochs, by the estimator's own defaults, against layers, optimizer and loss as a tutorial writes them."""
    keras = import_keras()
    X, y = data
    head = DenseHead(random_state=7).fit(X, y)
    seed = int(np.random.RandomState(7).randint(2**31 - 1))
    theirs = keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    start = build_network(12, (256, 3), activation="relu", dropout=0.0, l2=0.0, seed=seed)
    for mine, keras_own in zip(start.layers, theirs.layers, strict=True):
        assert type(mine.kernel_initializer) is type(keras_own.kernel_initializer)
        assert type(mine.bias_initializer) is type(keras_own.bias_initializer)
    theirs.set_weights(start.get_weights())
    theirs.compile(optimizer="adam", loss="categorical_crossentropy")
    orders, one_hot = np.random.default_rng(seed), np.eye(3, dtype=np.float32)[y]
    for _ in range(10):
        order = orders.permutation(len(X))
        theirs.fit(X[order], one_hot[order], shuffle=False, verbose=0)
    for mine, keras_own in zip(head.network_.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, keras_own, atol=1e-5)


def test_class_weights_are_sample_weights_of_model_fit(data: tuple[np.ndarray, np.ndarray]) -> None:
    keras = import_keras()
    X, y = data
    weights = np.array([3.0, 1.0, 0.5], np.float32)[y]
    ours, theirs = (build_network(12, (3,), activation="relu", dropout=0.0, l2=0.1, seed=5) for _ in range(2))
    compile_epoch(ours, Descent(0.01, 32), (X, y.astype(np.int32), weights))(np.arange(len(X), dtype=np.int32))
    theirs.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    theirs.fit(X, y, sample_weight=weights, batch_size=32, shuffle=False, verbose=0)
    for mine, keras_own in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, keras_own, atol=1e-5)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_are_those_of_keras(data: tuple[np.ndarray, np.ndarray], schedule: str) -> None:
    keras = import_keras()
    X, y = data
    ours, theirs = (build_network(12, (6, 3), activation="relu", dropout=0.0, l2=0.0, seed=5) for _ in range(2))
    n_steps = 4 * 3
    descent = Descent(0.02, 32, n_steps, schedule)
    run_epoch = compile_epoch(ours, descent, (X, y.astype(np.int32), np.ones(len(X), np.float32)))
    rates = {
        "constant": 0.02,
        "linear": keras.optimizers.schedules.PolynomialDecay(0.02, n_steps, 0.0),
        "cosine": keras.optimizers.schedules.CosineDecay(0.02, n_steps),
    }
    theirs.compile(keras.optimizers.Adam(rates[schedule]), "sparse_categorical_crossentropy")
    for _ in range(4):
        run_epoch(np.arange(len(X), dtype=np.int32))
        theirs.fit(X, y, batch_size=32, shuffle=False, verbose=0)
    for mine, keras_own in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, keras_own, atol=1e-5)


def test_a_falling_learning_rate_ends_at_zero(data: tuple[np.ndarray, np.ndarray]) -> None:
    """The last of the steps is the smallest: a schedule is laid over all epochs, whatever the batch."""
    X, y = data
    head = DenseHead((4,), epochs=7, batch_size=20, schedule="linear", random_state=0).fit(X, y)
    descent = head._descent(len(X))
    assert (descent.n_steps, descent.rate(0), descent.rate(28)) == (28, 0.001, 0)


def test_the_defaults_are_the_recipe(data: tuple[np.ndarray, np.ndarray]) -> None:
    head = DenseHead(random_state=0).fit(*data)
    assert [layer.units for layer in head.network_.layers] == [256, 3]
    assert [layer.activation.__name__ for layer in head.network_.layers] == ["relu", "softmax"]
    assert (head.n_iter_, head.batch_size, head.learning_rate) == (10, 32, 0.001)
    assert len(head.history_["loss"]) == 10


def test_early_stopping_keeps_the_best_weights(data: tuple[np.ndarray, np.ndarray]) -> None:
    head = DenseHead((64,), epochs=300, learning_rate=0.05, early_stopping=True, patience=3, random_state=0).fit(*data)
    assert head.n_iter_ < 300
    losses = head.history_["val_loss"]
    assert head.n_iter_ == int(np.argmin(losses)) + 1 + 3


def test_validation_data_is_watched_and_not_trained_on() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 6)).astype(np.float32), np.array(["ant", "bee"] * 20)
    alone = DenseHead(hidden=(4,), epochs=3, random_state=0).fit(X, y)
    watched = DenseHead(hidden=(4,), epochs=3, random_state=0).fit(X, y, X[:10] + 1, y[:10])
    np.testing.assert_array_equal(watched.predict_proba(X), alone.predict_proba(X))
    assert "val_accuracy" not in alone.history_
    last = (watched.predict(X[:10] + 1) == y[:10]).mean()
    assert (len(watched.history_["val_loss"]), watched.history_["val_accuracy"][-1]) == (3, last)
    with pytest.raises(DataError, match="labels that y has not: cat"):
        DenseHead(epochs=1).fit(X, y, X[:2], ["ant", "cat"])


def test_a_fitted_head_survives_pickling_in_memory(data: tuple[np.ndarray, np.ndarray]) -> None:
    head = DenseHead((4,), dropout=0.2, epochs=2, random_state=0).fit(*data)
    again = pickle.loads(pickle.dumps(head))
    np.testing.assert_array_equal(again.predict_proba(data[0]), head.predict_proba(data[0]))


def test_fits_leave_the_global_random_state_alone(data: tuple[np.ndarray, np.ndarray]) -> None:
    np.random.seed(4)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(4)  # noqa: NPY002
    DenseHead((4,), epochs=1, random_state=0).fit(*data)
    assert np.random.random() == expected  # noqa: NPY002


def test_one_class_is_refused(data: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="two classes"):
        DenseHead().fit(data[0], np.zeros(len(data[0])))


def test_a_fit_prints_nothing(tmp_path: Path) -> None:
    # AutoGraph, where it cannot read a function, prints the environment: people's tokens in other people's logs.
    code = (
        "import numpy as np; from headstart.heads.dense import DenseHead; "
        "DenseHead((2,), epochs=1, random_state=0).fit(np.eye(4, dtype=np.float32), [0, 1, 0, 1])"
    )
    environment = {**os.environ, "HEADSTART_TEST_TOKEN": "do-not-print-me", "TMPDIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, timeout=120, capture_output=True, text=True
    )
    assert "do-not-print-me" not in run.stdout + run.stderr
    assert "AutoGraph" not in run.stdout + run.stderr
    assert not list(tmp_path.glob("__autograph_generated_file*"))


@pytest.fixture(scope="module")
def viewed() -> tuple[np.ndarray, np.ndarray]:
    """Return rows of four views: the class lies in the first of each view's three columns, the rest is noise."""
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 120)
    X = rng.normal(size=(120, 4, 3))
    X[:, :, 0] += 2 * y[:, None]
    return X.reshape(120, 12).astype(np.float32), y


def test_the_views_of_a_row_are_predicted_one_by_one(viewed: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = viewed
    head = DenseHead((8,), views=4, learning_rate=0.01, epochs=20, random_state=0).fit(X, y)
    assert head.network_.input_shape == (None, 3)
    one_by_one = [head.network_(X[:, start : start + 3]).numpy() for start in (0, 3, 6, 9)]
    np.testing.assert_allclose(head.predict_proba(X), np.mean(one_by_one, axis=0), atol=1e-6)
    turned = X.reshape(-1, 4, 3)[:, ::-1].reshape(X.shape)
    np.testing.assert_allclose(head.predict_proba(turned), head.predict_proba(X), atol=1e-6)
    assert head.score(X, y) > 0.9


def test_every_view_is_learned_from(viewed: tuple[np.ndarray, np.ndarray]) -> None:
    """Of two views, the class is seen in the second alone: a head that went by the first would have to guess."""
    X, y = viewed
    X = np.concatenate([np.zeros((len(X), 3), np.float32), X[:, :3]], axis=1)
    head = DenseHead((8,), views=2, learning_rate=0.01, epochs=60, random_state=0).fit(X, y)
    assert head.score(X, y) > 0.8


def test_columns_that_are_no_views_are_refused(viewed: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ParameterError, match=r"12 columns cannot be divided .* Received: views=5"):
        DenseHead(views=5).fit(*viewed)


def test_a_head_with_views_is_copied_whole(viewed: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = viewed
    head = DenseHead((8,), views=4, early_stopping=True, random_state=0).fit(X, y)
    copied = pickle.loads(pickle.dumps(head))
    np.testing.assert_array_equal(copied.predict_proba(X), head.predict_proba(X))


@pytest.mark.parametrize("views", [1, 4])
def test_a_temperature_is_in_the_network_and_corrects_how_sure_it_is(
    viewed: tuple[np.ndarray, np.ndarray], views: int
) -> None:
    """A head that fits labels of which many are drawn at random is too sure; the mean of views that differ too unsure."""
    rng = np.random.default_rng(5)
    (X, _), params = viewed, {"views": views, "learning_rate": 0.02, "epochs": 60, "random_state": 0}
    y = np.where(rng.random(len(X)) < 0.4, rng.integers(0, 2, len(X)), (X[:, 0] > 1).astype(int))
    train, test = np.arange(80), np.arange(80, 120)
    plain = DenseHead((64,), **params).fit(X[train], y[train])
    tempered = DenseHead((64,), cv=4, **params).fit(X[train], y[train])
    assert plain.temperature_ == 1.0
    assert (tempered.temperature_ > 1.5) if views == 1 else (tempered.temperature_ < 0.7)
    for before, after in zip(plain.network_.get_weights()[-2:], tempered.network_.get_weights()[-2:], strict=True):
        np.testing.assert_allclose(after, before / tempered.temperature_, rtol=1e-6)
    if views == 1:
        assert log_loss(y[test], tempered.predict_proba(X[test])) < log_loss(y[test], plain.predict_proba(X[test]))
        np.testing.assert_array_equal(tempered.predict(X), plain.predict(X))


def test_a_temperature_that_cannot_be_chosen_is_refused(viewed: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = viewed
    few = y.copy()
    few[0] = 2
    with pytest.raises(DataError, match=r"two rows of each class.*Set cv=0"):
        DenseHead(cv=5).fit(X, few)
    with pytest.raises(ParameterError, match=r"0, or a whole number, 2 or more"):
        DenseHead(cv=1).fit(X, y)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_those_of_keras(activation: str) -> None:
    keras = import_keras()
    x = np.linspace(-30, 30, 601)
    expected = np.asarray(getattr(keras.activations, activation)(keras.ops.convert_to_tensor(x)))
    np.testing.assert_allclose(ACTIVATION_FUNCTIONS[activation](x), expected, rtol=1e-6, atol=1e-9)


def test_a_copy_predicts_without_keras_and_makes_its_network_when_asked(
    data: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = data
    head = DenseHead([8], epochs=2, random_state=0).fit(X, y)
    copy = pickle.loads(pickle.dumps(head))
    with monkeypatch.context() as patched:
        patched.setattr(saved_network, "build_network", None)
        np.testing.assert_array_equal(copy.predict_proba(X), head.predict_proba(X))
        assert len(copy.to_layers()) == 2
    np.testing.assert_allclose(copy.network_.predict(X, verbose=0), head.predict_proba(X), atol=1e-5)
    again = pickle.loads(pickle.dumps(head)).set_params(epochs=1).fit(X, y)
    assert not np.allclose(again.predict_proba(X), head.predict_proba(X), atol=1e-3)
    with pytest.raises(AttributeError, match="nothing"):
        copy.nothing  # noqa: B018
