"""A Keras network of Dense layers as a scikit-learn classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from headstart.heads.network import build_network, compile_epoch, load_network

if TYPE_CHECKING:
    from numpy.typing import NDArray


class DenseHead(ClassifierMixin, BaseEstimator):
    """Dense layers with ReLU, then Dense with softmax, trained by Adam on cross-entropy.

    The defaults are those of the Keras recipe: ``Dense(256, relu) → Dense(n_classes, softmax)``, 10 epochs, batches of 32.

    Parameters
    ----------
    hidden : sequence of int
        Units of the hidden layers; empty for softmax regression.
    dropout : float
        Share of hidden units left out in each step.
    epochs, batch_size : int
        Passes over the data, and rows per step.
    learning_rate : float
        Of Adam (Kingma & Ba, 2015); Keras' default.
    l2 : float
        L2 penalty on the kernels.
    early_stopping : bool
        Hold out ``validation_fraction`` of the rows, stop when their loss has not fallen for ``patience`` epochs, and keep
        the weights of the best one.
    validation_fraction : float
        Share of the rows held out for early stopping.
    patience : int
        Epochs to wait for a better one.
    class_weight : None, "balanced" or mapping
        As in scikit-learn.
    random_state : int, RandomState or None
        Seeds initial weights, order of the rows and dropout.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    network_ : keras.Model
        The fitted network; rows of features in, probabilities out.
    history_ : dict of str to list of float
        Loss and accuracy per epoch; with early stopping those of the held-out rows too.
    n_iter_ : int
        Epochs that were run.

    Examples
    --------
    >>> DenseHead(random_state=0).fit(X, y).predict_proba(X[:2])                       # doctest: +SKIP
    array([[0.98, 0.02], [0.01, 0.99]], dtype=float32)
    """

    def __init__(
        self,
        hidden: Sequence[int] = (256,),
        *,
        dropout: float = 0.0,
        epochs: int = 10,
        batch_size: int = 32,
        learning_rate: float = 0.001,
        l2: float = 0.0,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 5,
        class_weight: Any = None,
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.l2 = l2
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.class_weight = class_weight
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> DenseHead:
        """Train on rows of features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Computed in float32.
        y : array-like of shape (n_samples,)
            Labels of at least two classes.
        """
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"A classifier needs at least two classes. Received: 1 class, {self.classes_[0]!r}.")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        weights = compute_class_weight(self.class_weight, classes=self.classes_, y=y).astype(np.float32)
        self.network_ = self._network(X.shape[1], seed)
        train, held_out = self._hold_out(codes, seed)
        self.history_ = self._train(X, codes, weights[codes], train, held_out, seed)
        self.n_iter_ = len(self.history_["loss"])
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Return probabilities of shape (n_samples, n_classes), float32, in the order of ``classes_``."""
        check_is_fitted(self, "network_")
        X = validate_data(self, X, dtype=np.float32, reset=False)
        chunks = (self.network_(X[start : start + 1024], training=False) for start in range(0, len(X), 1024))
        return np.concatenate([chunk.numpy() for chunk in chunks])

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable label of each row."""
        probabilities = self.predict_proba(X)  # first, so that an unfitted head says so
        labels: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return labels

    def load_network(self, path: Path) -> DenseHead:
        """Take the weights of a saved network; everything else that was fitted is there already.

        Raises
        ------
        BundleError
            If the file is damaged, or holds another network than this head's.
        """
        units = (*self.hidden, len(self.classes_))
        self.network_ = load_network(path, self.n_features_in_, units, dropout=self.dropout, l2=self.l2)
        return self

    def _network(self, n_features: int, seed: int) -> Any:
        units = (*self.hidden, len(self.classes_))
        return build_network(n_features, units, dropout=self.dropout, l2=self.l2, seed=seed)

    def _hold_out(self, codes: NDArray[np.intp], seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        everything = np.arange(len(codes))
        if not self.early_stopping:
            return everything, everything[:0]
        order = np.random.default_rng(seed).permutation(len(codes))
        by_class = [order[codes[order] == code] for code in range(len(self.classes_))]
        counts = [round(self.validation_fraction * len(rows)) for rows in by_class]
        held_out = np.concatenate([rows[:count] for rows, count in zip(by_class, counts, strict=True)])
        if not len(held_out):
            raise ValueError(
                f"early_stopping needs rows to hold out. Received: {len(codes)} rows and "
                f"validation_fraction={self.validation_fraction}."
            )
        return np.setdiff1d(everything, held_out), np.sort(held_out)

    def _train(
        self,
        X: NDArray[np.float32],
        codes: NDArray[np.intp],
        weights: NDArray[np.float32],
        train: NDArray[np.intp],
        held_out: NDArray[np.intp],
        seed: int,
    ) -> dict[str, list[float]]:
        data = (X, codes.astype(np.int32), weights)
        run_epoch = compile_epoch(self.network_, self.learning_rate, self.batch_size, data)
        rng = np.random.default_rng(seed)
        history: dict[str, list[float]] = {"loss": [], "accuracy": []}
        best, best_weights, waited = np.inf, None, 0
        for _ in range(self.epochs):
            loss, n_right = run_epoch(rng.permutation(train).astype(np.int32))
            history["loss"].append(loss / len(train))
            history["accuracy"].append(n_right / len(train))
            if not self.early_stopping:
                continue
            held_out_loss = self._held_out_loss(X[held_out], codes[held_out], history)
            if held_out_loss < best:
                best, best_weights, waited = held_out_loss, self.network_.get_weights(), 0
            elif (waited := waited + 1) >= self.patience:
                break
        if best_weights is not None:
            self.network_.set_weights(best_weights)
        return history

    def _held_out_loss(self, X: NDArray[np.float32], codes: NDArray[np.intp], history: dict[str, list[float]]) -> float:
        probabilities = self.network_(X, training=False).numpy()
        loss = float(-np.log(np.maximum(probabilities[np.arange(len(codes)), codes], 1e-7)).mean())
        history.setdefault("val_loss", []).append(loss)
        history.setdefault("val_accuracy", []).append(float((probabilities.argmax(axis=1) == codes).mean()))
        return loss

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        network = state.pop("network_", None)
        if network is not None:
            state["_network_weights"] = network.get_weights()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        weights = state.pop("_network_weights", None)
        super().__setstate__(state)
        if weights is not None:
            self.network_ = self._network(self.n_features_in_, seed=0)
            self.network_.set_weights(weights)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = self.random_state is None
        return tags
