"""A Keras network of Dense layers as a scikit-learn classifier."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from headstart.errors import DataError, ParameterError
from headstart.heads.base import (
    Head,
    Layer,
    encode,
    fit_temperature,
    hold_out,
    row_weights,
    stratified_folds,
    weighted_rows,
)
from headstart.heads.catalogue import HEAD_TYPES
from headstart.heads.fitting.dense_layers import as_views, probabilities
from headstart.heads.fitting.dense_training import (
    Descent,
    EpochRunner,
    Watched,
    compile_epoch,
    compile_streamed_epoch,
    run_epochs,
)
from headstart.heads.fitting.saved_network import SavedNetwork
from headstart.heads.head_specs import check_values
from headstart.heads.out_of_core import HeldOut, Rows, dense

#: The smallest probability whose logarithm is a score: float32's smallest normal number.
TINY = float(np.finfo(np.float32).tiny)


class DenseHead(SavedNetwork, Head):
    """Dense layers with ReLU, then Dense with softmax, trained by Adam on cross-entropy.

    The defaults are those of the Keras recipe: ``Dense(256, relu) → Dense(n_classes, softmax)``, 10 epochs, batches of 32.

    Parameters
    ----------
    hidden, activation, dropout : sequence of int, str, float
        Units of the hidden layers, none for softmax regression; their activation, one of ``heads.parameters.ACTIVATIONS``;
        fraction of hidden units dropped in each step.
    epochs, batch_size : int
        Passes over the data, and rows per step.
    learning_rate, schedule, l2 : float, str, float
        Learning rate of Adam (Kingma & Ba, 2015), ``constant``, or falling to 0 over the epochs, ``linear`` or as a
        ``cosine``; and L2 penalty on the kernels.
    early_stopping, validation_fraction, patience : bool, float, int
        Hold out a fraction of the rows, stop when their loss has not fallen for so many epochs, and keep the best
        weights.
    cv : int
        Folds of the temperature scaling: the scores of as many heads, each on the fold it was not fitted on, choose the
        divisor of the scores of the final head. It changes probabilities, but no prediction of a single view. 0: no scaling.
    views : int
        Parts of a row, as wide each, that show the same image, as crops of it: every step sees one of them, drawn at random,
        and the prediction is the mean over all.
    class_weight : None, "balanced" or mapping
        As in scikit-learn.
    random_state : int, RandomState or None
        Seeds initial weights, order of the rows and dropout.

    Attributes
    ----------
    network_ : keras.Model
        The fitted network; rows of features in (of several views: one of them), probabilities out.
    history_, n_iter_ : dict of str to list of float, int
        Loss and accuracy per epoch, those of the held-out rows too, where there are any; and epochs that were run.
    temperature_ : float
        Divisor of the scores; the weights of ``network_`` include it.

    Examples
    --------
    >>> DenseHead(random_state=0).fit(X, y).predict_proba(X[:2])                       # doctest: +SKIP
    array([[0.98, 0.02], [0.01, 0.99]], dtype=float32)
    """

    def __init__(
        self,
        hidden: Sequence[int] = (256,),
        *,
        activation: str = "relu",
        dropout: float = 0.0,
        epochs: int = 10,
        batch_size: int = 32,
        learning_rate: float = 0.001,
        schedule: str = "constant",
        l2: float = 0.0,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 5,
        cv: int = 0,
        views: int = 1,
        class_weight: Any = None,
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.l2 = l2
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.cv = cv
        self.views = views
        self.class_weight = class_weight
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight: Any = None,
        groups: Any = None,
    ) -> DenseHead:
        """Train on rows of features, shape (n_samples, n_features), computed in float32, with their labels and weights.

        ``X_val`` and ``y_val`` are Keras' ``validation_data``: rows that are not trained on, whose loss and accuracy after
        each epoch are in ``history_``, and by which ``early_stopping`` goes. Scale them as ``X``. Rows of one group (of
        ``groups``, shape (n_samples,)), as crops of an image, are held out together.

        Raises DataError if there are fewer than two classes, or too few rows to hold some out; ParameterError if a
        parameter cannot have its value, the columns cannot be divided into so many views, or the weights have left the
        range of float32.
        """
        X, y = validate_data(self, X, y, dtype=np.float32)
        X, y, counts, groups = weighted_rows(X, y, sample_weight, groups)
        codes, seed = self._start(X.shape[1], y)
        if X_val is not None and y_val is not None:
            train, watched = np.arange(len(X)), self._given(X_val, y_val)
        else:
            train, held_out = self._divide(codes, seed, groups)
            watched = [(X[held_out], codes[held_out])] if len(held_out) else []
        weights = row_weights(self.class_weight, y, counts).astype(np.float32)
        data = (as_views(X, self.views), codes.astype(np.int32).repeat(self.views), weights.repeat(self.views))
        run_epoch = compile_epoch(self.network_, self._descent(len(train)), data)
        self._finish(run_epoch, train, watched, seed, float(weights.mean()))
        if self.cv:
            self._temper(X, y, codes, weights, counts, groups, seed)
        return self

    def fit_rows(self, rows: Rows, y: Any, sample_weight: Any = None, groups: Any = None) -> DenseHead:
        """Train as :meth:`fit` does, on scaled rows that are taken a batch at a time, in another random order in each epoch.

        Raises ParameterError too if a temperature is asked for, which takes rows in memory.
        """
        if self.cv:
            raise ParameterError(
                f"A temperature is chosen on features in memory, and these do not fit. Received: cv={self.cv}. Set "
                "cv=0, take fewer columns, or raise the bound of memory."
            )
        self.n_features_in_ = rows.shape[1]
        codes, seed = self._start(rows.shape[1], y)
        train, held_out = self._divide(codes, seed, groups)
        weights = row_weights(self.class_weight, y, sample_weight).astype(np.float32)

        def take(numbers: NDArray[np.int32]) -> NDArray[np.float32]:
            row, view = np.divmod(numbers.astype(np.int64), self.views)
            return as_views(dense(rows.take(row)), self.views)[np.arange(len(row)) * self.views + view]

        targets = (codes.astype(np.int32).repeat(self.views), weights.repeat(self.views))
        run_epoch = compile_streamed_epoch(self.network_, self._descent(len(train)), take, targets)
        watched: Watched = HeldOut(rows, codes, held_out) if len(held_out) else []
        return self._finish(run_epoch, train, watched, seed, float(weights.mean()))

    def streaming_bytes(self, n_features: int, n_classes: int) -> int:
        """Return the memory that :meth:`fit_rows` needs beside the rows of a block, bytes."""
        width = int((*self.hidden, n_classes)[0])
        batch = 4 * 4 * n_features * int(self.batch_size)
        # Weights, two moments of Adam, a gradient, and copies of the first and of the best weights.
        return batch + 6 * 4 * n_features * width

    def to_layers(self) -> tuple[Layer, ...]:
        """Return the layers of the network; dropout does nothing in prediction."""
        check_is_fitted(self, "classes_")
        return tuple(Layer(kernel, bias, name) for name, kernel, bias in self.layers())

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Return probabilities of shape (n_samples, n_classes), float32, in the order of ``classes_``."""
        check_is_fitted(self, "history_")
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return probabilities(self.layers(), X, self.views)

    def _start(self, n_features: int, y: Any) -> tuple[NDArray[np.intp], int]:
        """Check the parameters and labels, make the network, and return codes and seed."""
        settings = {name: value for name, value in self.get_params().items() if name != "random_state"}
        check_values("dense", settings, HEAD_TYPES["dense"].params)
        self.classes_, codes = encode(y)
        if n_features % self.views:
            raise ParameterError(
                f"{n_features} columns cannot be divided into views of the same width. Received: views={self.views}."
            )
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.network_ = self._network(n_features, seed)
        return codes, seed

    def _divide(
        self, codes: NDArray[np.intp], seed: int, groups: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the rows to train on, and those that early stopping holds out."""
        if not self.early_stopping:
            return np.arange(len(codes)), np.arange(0)
        held_out = hold_out(codes, self.validation_fraction, seed=seed, groups=groups)
        if not len(held_out):
            raise DataError(
                f"early_stopping needs rows to hold out. Received: {len(codes)} rows and "
                f"validation_fraction={self.validation_fraction}."
            )
        return np.setdiff1d(np.arange(len(codes)), held_out), held_out

    def _finish(
        self, run_epoch: EpochRunner, train: NDArray[np.intp], watched: Watched, seed: int, mean_weight: float
    ) -> DenseHead:
        self.history_ = run_epochs(
            self.network_,
            run_epoch,
            train,
            watched,
            epochs=self.epochs,
            patience=self.patience if self.early_stopping else None,
            seed=seed,
            views=self.views,
        )
        self.n_iter_ = len(self.history_["loss"])
        self.temperature_ = 1.0
        self._check_learned(mean_weight)
        return self

    def _temper(
        self,
        X: NDArray[np.float32],
        y: Any,
        codes: NDArray[np.intp],
        weights: NDArray[np.float32],
        counts: NDArray[np.float64] | None,
        groups: NDArray[np.int64] | None,
        seed: int,
    ) -> None:
        """Divide the scores by the temperature that heads without a fold each have on it (Guo et al., ICML 2017)."""
        folds = stratified_folds(codes, self.cv, seed=seed, groups=groups)
        if not folds:
            raise DataError(
                f"A temperature needs at least two rows of each class. Received: 1 of one of them, cv={self.cv}. Set cv=0."
            )
        scores = np.empty((len(X), self.views, len(self.classes_)))
        for train, test in folds:
            own = None if counts is None else counts[train]
            head = clone(self).set_params(cv=0, random_state=seed).fit(X[train], y[train], sample_weight=own)
            predicted = probabilities(head.layers(), as_views(X[test], self.views))
            scores[test] = np.log(np.maximum(predicted, TINY)).reshape(len(test), self.views, -1)
        self.temperature_ = fit_temperature(scores, codes, weights.astype(np.float64), counts)
        *before, kernel, bias = self.network_.get_weights()
        self.network_.set_weights([*before, kernel / self.temperature_, bias / self.temperature_])

    def _descent(self, n_rows: int) -> Descent:
        n_steps = int(self.epochs) * -(-n_rows // int(self.batch_size))
        return Descent(self.learning_rate, self.batch_size, n_steps, self.schedule)

    def _shape(self) -> dict[str, Any]:
        units = (*self.hidden, len(self.classes_))
        return {"units": units, "activation": self.activation, "dropout": self.dropout, "l2": self.l2}

    def _given(self, X: Any, y: Any) -> Watched:
        X, y = validate_data(self, X, y, dtype=np.float32, reset=False)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise DataError(f"y_val has labels that y has not: {', '.join(map(str, unknown))}.")
        return [(X, np.searchsorted(self.classes_, y))]

    def _check_learned(self, mean_weight: float) -> None:
        """Warn if training failed; the probabilities alone would not show it."""
        if not all(np.isfinite(weights).all() for weights in self.network_.get_weights()):
            raise ParameterError(
                f"The weights left the range of float32 in training. Lower learning_rate (received: {self.learning_rate}), "
                "or scale the features."
            )
        first, last = self.history_["loss"][0], self.history_["loss"][-1]
        guessing = mean_weight * float(np.log(len(self.classes_)))
        if last > max(first, guessing):
            warnings.warn(
                f"The dense head has not learned: its loss rose from {first:.3g} to {last:.3g} in {self.n_iter_} epochs, and "
                f"guessing has {guessing:.3g}. Lower learning_rate (received: {self.learning_rate}), or scale the features.",
                ConvergenceWarning,
                stacklevel=4,
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = self.random_state is None
        return tags
